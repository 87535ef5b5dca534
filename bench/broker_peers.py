"""The brokers that bench/broker.py compares: how each is started, spoken to over a raw socket, and counted."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from pathlib import Path
from tempfile import mkdtemp

ROOT = Path(__file__).resolve().parents[1]
NATS_VERSION = "2.15.2"
NATS_SERVER = Path.home() / f".cache/gpu-telemetry/nats-server-{NATS_VERSION}/nats-server"
_CHUNK = 1 << 20
_SCRATCH = bytearray(_CHUNK)


class Subscriber:
    """A connection that takes everything and keeps nothing."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.bytes = 0

    def on_readable(self) -> None:
        """Take what is there. Raises ConnectionError at the end of the stream."""
        # The kernel drops the bytes itself: a subscriber costs the core that all clients share as little as it can.
        got = self.sock.recv_into(_SCRATCH, _CHUNK, socket.MSG_TRUNC)
        if not got:
            raise ConnectionError("the broker closed a subscriber's connection")
        self.bytes += got


class Peer(ABC):
    """One broker. ``answer`` is in each answer to a publish just once, ``trouble`` in each refusal."""

    name: str
    answer: bytes
    trouble: bytes
    root = ROOT

    def __init__(self) -> None:
        self.port = 0
        self.folder = Path()
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def missing(self) -> str:
        """What is not installed, or an empty string."""

    @abstractmethod
    def command(self) -> list[str]:
        """How to start it in ``folder`` on ``port``."""

    @abstractmethod
    def prepare(self, sock: socket.socket) -> None:
        """Make what messages go to."""

    @abstractmethod
    def greet(self, sock: socket.socket, number: int) -> None:
        """Make a fresh connection publisher ``number``'s."""

    @abstractmethod
    def request(self, number: int, sequence: int, payload: bytes) -> bytes:
        """A publish of publisher ``number``."""

    @abstractmethod
    def subscribe(self, sock: socket.socket, number: int) -> Subscriber:
        """Make a fresh connection a subscriber's that gets everything from the first message on."""

    @abstractmethod
    def delivered_bytes(self, count: int, size: int) -> int:
        """The least bytes that ``count`` delivered messages with a payload of ``size`` bytes make."""

    def connect(self) -> socket.socket:
        """A plain connection."""
        sock = socket.create_connection(("127.0.0.1", self.port), 30)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def start(self, cpu: str, where: str | None) -> None:
        """Start it, pinned to a core, and wait until it answers. Raises RuntimeError with its log."""
        self.folder = Path(mkdtemp(prefix=f"bench-{self.name.split()[0]}-", dir=where))
        self._run(cpu)

    def restart(self, cpu: str) -> None:
        """kill -9, and start again on the same data."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._run(cpu)

    @property
    def pid(self) -> int:
        """Of the broker."""
        assert self._process is not None
        return self._process.pid

    def _run(self, cpu: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        log_path = self.folder / "server.log"
        with log_path.open("wb") as log:
            command = ["taskset", "-c", cpu, *self.command()]
            self._process = subprocess.Popen(command, cwd=self.root, stdout=log, stderr=log)
        deadline = time.monotonic() + 30
        while True:
            try:
                with self.connect() as sock:
                    self.prepare(sock)
                return
            except ConnectionError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise RuntimeError(log_path.read_text()) from None
                time.sleep(0.05)

    def stop(self) -> None:
        """End it; its data goes too."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def memory(self, field: str = "VmHWM") -> float:
        """MiB of memory: VmHWM the most so far, VmRSS now."""
        assert self._process is not None
        found = re.search(rf"{field}:\s+(\d+)", Path(f"/proc/{self._process.pid}/status").read_text())
        assert found is not None
        return int(found[1]) / 1024


