"""What a rule is, and what an XID means: the tables of rules.toml and xids.toml as objects. They never change."""

from __future__ import annotations

import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec

from health.rules.conditions import Condition
from health.rules.wording import WORDINGS
from readings.catalogue import canonical_name, whole_of

Judge = Literal["condition", "xid", "absence", "identity", "fleet", "history", "point"]
JUDGES: tuple[Judge, ...] = ("condition", "xid", "absence", "identity", "fleet", "history", "point")
# What ends an event that does not end by itself: a reset of its GPU or a person, or a person alone.
Latch = Literal["", "reset", "person"]
LATCHES: tuple[Latch, ...] = ("", "reset", "person")
ENTITIES = ("gpu", "slot", "host", "source", "fleet")
# From the least to the worst.
SEVERITIES = ("info", "warning", "critical")
# What to do, from nothing to the most, with the words for people.
ACTION_WORDS: Mapping[str, str] = {
    "none": "Nothing to do on the GPU itself.",
    "restart_app": "Look at the application, and start it again.",
    "run_diag": "Run DCGM's diagnostics (dcgmi diag -r 3) when the GPU is free.",
    "reset_gpu": "Drain the GPU and reset it.",
    "reboot_node": "Drain the host and reboot it.",
    "contact_support": "Have the host looked at: write down the figures and contact its support.",
    "replace": "Have the GPU replaced.",
}
ACTIONS = tuple(ACTION_WORDS)
# What the list of metrics of dcgm-exporter 4 calls by an older name.
_LISTED_AS: Mapping[str, str] = {
    "DCGM_FI_DEV_GPU_RECOVERY_ACTION": "DCGM_FI_DEV_GET_GPU_RECOVERY_ACTION",
    "DCGM_FI_DEV_GPU_TEMP_MARGIN_CELSIUS": "DCGM_FI_DEV_GPU_TEMP_LIMIT",
    "DCGM_FI_DEV_ECC_MODE": "DCGM_FI_DEV_ECC_CURRENT",
    "DCGM_FI_DEV_INFOROM_VALID": "DCGM_FI_DEV_INFOROM_CONFIG_VALID",
}
XidKind = Literal["fatal", "warning", "app", "nvlink5", "unknown"]


class Level(msgspec.Struct, frozen=True):
    """One step of severity of a rule with conditions.

    It opens when ``when`` held for ``samples`` samples and ``for_ns`` nanoseconds, on end or, with ``within_ns``, in all within that
    time; and closes when ``until`` (without one: not ``when``) did so for ``clear_samples`` and ``clear_ns`` on end.
    """

    severity: str
    when: Condition
    until: Condition | None = None
    samples: int = 1
    for_ns: int = 0
    clear_samples: int = 1
    clear_ns: int = 0
    within_ns: int = 0


class Rule(msgspec.Struct, frozen=True):
    """One rule. rules.toml explains the fields; its keys have the same names.

    ``needs`` are canonical names of metrics: one of each inner tuple has to be there. ``models`` are settings by a part of the
    model's name; ``severity`` is the highest of its levels. ``latch``: what alone ends the event, beside a person.
    """

    name: str
    title: str
    finds: str
    judge: Judge
    entity: str
    severity: str
    action: str
    advice: str = ""
    needs: tuple[tuple[str, ...], ...] = ()
    levels: tuple[Level, ...] = ()
    settings: Mapping[str, float] = {}
    models: Mapping[str, Mapping[str, float]] = {}
    says: str = ""
    latch: Latch = ""
    inhibited_by: tuple[str, ...] = ()
    quiet: bool = False
    enabled: bool = True
    source: str = ""
    inferred: bool = False

    @property
    def action_text(self) -> str:
        """What to do, in words."""
        return self.advice or ACTION_WORDS[self.action]

    def stores_only(self, severity: str) -> bool:
        """Whether an event of this severity is shown, and nobody is notified."""
        return self.quiet or severity == "info"

    def setting(self, name: str, model: str = "") -> float:
        """A number of the rule for a GPU of this model: that of the longest matching part of its name. KeyError if it has none."""
        best = ""
        for part, numbers in self.models.items():
            if name in numbers and len(part) > len(best) and part.casefold() in model.casefold():
                best = part
        return self.models[best][name] if best else self.settings[name]

    def summary(self, values: Mapping[str, float | str]) -> str:
        """``says`` with the values of a transition. A value that is not there is shown as ``?``."""
        return _FORMATTER.vformat(self.says, (), values)

    def missing(self, metric_names: Iterable[str]) -> tuple[str, ...]:
        """The metrics to add so that it has its data, as dcgm-exporter 4 names them. ``metric_names`` are those that there are, parts
        included.
        """
        there = {whole_of(canonical_name(name)) for name in metric_names}
        return tuple(_LISTED_AS.get(names[0], names[0]) for names in self.needs if there.isdisjoint(names))


class Xid(msgspec.Struct, frozen=True):
    """What an XID means for us. ``repeats_warn``: once it is a warning when one GPU has it twice within a day. ``disagree``: where the sources differ."""

    code: int
    mnemonic: str
    title: str
    severity: str
    action: str
    kind: XidKind
    repeats_warn: bool = False
    disagree: str = ""


class Rules(Mapping[str, Rule]):
    """All rules by name, in the order of their table. ``xids`` has the codes that are known."""

    def __init__(self, rules: Iterable[Rule], xids: Iterable[Xid] = ()) -> None:
        self._rules = {rule.name: rule for rule in rules}
        self.xids: Mapping[int, Xid] = {xid.code: xid for xid in xids}

    def __getitem__(self, name: str) -> Rule:
        return self._rules[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rules)

    def __len__(self) -> int:
        return len(self._rules)

    def xid(self, code: int) -> Xid:
        """What a code means; a code that is not in the table is of kind ``unknown``."""
        known = self.xids.get(code)
        if known is not None:
            return known
        return Xid(code, "", "A code that NVIDIA does not describe", "warning", "contact_support", "unknown")


class _Formatter(string.Formatter):
    """Formats what it can: a missing value becomes ``?``, and one that does not suit its format is left unformatted."""

    def get_value(self, key: int | str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        return kwargs.get(str(key), "?")

    def format_field(self, value: Any, format_spec: str) -> str:
        wording = WORDINGS.get(format_spec)
        if wording is not None and isinstance(value, float | int):
            return wording(value)
        try:
            return format(value, format_spec)
        except (ValueError, TypeError):
            return str(value)


_FORMATTER = _Formatter()
