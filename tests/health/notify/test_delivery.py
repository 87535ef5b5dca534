"""Messages through Apprise to real servers: a web server, and a mail server."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes
from email.header import decode_header, make_header
from email.message import Message as Mail
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from apprise.plugins.base import NotifyBase

from health.notify.channels import parse_channels
from health.notify.delivery import ApprisePlug, open_plugs
from health.notify.errors import ChannelError, DeliveryError
from health.notify.messages import ChannelMessage, MessageType
from health.notify.threads import SENDING
from tests.broker.certificates import Authority
from tests.health.notify.receivers import Receiver
from tests.ports import free_port

MESSAGE = ChannelMessage("4f1c2a", MessageType.CRITICAL, "CRITICAL: GPU 3 °C", "Where: node-1\nKey: 4f1c2a", "event-17")
SECRET = "s3cr3t-token-of-the-hook"


class Mailbox:
    """What a mail server took; it refuses the addresses in ``refused``."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.mails: list[tuple[list[str], Mail]] = []
        self.refused: set[str] = set()

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address in self.refused:
            return "550 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        assert isinstance(envelope.content, bytes)
        self.mails.append((list(envelope.rcpt_tos), message_from_bytes(envelope.content)))
        return "250 OK"


@contextmanager
def serving_mail(**options: Any) -> Iterator[Mailbox]:
    box = Mailbox(free_port())
    controller = Controller(box, hostname="127.0.0.1", port=box.port, **options)
    controller.start()
    try:
        yield box
    finally:
        controller.stop()


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    with serving_mail() as box:
        yield box


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Apprise waits seconds between two mails."""
    monkeypatch.setattr(NotifyBase, "request_rate_per_sec", 0)


def plug(url: str) -> ApprisePlug:
    (found,) = open_plugs(parse_channels((url,)))
    return found


def mail_url(mailbox: Mailbox, to: str = "ops@example.com") -> str:
    return f"mailto://127.0.0.1:{mailbox.port}?from=gpus@example.com&to={to}&smtp=127.0.0.1&mode=insecure"


def test_a_webhook_gets_text_and_key(receiver: Receiver) -> None:
    plug(receiver.channel).send(MESSAGE)
    (got,) = receiver.got
    assert (got.path, got.key) == ("/hook", "4f1c2a")
    assert (got.json["title"], got.json["message"], got.json["type"]) == (MESSAGE.title, MESSAGE.body, "failure")


def test_mail_has_the_key_in_a_header_and_one_thread_for_an_event(mailbox: Mailbox) -> None:
    plug(mail_url(mailbox)).send(MESSAGE)
    ((to, mail),) = mailbox.mails
    assert to == ["ops@example.com"]
    assert str(make_header(decode_header(mail["Subject"]))) == MESSAGE.title
    assert mail["X-GPU-Telemetry-Key"] == "4f1c2a"
    assert mail["References"] == "<event-17@gpu-telemetry.invalid>"
    text = mail.get_payload(decode=True)
    assert isinstance(text, bytes)
    assert "Where: node-1" in text.decode()


def test_mail_by_tls_needs_a_certificate_that_is_trusted(tmp_path: Path) -> None:
    certificate, key = Authority(tmp_path).sign("mail")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with serving_mail(tls_context=context, require_starttls=True) as mailbox:
        url = (
            f"mailtos://127.0.0.1:{mailbox.port}?from=gpus@example.com&to=ops@example.com&smtp=127.0.0.1&mode=starttls"
        )
        with pytest.raises(DeliveryError, match="Connection error while submitting email"):
            plug(url).send(MESSAGE)
        assert mailbox.mails == []
        plug(f"{url}&verify=no").send(MESSAGE)
        assert [to for to, _ in mailbox.mails] == [["ops@example.com"]]


def test_a_text_that_got_past_all_care_makes_no_header(mailbox: Mailbox) -> None:
    evil = MESSAGE._replace(title="CRITICAL: x\r\nBcc: all@example.com", body="a\r\n.\r\nRCPT TO:<all@example.com>")
    plug(mail_url(mailbox)).send(evil)
    ((to, mail),) = mailbox.mails
    assert to == ["ops@example.com"]
    assert mail["Bcc"] is None


def test_who_has_it_gets_no_second_one_when_another_refused_it(mailbox: Mailbox) -> None:
    mailbox.refused = {"gone@example.com"}
    way = plug(mail_url(mailbox, "gone@example.com,ops@example.com"))
    for _ in range(3):
        with pytest.raises(DeliveryError):
            way.send(MESSAGE)
    assert [to for to, _ in mailbox.mails] == [["ops@example.com"]]
    mailbox.refused = set()
    way.send(MESSAGE)
    assert [to for to, _ in mailbox.mails] == [["ops@example.com"], ["gone@example.com"]]


@pytest.mark.parametrize(
    ("status", "retry_after", "seconds"),
    [
        (500, "", 0),
        (429, "120", 120),
        (503, "99999999999", 6 * 3600),
        (503, "soon", 0),
        (503, "Sat, 1 Jan 2000 00:00:00 GMT", 0),
    ],
)
def test_a_refusal_names_the_status_and_says_how_long_to_wait(
    receiver: Receiver, status: int, retry_after: str, seconds: float
) -> None:
    receiver.answer = lambda request: (status, {"Retry-After": retry_after} if retry_after else {})
    with pytest.raises(DeliveryError, match=f"the service answered {status}") as caught:
        plug(receiver.channel).send(MESSAGE)
    assert caught.value.retry_after == seconds


def test_a_redirect_is_not_followed(receiver: Receiver) -> None:
    receiver.answer = lambda request: (302, {"Location": f"{receiver.url}/elsewhere"})
    with pytest.raises(DeliveryError, match="302"):
        plug(receiver.channel).send(MESSAGE)
    assert [each.path for each in receiver.got] == ["/hook"]


class Lines(logging.Handler):
    """What the root logger gets."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text += f"{record.name}: {record.getMessage()}\n"


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lines]:
    """All that is logged at VERBOSITY=3, whatever other tests have set for libraries."""
    for name in ("urllib3", "urllib3.connectionpool", "requests", "apprise"):
        library = logging.getLogger(name)
        monkeypatch.setattr(library, "disabled", False)
        monkeypatch.setattr(library, "propagate", True)
        monkeypatch.setattr(library, "level", logging.NOTSET)
    monkeypatch.setattr(logging.root.manager, "disable", logging.NOTSET)
    logging.root.manager._clear_cache()  # type: ignore[attr-defined]
    handler, root = Lines(), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield handler
    root.setLevel(level)
    root.removeHandler(handler)


