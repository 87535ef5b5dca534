"""Stands in for a container engine: runs a target of deploy/Dockerfile with its ENTRYPOINT, CMD, ENV, user and health check.

The root file system is read-only and holds only the COPY'd files, the installed packages as deploy/slim.sh leaves them, and
this machine's system folders; only STATE_DIR and /tmp can be written. All of a pod share a network of their own, so each
listens on the port that its image says.
"""

from __future__ import annotations

import fnmatch
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.deploy.dockerfile import ROOT, Stage, stages

# What a container has of its base image. The interpreter may be elsewhere than in /usr.
SYSTEM = ("usr", "bin", "lib", "lib64", "sbin", "etc", "proc", "dev")
STATE = "var/lib/gpu-telemetry"
START_SECONDS = 60.0
# What compose and the chart give a service at least (stop_grace_period).
GRACE_SECONDS = 30.0

_ENTER = """
set -eu
root=$1; state=$2; user=$3; hosts=$4; shift 4
mount --bind "$root" "$root"
for each in {binds}; do mount --rbind "/$each" "$root/$each"; mount -o remount,bind,ro "$root/$each" 2> /dev/null || true; done
mount --bind "$hosts" "$root/etc/hosts"
mount --bind "$state" "$root/{state}"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -o remount,bind,ro "$root"
exec chroot "$root" /usr/bin/setpriv --reuid "${{user%:*}}" --regid "${{user#*:}}" --clear-groups --no-new-privs \\
    --bounding-set=-all --inh-caps=-all /usr/bin/env -i "$@"
"""


def required_tools() -> None:
    """Skips where namespaces cannot be made; fails instead where REQUIRE_NAMESPACES is 1."""
    works = (
        sys.platform == "linux"
        and os.geteuid() == 0
        and all(shutil.which(tool) for tool in ("unshare", "nsenter", "setpriv", "ip", "chroot"))
        and subprocess.run(["unshare", "-m", "-n", "true"], capture_output=True).returncode == 0
    )
    if works:
        return
    message = "needs root, util-linux and iproute2, and to be allowed to make namespaces"
    if os.environ.get("REQUIRE_NAMESPACES") == "1":
        pytest.fail(message)
    pytest.skip(message)