class Ours(Peer):
    """This project's broker, duplicate suppression included; of another checkout where ``root`` names one."""

    answer = b'"success":true'
    trouble = b'"type":"error"'

    def __init__(self, fsync: str = "always", *flags: str, root: Path = ROOT) -> None:
        super().__init__()
        self.name = f"{'ours' if root == ROOT else 'beside'} {fsync}"
        self.root = root
        self._fsync = fsync
        self._flags = flags
        self.generation = 0  # of producers: what another one sent is not sent again

    def missing(self) -> str:
        return ""

    def command(self) -> list[str]:
        flags = ["--state-dir", str(self.folder), "--tcp-addr", f"127.0.0.1:{self.port}", "--http-addr", "127.0.0.1:0"]
        return [sys.executable, "manage.py", "runbroker", *flags, "--fsync", self._fsync, *self._flags]

    def prepare(self, sock: socket.socket) -> None:
        pass

    def greet(self, sock: socket.socket, number: int) -> None:
        pass

    def request(self, number: int, sequence: int, payload: bytes) -> bytes:
        head = b'{"type":"publish","producer":"%016x","sequence":%d,"payload":' % (
            self.generation << 32 | number + 1,
            sequence,
        )
        return b"".join(((len(head) + len(payload) + 1).to_bytes(4, "big"), head, payload, b"}"))

    def subscribe(self, sock: socket.socket, number: int) -> Subscriber:
        body = b'{"type":"subscribe","subscriber_id":"s%d","offset":-2}' % number
        sock.sendall(len(body).to_bytes(4, "big") + body)
        return Subscriber(sock)

    def delivered_bytes(self, count: int, size: int) -> int:
        return count * (size + 147)


class Nats(Peer):
    """NATS JetStream, a stream in a file, push consumers without acknowledgements or flow control."""

    answer = b'"seq":'
    trouble = b'"error":'

    def __init__(self, sync: str) -> None:
        super().__init__()
        self.name = f"nats {sync}"
        self._sync = sync

    def missing(self) -> str:
        return "" if NATS_SERVER.is_file() else f"no {NATS_SERVER}: make nats-server"

    def command(self) -> list[str]:
        sync = "sync_interval: always" if self._sync == "always" else ""
        config = self.folder / "nats.conf"
        config.write_text(
            f"listen: 127.0.0.1:{self.port}\nmax_payload: 8388608\n"
            f"jetstream {{ store_dir: {json.dumps(str(self.folder / 'data'))}\n max_file_store: 64G\n {sync} }}\n"
        )
        return [str(NATS_SERVER), "-c", str(config)]

    def prepare(self, sock: socket.socket) -> None:
        self._hello(sock)
        stream = {"name": "S", "subjects": ["s"], "storage": "file", "retention": "limits", "num_replicas": 1}
        self._ask(sock, "$JS.API.STREAM.CREATE.S", stream)

    def greet(self, sock: socket.socket, number: int) -> None:
        self._hello(sock)
        sock.sendall(b"SUB i%d 1\r\nPING\r\n" % number)
        _read_until(sock, b"PONG\r\n")

    def request(self, number: int, sequence: int, payload: bytes) -> bytes:
        return b"PUB s i%d %d\r\n%b\r\n" % (number, len(payload), payload)

    def subscribe(self, sock: socket.socket, number: int) -> Subscriber:
        self._hello(sock)
        config = {
            "name": f"c{number:02d}",
            "deliver_subject": f"d{number:02d}",
            "ack_policy": "none",
            "deliver_policy": "all",
            "replay_policy": "instant",
            "inactive_threshold": 3600 * 10**9,
        }
        with self.connect() as control:
            sock.sendall(b"SUB d%02d 1\r\nPING\r\n" % number)
            _read_until(sock, b"PONG\r\n")
            self._hello(control)
            self._ask(control, f"$JS.API.CONSUMER.CREATE.S.c{number:02d}", {"stream_name": "S", "config": config})
        return Subscriber(sock)

    def delivered_bytes(self, count: int, size: int) -> int:
        # A delivered message shows the subject it was published to.
        fixed = len(b"MSG s 1 $JS.ACK.S.c00.1...1700000000000000000.0 \r\n\r\n") + len(str(size)) + size
        # Both of the subject's sequences, which count from 1.
        digits = sum(count + 1 - int(10**length) for length in range(len(str(count))))
        return count * fixed + 2 * digits

    def _hello(self, sock: socket.socket) -> None:
        sock.sendall(b'CONNECT {"verbose":false,"headers":true}\r\nPING\r\n')
        _read_until(sock, b"PONG\r\n")

    def _ask(self, sock: socket.socket, subject: str, request: object) -> None:
        body = json.dumps(request)
        sock.sendall(f"SUB r 9\r\nPUB {subject} r {len(body)}\r\n{body}\r\n".encode())
        answer = _read_until(sock, b"}\r\n")
        if b'"error"' in answer:
            raise RuntimeError(answer.decode())