def test_no_error_and_no_line_of_a_log_has_a_secret(receiver: Receiver, lines: Lines) -> None:
    urls = (
        f"json://user:{SECRET}@127.0.0.1:{receiver.port}/{SECRET}",
        f"json://user:{SECRET}@127.0.0.1:{free_port()}/{SECRET}",
        f"mailto://user:{SECRET}@127.0.0.1:{free_port()}?from=a@example.com&to=b@example.com&smtp=127.0.0.1&mode=insecure",
        f"json://{SECRET}.invalid/{SECRET}",
    )
    receiver.answer = lambda request: (403, {})
    plugs = open_plugs(parse_channels(urls))

    def send_all() -> list[str]:
        texts = []
        for each in plugs:
            with pytest.raises(DeliveryError) as caught:
                each.send(MESSAGE)
            texts.append(str(caught.value))
        return texts

    found: list[str] = []
    thread = threading.Thread(target=lambda: found.extend(send_all()), name=f"{SENDING}test")
    thread.start()
    thread.join()
    logging.getLogger("urllib3.connectionpool").debug("seen by the handler")
    assert "seen by the handler" in lines.text
    assert len(found) == 4
    assert all(found)
    assert SECRET not in "".join(found) + lines.text


def test_a_service_that_never_answers_is_a_failure_after_a_while() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        with pytest.raises(DeliveryError):
            plug(f"json://127.0.0.1:{silent.getsockname()[1]}/?rto=0.5&cto=0.5").send(MESSAGE)
        assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (f"nosuch://{SECRET}", "is of a kind that Apprise does not know: use one of its services"),
        (f"slack://{SECRET}", "is not as Apprise has those of slack://"),
    ],
)
def test_a_url_that_apprise_does_not_understand_is_named_without_its_secret(url: str, said: str) -> None:
    with pytest.raises(ChannelError) as caught:
        open_plugs(parse_channels(("json://localhost", url)))
    text = str(caught.value)
    assert text.startswith("NOTIFY_URLS: URL 2 ")
    assert said in text
    assert SECRET not in text
    assert "\n" not in text