@dataclass
class Container:
    """A running one."""

    pod: Pod
    stage: Stage
    environ: Mapping[str, str]
    process: subprocess.Popen[bytes]
    log_path: Path
    volume: str = "state"

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def healthcheck(self) -> subprocess.CompletedProcess[str]:
        """Run the image's HEALTHCHECK once, in the container's own surroundings."""
        return self.pod.run(self.stage, self.stage.healthcheck, self.environ, self.volume)

    def wait_until_healthy(self) -> None:
        """As an engine does: until the health check passes."""
        deadline = time.monotonic() + START_SECONDS
        while (asked := self.healthcheck()).returncode != 0:
            assert self.process.poll() is None, self.log
            assert time.monotonic() < deadline, f"{asked.stderr}\n{self.log}"
            time.sleep(0.2)

    def stop(self) -> int:
        """SIGTERM and the grace period; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(GRACE_SECONDS)


@dataclass
class Pod:
    """Containers with one network and, unless told otherwise, one state folder. To be used in a ``with``."""

    folder: Path
    targets: Mapping[str, Stage] = field(default_factory=stages)
    names: tuple[str, ...] = ()  # of services, all of which are here
    own_network: bool = True
    _running: list[Container] = field(default_factory=list)
    _network: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Pod:
        self.root = self.folder / "root"
        self.hosts = self.folder / "hosts"
        self.hosts.write_text(f"127.0.0.1 localhost {' '.join(self.names)}\n")
        umask = os.umask(0o022)  # the services' user has to get through
        try:
            self._build()
        finally:
            os.umask(umask)
        if not self.own_network:
            return self
        self._network = subprocess.Popen(
            ["unshare", "-n", "sh", "-c", "ip link set lo up && echo up && exec sleep infinity"], stdout=subprocess.PIPE
        )
        assert self._network.stdout is not None
        assert self._network.stdout.readline() == b"up\n"
        return self

    def __exit__(self, *exc: object) -> None:
        for each in self._running:
            if each.process.poll() is None:
                each.process.kill()
                each.process.wait()
        if self._network is not None:
            self._network.kill()
            self._network.wait()
            if self._network.stdout is not None:
                self._network.stdout.close()

    def start(self, target: str, *arguments: str, volume: str = "state", **environ: str) -> Container:
        """``docker run -d TARGET arguments…``, with these variables and that volume."""
        stage = self.targets[target]
        log_path = self.folder / f"{target}-{len(self._running)}.log"
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                self._argv(stage, [*stage.entrypoint, *(arguments or stage.argv[len(stage.entrypoint) :])], environ, volume),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        container = Container(self, stage, environ, process, log_path, volume)
        self._running.append(container)
        return container

    def run(
        self, stage: Stage, command: list[str], environ: Mapping[str, str], volume: str = "state"
    ) -> subprocess.CompletedProcess[str]:
        """``docker run --rm --entrypoint`` of a command, until it ends."""
        return subprocess.run(self._argv(stage, command, environ, volume), capture_output=True, text=True, timeout=120)

    def get(self, url: str, token: str = "") -> str:
        """What is answered there, asked from inside the network."""
        code = (
            f"import urllib.request as r; q = r.Request({url!r}, headers={{'Authorization': 'Bearer {token}'}});"
            "print(r.urlopen(q, timeout=20).read().decode())"
        )
        asked = subprocess.run(
            [*self._in_network(), sys.executable, "-c", code], capture_output=True, text=True, timeout=60
        )
        assert asked.returncode == 0, asked.stderr
        return asked.stdout

    def _in_network(self) -> list[str]:
        if self._network is None:
            return []
        return ["nsenter", f"--net=/proc/{self._network.pid}/ns/net"]

    def volume(self, name: str, stage: Stage) -> Path:
        """The folder of a volume, which takes over the owner of the image's folder."""
        path = self.folder / "volumes" / name
        if not path.exists():
            path.mkdir(parents=True, mode=0o700)
            os.chown(path, *stage.user)
        return path

    def _argv(self, stage: Stage, command: list[str], environ: Mapping[str, str], volume: str) -> list[str]:
        binds = " ".join([*(name for name in SYSTEM if not (Path("/") / name).is_symlink()), *self._interpreter()])
        script = _ENTER.format(binds=binds, state=STATE)
        inner = ["sh", "-c", f'cd {stage.workdir} && exec "$@"', "sh", *command]
        user = ":".join(map(str, stage.user))
        variables = [f"{name}={value}" for name, value in {**stage.env, **environ}.items()]
        return [
            *self._in_network(), "unshare", "-m", "--propagation", "private",
            "sh", "-c", script, "sh", str(self.root), str(self.volume(volume, stage)), user, str(self.hosts), *variables, *inner,
        ]  # fmt: skip

    def _interpreter(self) -> list[str]:
        """Where Python itself is, if it is in none of the system folders."""
        prefix = Path(sys.base_prefix)
        return [] if prefix.parts[1] in SYSTEM else [str(prefix.relative_to("/"))]

    def _build(self) -> None:
        """What the stages of the Dockerfile do."""
        for name in SYSTEM:
            here = Path("/") / name
            self.root.mkdir(exist_ok=True)
            if here.is_symlink():
                (self.root / name).symlink_to(here.readlink())
            else:
                (self.root / name).mkdir()
        for name in ("tmp", STATE, *self._interpreter()):
            (self.root / name).mkdir(parents=True)
        for sources, target in self.targets["build"].copies():
            for source in sources:
                self._copy(ROOT / source, target)
        # Resolved: a copy of a link would be the packages themselves, and they would be taken away.
        packages = Path(sys.prefix).resolve()
        # Hard links: nothing in there is changed, only taken away.
        venv = self.root / "opt" / "venv"
        venv.parent.mkdir()
        made = subprocess.run(["cp", "-al", packages, venv], capture_output=True)
        if made.returncode != 0:
            shutil.rmtree(venv, ignore_errors=True)
            subprocess.run(["cp", "-a", packages, venv], check=True)
        site = next((venv / "lib").glob("python3.*/site-packages"))
        subprocess.run(["sh", ROOT / "deploy" / "slim.sh", site], check=True)
        subprocess.run(["chmod", "-R", "a=rX,u+w", self.root / "app"], check=True)
        self.root.chmod(0o755)

    def _copy(self, source: Path, target: str) -> None:
        to = self.root / target.lstrip("/")
        if source.is_dir():
            shutil.copytree(source, to, ignore=lambda _, names: fnmatch.filter(names, "__pycache__"))
            return
        if target.endswith("/"):
            to.mkdir(parents=True, exist_ok=True)
            to = to / source.name
        shutil.copy(source, to)


def folder_for_pod() -> tempfile.TemporaryDirectory[str]:
    """On the file system of the installed packages, if that is ours to write: links cost no space."""
    build = ROOT / "build"
    build.mkdir(exist_ok=True)
    return tempfile.TemporaryDirectory(prefix="containers-", dir=build)
