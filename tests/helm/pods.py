"""Runs what the rendered pods would run: the commands and environments of their containers, as processes on this machine.

What stands in for a container, where this user may do it: a root that is read-only but for the folders in place of the volumes, and a user
without any rights (nobody, if the interpreter can be read by others). Free ports are in place of the rendered ones, this machine in place of
the services' names.
"""

from __future__ import annotations

import json
import os
import pwd
import signal
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from telemetry_site.options import BY_NAME
from tests.helm.chart import ROOT, Container, Rendering
from tests.ports import free_port

START_SECONDS = 90.0


@dataclass
class Node:
    """Where the pods run."""

    rendering: Rendering
    folder: Path
    replaced: dict[str, str] = field(default_factory=dict)  # further environment
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    ports: dict[int, int] = field(default_factory=dict)
    volumes: dict[str, Path] = field(default_factory=dict)

    def run(self, container: Container, pod_name: str) -> None:
        """Run a container that ends, as an init container does."""
        process = self._start(container, pod_name)
        assert process.wait(START_SECONDS) == 0, self.log(container)

    def execute(self, container: Container, pod_name: str, *command: str, data: Path | None = None) -> str:
        """Run a command in a container, as `kubectl exec` does; returns what it printed. ``data`` is what is mounted at /data."""
        if data is not None:
            self.volumes[f"{pod_name}-data"] = data
        done = subprocess.run(
            [*confined(self.folder), *command],
            cwd=ROOT, env=self._process_environment(container, pod_name), capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self, container: Container, pod_name: str) -> None:
        """Start a container and wait until its probes say that it is ready."""
        self.processes[str(container)] = self._start(container, pod_name)
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            self._wait_for(container, container.spec[probe]["httpGet"])

    def stop(self, container: Container) -> None:
        """As the kubelet does: SIGTERM, then as long as its pod has. It must end by itself, with 0."""
        process = self.processes.pop(str(container))
        process.send_signal(signal.SIGTERM)
        status = process.wait(container.pod["terminationGracePeriodSeconds"])
        assert status == 0, self.log(container)

    def stop_all(self) -> None:
        """End whatever still runs."""
        for process in self.processes.values():
            process.kill()
            process.wait()

    def get(self, port: int, path: str, token: str = "") -> str:
        """Ask one of the rendered ports."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port(port)}{path}")
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        with urllib.request.urlopen(request, timeout=10) as answer:
            return str(answer.read().decode())

    def get_json(self, port: int, path: str, token: str = "") -> Any:
        """The same, as JSON."""
        return json.loads(self.get(port, path, token))

    def port(self, rendered: int) -> int:
        """The port here that stands for a rendered one."""
        if rendered not in self.ports:
            self.ports[rendered] = free_port()
        return self.ports[rendered]

    def log(self, container: Container) -> str:
        """What it wrote."""
        return self._log_path(container).read_text()[-4000:]

    def _log_path(self, container: Container) -> Path:
        return self.folder / f"{str(container).replace('/', '-')}.log"

    def _start(self, container: Container, pod_name: str) -> subprocess.Popen[bytes]:
        command = [*container.spec["command"], *container.spec.get("args", ())]
        with self._log_path(container).open("ab") as log:
            return subprocess.Popen(
                [*confined(self.folder), *command],
                cwd=ROOT,
                env=self._process_environment(container, pod_name),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _volume(self, name: str) -> Path:
        here = self.volumes.setdefault(name, self.folder / name)
        if not here.exists():
            here.mkdir()
            if user():
                os.chown(here, *user())
        return here

    def _process_environment(self, container: Container, pod_name: str) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
        return {**self._environment(container, pod_name), "PATH": path, "TMPDIR": str(self._volume("tmp"))}

    def _environment(self, container: Container, pod_name: str) -> dict[str, str]:
        environ = self.rendering.environment(container, pod_name)
        for mount in container.spec["volumeMounts"]:
            path = mount["mountPath"]
            if path == "/tmp":
                continue
            here = self._volume(f"{pod_name}-{mount['name']}")
            environ = {
                name: str(here) + value.removeprefix(path) if value == path or value.startswith(path + "/") else value
                for name, value in environ.items()
            }
        for name, value in environ.items():
            if name in {"TCP_ADDR", "HTTP_ADDR", "METRICS_ADDR"}:
                address = BY_NAME[name].read({name: value})
                environ[name] = f"{address.host}:{self.port(self._own(container, address.port))}"
            elif name in {"PORT", "MQ_PORT"}:
                environ[name] = str(self.port(int(value)))
            elif name == "MQ_HOST":
                environ[name] = "127.0.0.1"
        return environ | self.replaced

    @staticmethod
    def _own(container: Container, port: int) -> int:
        # Two services have the same port in pods of their own; here they share one machine.
        return port + 10_000 if port == 9102 and container.spec["name"] == "streamer" else port

    def _wait_for(self, container: Container, asked: dict[str, Any]) -> None:
        ports = {port["name"]: port["containerPort"] for port in container.spec["ports"]}
        process = self.processes[str(container)]
        deadline = time.monotonic() + START_SECONDS
        while not self._answers(self._own(container, ports[asked["port"]]), asked["path"]):
            assert process.poll() is None, self.log(container)
            assert time.monotonic() < deadline, f"{container}: {asked}\n{self.log(container)}"
            time.sleep(0.1)

    def _answers(self, port: int, path: str) -> bool:
        try:
            self.get(port, path)
        except OSError:  # also what is no 2xx
            return False
        return True


@lru_cache
def user() -> tuple[int, ...]:
    """User and group that processes can be given: nobody's, or nothing where that user cannot read the code and the interpreter."""
    nobody = pwd.getpwnam("nobody")
    try:
        subprocess.run(
            [sys.executable, "-c", "import django"],
            cwd=ROOT, user=nobody.pw_uid, group=nobody.pw_gid, extra_groups=[], capture_output=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return ()
    return nobody.pw_uid, nobody.pw_gid


@lru_cache
def confined(folder: Path) -> tuple[str, ...]:
    """What stands before a command so that it can write to this folder only, and has no rights; nothing where that cannot be done."""
    script = 'mount --bind "$0" "$0" && mount -o remount,bind,ro / && exec "$@"'
    rights = ["setpriv", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
    if user():
        rights += [f"--reuid={user()[0]}", f"--regid={user()[1]}", "--clear-groups"]
    prefix = ("unshare", "--mount", "sh", "-c", script, str(folder), *rights)
    try:
        # It must be able to write there, and nowhere else.
        subprocess.run([*prefix, "sh", "-c", f"! touch {ROOT}/x 2> /dev/null"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ()
    return prefix
