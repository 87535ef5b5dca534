"""What a person reads on a page."""

from __future__ import annotations

import re
from html import unescape

from django.test import Client


def html(client: Client, path: str) -> str:
    """The page, which must be answered."""
    response = client.get(path)
    assert response.status_code == 200
    return response.content.decode()


def text_of(body: str) -> str:
    """The text, with a space wherever there is a tag or white space."""
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", body)).split())


def part(body: str, name: str) -> str:
    """The text of one part of a page."""
    return text_of("<" + body.split(f'data-part="{name}"')[1].split("</section>")[0])
