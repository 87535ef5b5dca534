"""Small files beside the log: one line of JSON after its own CRC. All of them can be lost: they only save work.

xxxxxxxx {"…":…}\\n
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TypeVar
from zlib import crc32

import msgspec

from broker.log.disk import Disk

logger = logging.getLogger(__name__)

T = TypeVar("T")
_TEXT_START = 9


def save(disk: Disk, path: Path, content: object) -> None:
    """Replaces the file at once. Raises OSError when it cannot; the old file then stands."""
    text = msgspec.json.encode(content)
    disk.replace(path, b"%08x %b\n" % (crc32(text), text))


def load(path: Path, kind: type[T]) -> T | None:
    """What was saved, or None when the file is missing, damaged or of another kind; damage is logged."""
    try:
        data = path.read_bytes()
        text = data[_TEXT_START:-1]
        if data != b"%08x %b\n" % (crc32(text), text):
            raise ValueError("its checksum is wrong")
        return msgspec.json.decode(text, type=kind)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        logger.warning("%s is not used: %s", path, error)
        return None
