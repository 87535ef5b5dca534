"""Reads deploy/Dockerfile: its stages, and what a container of a target would start with."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
SERVICES = {
    "mq-server": "runbroker", "streamer": "stream", "collector": "collect", "watch": "watch", "api": "serve",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction, its continued lines joined."""

    name: str
    rest: str

    def words(self) -> list[str]:
        """The arguments: of the JSON form, or split as a shell does."""
        return [str(word) for word in json.loads(self.rest)] if self.rest.startswith("[") else shlex.split(self.rest)


@dataclass
class Stage:
    """A stage, with what it takes over from the one it is built from."""

    name: str
    base: str
    instructions: list[Instruction] = field(default_factory=list)

    def last(self, name: str) -> Instruction | None:
        """The last instruction of that name, which is the one that holds."""
        return next((each for each in reversed(self.instructions) if each.name == name), None)

    @property
    def env(self) -> dict[str, str]:
        pairs = [word for each in self.instructions if each.name == "ENV" for word in each.words()]
        return dict(pair.split("=", 1) for pair in pairs)

    @property
    def argv(self) -> list[str]:
        """ENTRYPOINT and CMD."""
        return [*self.entrypoint, *self._words("CMD")]

    @property
    def entrypoint(self) -> list[str]:
        return self._words("ENTRYPOINT")

    @property
    def healthcheck(self) -> list[str]:
        check = self.last("HEALTHCHECK")
        return [] if check is None else [str(word) for word in json.loads(check.rest.partition(" CMD ")[2])]

    @property
    def ports(self) -> list[int]:
        return [int(word) for each in self.instructions if each.name == "EXPOSE" for word in each.words()]

    @property
    def user(self) -> tuple[int, int]:
        uid, gid = self._words("USER")[0].split(":")
        return int(uid), int(gid)

    @property
    def workdir(self) -> str:
        return self._words("WORKDIR")[0]

    def copies(self) -> list[tuple[list[str], str]]:
        """Of each COPY from the build context: the sources and the destination."""
        found = []
        for each in self.instructions:
            if each.name == "COPY" and not each.rest.startswith("--from="):
                *sources, target = each.words()
                found.append((sources, target))
        return found

    def _words(self, name: str) -> list[str]:
        found = self.last(name)
        return [] if found is None else found.words()


def stages(text: str | None = None) -> dict[str, Stage]:
    """The stages by name."""
    found: dict[str, Stage] = {}
    for each in instructions(DOCKERFILE.read_text() if text is None else text):
        if each.name == "FROM":
            base, _, name = each.rest.partition(" AS ")
            inherited = found[base].instructions if base in found else []
            found[name] = Stage(name, base, list(inherited))
        elif found:
            next(reversed(found.values())).instructions.append(each)
    return found


def instructions(text: str) -> list[Instruction]:
    """All instructions in order."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [Instruction(*line.split(None, 1)) for line in joined.splitlines()]
