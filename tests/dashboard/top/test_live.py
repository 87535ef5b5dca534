"""``manage.py top`` as people and scripts run it: in a pipe, and in a terminal of its own."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.api.serving import ROOT, START_SECONDS, environment, manage, migrated, serving
from tests.ports import free_port

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(180)]

FILL = """
import django
django.setup()
from tests.inventory.building import fleet, save
save(fleet(32))
"""


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder whose inventory has 32 GPUs on 4 hosts."""
    folder = migrated(tmp_path_factory.mktemp("state"))
    environ = environment(folder, DJANGO_SETTINGS_MODULE="telemetry_site.settings", PYTHONPATH=str(ROOT))
    subprocess.run([sys.executable, "-c", FILL], env=environ, cwd=ROOT, check=True, timeout=START_SECONDS)
    return folder


def top(state: Path, *flags: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run it in a pipe."""
    return subprocess.run(
        manage("top", *flags),
        env=environment(state, MQ_PORT=str(free_port()), **environ),
        capture_output=True,
        text=True,
        check=False,
        timeout=START_SECONDS,
    )


class Terminal:
    """``manage.py top`` in a terminal."""

    def __init__(self, child: int, ours: int) -> None:
        self.child = child
        self._ours = ours
        self._seen = ""

    def resize(self, columns: int, lines: int) -> None:
        """Give the terminal another size."""
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def press(self, keys: str) -> None:
        """Press keys."""
        os.write(self._ours, keys.encode())

    def until(self, pattern: str) -> str:
        """Read until that is seen, and forget all before its end. Returns what was read."""
        while (match := re.search(pattern, self._seen, re.DOTALL)) is None:
            self._seen += os.read(self._ours, 65536).decode()  # OSError: it has ended
        read, self._seen = self._seen[: match.end()], self._seen[match.end() :]
        return read

    def end(self) -> tuple[int, str]:
        """The exit status, and the rest of what it has written."""
        rest = self._seen
        while True:
            try:
                data = os.read(self._ours, 65536)
            except OSError:
                break
            if not data:
                break
            rest += data.decode()
        return os.waitstatus_to_exitcode(os.waitpid(self.child, 0)[1]), rest

    @property
    def waits_for_lines(self) -> bool:
        """Whether the terminal is as it was: it gives whole lines, with echo."""
        flags = termios.tcgetattr(self._ours)[3]
        return bool(flags & termios.ICANON and flags & termios.ECHO)


@contextmanager
def terminal(state: Path, *flags: str, size: tuple[int, int] = (80, 24)) -> Iterator[Terminal]:
    """Run it in a terminal of that size (columns, lines)."""
    environ = environment(state, MQ_PORT=str(free_port()), TERM="xterm-256color")
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
    process = subprocess.Popen(
        manage("top", *flags), env=environ, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        # A shell starts what runs in its background deaf to Ctrl-C, as these tests may be.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    os.close(theirs)
    try:
        yield Terminal(process.pid, ours)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(ours)


def test_in_a_pipe_it_prints_one_frame_without_colours(state: Path) -> None:
    for flags in ([], ["--once"]):
        done = top(state, *flags, FORCE_COLOR="")
        assert (done.returncode, done.stderr) == (0, "")
        assert "\x1b" not in done.stdout
        assert "32 of 32 report" in done.stdout
        assert "the broker does not answer" in done.stdout
        assert max(map(len, done.stdout.splitlines())) <= 80


def test_rows_sets_how_long_the_lists_are(state: Path) -> None:
    assert top(state, "--rows", "2").stdout.count("gpu ") == 2 + 2 + 1  # one GPU is idle
    assert top(state, "--rows", "0").returncode == 2


def test_json_is_one_object_with_the_documented_fields(state: Path) -> None:
    done = top(state, "--json", "--rows", "3")
    assert done.returncode == 0
    found = json.loads(done.stdout)
    page = (ROOT / "docs" / "operations.md").read_text()
    for name in found:
        assert f"`{name}`" in page, name
    assert found["counts"]["reporting"] == 32
    assert [gpu["utilisation"] for gpu in found["busiest"]] == [31, 30, 29]
    assert found["idle_held"][0]["memory_used_mib"] == 5120


def test_it_asks_a_service_with_the_token_of_a_file(state: Path, tmp_path: Path) -> None:
    made = subprocess.run(
        manage("apitoken", "create", "top"), env=environment(state), capture_output=True, text=True, check=True
    )
    (tmp_path / "token").write_text(made.stdout)
    with serving(state, API_AUTH_REQUIRED="true", MQ_PORT=str(free_port())) as service:
        done = top(tmp_path / "other", "--url", service.address, API_TOKEN_FILE=str(tmp_path / "token"))
        assert (done.returncode, done.stderr) == (0, "")
        assert f"GPU fleet  {service.address}" in done.stdout
        assert "32 of 32 report" in done.stdout
        refused = top(tmp_path / "other", "--url", service.address)
        assert refused.returncode == 1
        assert refused.stdout == ""
        assert refused.stderr.splitlines() == [
            f"CommandError: {service.address} asks for a valid token: set API_TOKEN, or API_TOKEN_FILE to a file that holds it"
        ]


@pytest.mark.parametrize(
    ("flags", "status", "line"),
    [
        (["--url", "http://127.0.0.1:1"], 1, r"http://127\.0\.0\.1:1 does not answer: .*refused"),
        (["--url", "gpus.example.com"], 2, r"API_URL \(--url\): .*does not begin with http"),
        (["--api-token", "x"], 2, r"--api-token: a secret is no flag"),
    ],
)
def test_an_error_is_one_line(flags: list[str], status: int, line: str, tmp_path: Path) -> None:
    done = top(tmp_path, "--once", *flags)
    assert done.returncode == status
    assert re.search(line, done.stderr)
    assert len(done.stderr.splitlines()) == 1


def test_without_an_inventory_it_says_what_to_do(tmp_path: Path) -> None:
    done = top(tmp_path, "--once")
    assert done.returncode == 1
    assert re.search(r"there is no inventory to read here .*make run.*--url", done.stderr)


@pytest.mark.parametrize("how", ["q", "Q", "\x03", "SIGTERM"])
def test_in_a_terminal_it_is_live_until_q_or_ctrl_c(state: Path, how: str) -> None:
    with terminal(state, "--every", "1") as shown:
        shown.until(r"32 of 32 report.*q: quit")
        assert not shown.waits_for_lines
        first = shown.until(r"UTC")
        assert "GPU fleet" in first  # a frame that came by itself
        if how == "SIGTERM":
            os.kill(shown.child, signal.SIGTERM)
        elif how == "\x03":
            os.kill(shown.child, signal.SIGINT)  # as a terminal does for the program in its foreground
        else:
            shown.press(how)
        rest = shown.until(r"\x1b\[\?1049l")  # the screen before it is back
        assert "Traceback" not in rest
        assert shown.end()[0] == 0
        assert shown.waits_for_lines


def test_it_follows_the_size_of_the_terminal(state: Path) -> None:
    with terminal(state, "--every", "3600") as shown:
        shown.until(r"q: quit")
        shown.resize(160, 40)
        wide = shown.until(r"q: quit")
        assert re.search(r"Busiest[^\n]*Hottest", wide)
        shown.resize(80, 24)
        assert not re.search(r"Busiest[^\n]*Hottest", shown.until(r"q: quit"))
        shown.press("q")
        assert shown.end()[0] == 0


def test_a_service_that_goes_away_leaves_the_last_frame_and_is_named(state: Path, tmp_path: Path) -> None:
    with (
        serving(state, MQ_PORT=str(free_port())) as service,
        terminal(tmp_path / "other", "--every", "1", "--url", service.address) as shown,
    ):
        shown.until(r"32 of 32 report.*q: quit")
        service.stop(signal.SIGTERM)
        frame = shown.until(r"not refreshed since \d\d:\d\d:\d\d UTC: http")
        assert "32 of 32 report" in frame
        shown.press("q")
        assert shown.end()[0] == 0


def test_a_first_error_in_a_terminal_is_one_line_too(tmp_path: Path) -> None:
    with terminal(tmp_path, "--url", "http://127.0.0.1:1") as shown:
        status, said = shown.end()
        assert status == 1
        assert "\x1b[?1049h" not in said
        assert "does not answer" in said