class Redis(Peer):
    """Redis Streams with an append-only file; subscribers ask with XREAD, a batch at a time."""

    answer = b"$"
    trouble = b"-ERR"

    def __init__(self, appendfsync: str) -> None:
        super().__init__()
        self.name = f"redis {appendfsync}"
        self._appendfsync = appendfsync

    def missing(self) -> str:
        return "" if shutil.which("redis-server") else "no redis-server on PATH: apt install redis-server"

    def command(self) -> list[str]:
        flags = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", ""]
        flags += ["--appendonly", "yes", "--appendfsync", self._appendfsync, "--auto-aof-rewrite-percentage", "0"]
        return ["redis-server", *flags]

    def prepare(self, sock: socket.socket) -> None:
        sock.sendall(b"PING\r\n")
        _read_until(sock, b"+PONG\r\n")

    def greet(self, sock: socket.socket, number: int) -> None:
        pass

    def request(self, number: int, sequence: int, payload: bytes) -> bytes:
        return b"*5\r\n$4\r\nXADD\r\n$1\r\ns\r\n$1\r\n*\r\n$1\r\np\r\n$%d\r\n%b\r\n" % (len(payload), payload)

    def subscribe(self, sock: socket.socket, number: int) -> Subscriber:
        return RedisSubscriber(sock)

    def delivered_bytes(self, count: int, size: int) -> int:
        return count * size  # of payload: the only bytes that RedisSubscriber counts


class RedisSubscriber(Subscriber):
    """Asks for the next batch when the last one is complete."""

    _COUNT = re.compile(rb"\*1\r\n\*2\r\n\$1\r\ns\r\n\*(\d+)\r\n")
    _ENTRY = re.compile(rb"\*2\r\n\$\d+\r\n(\d+-\d+)\r\n\*2\r\n\$1\r\np\r\n\$(\d+)\r\n")

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self._buffer = bytearray()
        self._left = 0  # entries of this answer still to come
        self._last = b"0-0"
        self._ask()

    def on_readable(self) -> None:
        got = self.sock.recv(_CHUNK)
        if not got:
            raise ConnectionError("the broker closed a subscriber's connection")
        self._buffer += got
        buffer, position = self._buffer, 0
        if not self._left:
            head = self._COUNT.match(buffer)
            if head is None:
                return
            self._left, position = int(head[1]), head.end()
        while self._left:
            entry = self._ENTRY.match(buffer, position)
            if entry is None or entry.end() + int(entry[2]) + 2 > len(buffer):
                break
            position = entry.end() + int(entry[2]) + 2
            self.bytes += int(entry[2])
            self._last = entry[1]
            self._left -= 1
        del buffer[:position]
        if not self._left and not buffer:
            self._ask()

    def _ask(self) -> None:
        last = b"$%d\r\n%b" % (len(self._last), self._last)
        self.sock.sendall(
            b"*8\r\n$5\r\nXREAD\r\n$5\r\nCOUNT\r\n$3\r\n500\r\n$5\r\nBLOCK\r\n$1\r\n0\r\n$7\r\nSTREAMS\r\n$1\r\ns\r\n%b\r\n"
            % last
        )


def _read_until(sock: socket.socket, end: bytes) -> bytes:
    data = b""
    while not data.endswith(end):
        got = sock.recv(65536)
        if not got:
            raise ConnectionResetError("hung up")
        data += got
    return data
