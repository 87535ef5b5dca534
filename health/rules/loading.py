"""Reads the rules: the tables of rules.toml and xids.toml, and over them those of a file of the user's."""

from __future__ import annotations

import difflib
import re
import string
import tomllib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from health.rules.conditions import FUNCTIONS, MAX_BITS, Condition, compile_condition, short_name
from health.rules.errors import RulesError
from health.rules.model import ACTIONS, ENTITIES, JUDGES, LATCHES, SEVERITIES, Level, Rule, Rules, Xid
from health.rules.wording import WORDINGS
from readings.catalogue import CATALOGUE, canonical_name
from readings.times import parse_duration

MAX_FILE_BYTES = 256 * 1024
# A key of very many dots would take tomllib minutes.
MAX_LINE_BYTES = 2000
MAX_RULES = 500
MAX_SAMPLES = 10_000
MAX_SECONDS = 400 * 86400.0
MAX_MAGNITUDE = 1e15
XID_KINDS = ("fatal", "warning", "app", "nvlink5", "unknown")
# Rules whose events have the severity of the case: of the XID, or of how long a host is silent, or how many lost a metric.
SEVERITY_BY_CASE = frozenset(
    {"host_stale", "metric_vanished", "xid_fatal", "xid_warning", "xid_app", "xid_nvlink5", "xid_unknown"}
)

_HERE = Path(__file__).parent
_SECOND_NS = 1_000_000_000
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}", re.ASCII)
_FORMAT = re.compile(r"(?:\.\d)?[gefd%]?", re.ASCII)
_NOT_SETTINGS = frozenset({"held", "value", *FUNCTIONS})
_CHANGEABLE = ("title", "finds", "action", "advice", "levels", "settings", "models", "says", "inhibited_by", "quiet", "enabled", "severity")  # fmt: skip
_KEYS = ("judge", "entity", "needs", "latch", "source", "inferred", *_CHANGEABLE)
_LEVEL_KEYS = ("when", "until", "samples", "for", "clear_samples", "clear_for", "within")

_Tree = dict[str, Any]


def load_rules(path: Path | None = None) -> Rules:
    """All rules and XIDs. ``path`` is a TOML file that changes them and adds to them. Raises RulesError, in one line."""
    built_in = _Tables(_parsed(_HERE / "rules.toml"), "rules.toml")
    rules = dict(built_in.children("rules"))
    xids = {xid.code: xid for xid in _xids(_parsed(_HERE / "xids.toml"))}
    if path is not None:
        given = _Tables(_parsed(path), _file_name(path))
        given.only("rules", "xids")
        for name, table in given.children("rules"):
            rules[name] = _laid_over(rules.get(name), table, name, rules)
        for code, table in given.children("xids"):
            xid = _changed_xid(code, table, xids)
            xids[xid.code] = xid
    if path is not None and len(rules) > MAX_RULES:
        raise RulesError(f"{_file_name(path)}: there are {len(rules)} rules; at most {MAX_RULES} are allowed")
    built = {name: _rule(name, table) for name, table in rules.items()}
    # The user's first: a circle is theirs.
    for name, rule in sorted(built.items(), key=lambda each: rules[each[0]].file == "rules.toml"):
        _check_inhibition(rules[name], name, rule, built)
    return Rules(built.values(), sorted(xids.values(), key=lambda xid: xid.code))


def _parsed(path: Path) -> _Tree:
    """The file's tables."""
    name = _file_name(path)
    try:
        # A pipe or a device would never end.
        is_other = path.exists() and not path.is_file()
        data = b"" if is_other else _beginning(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise RulesError(f"{name}: cannot be read: {reason}") from None
    if is_other:
        raise RulesError(f"{name}: is no file; a TOML file is needed")
    if len(data) > MAX_FILE_BYTES:
        raise RulesError(f"{name}: is larger than the {MAX_FILE_BYTES // 1024} KiB that are allowed")
    for number, line in enumerate(data.splitlines(), 1):
        if len(line) > MAX_LINE_BYTES:
            raise RulesError(f"{name}: line {number} is longer than the {MAX_LINE_BYTES} bytes that are allowed")
    try:
        return tomllib.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise RulesError(f"{name}: is not UTF-8 (byte {error.start})") from None
    except tomllib.TOMLDecodeError as error:
        raise RulesError(f"{name}: is not TOML: {_one_line(str(error))}") from None
    except (RecursionError, ValueError):
        raise RulesError(f"{name}: is not TOML: too deeply nested, or a number too long") from None


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_FILE_BYTES + 1)


def _file_name(path: Path) -> str:
    return str(path) if str(path).isprintable() else _shown(str(path))


def _one_line(text: str) -> str:
    plain = " ".join(text.split())
    return plain if plain.isprintable() else repr(plain)[1:-1]


def _shown(text: object) -> str:
    """What stood in the file, short and in one line."""
    shown = repr(text)
    return shown if len(shown) <= 80 else f"{shown[:77]}…"


def _kind(value: object) -> str:
    names = {bool: "true or false", str: "text", int: "a number", float: "a number", list: "a list", dict: "a table"}
    return names.get(type(value), "a date or time")


def _near(name: str, allowed: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(allowed), n=1)
    return f"; did you mean {near[0]}?" if near else ""


class _Tables:
    """A table of a file, which complains with its place in it."""

    def __init__(self, tree: _Tree, file: str, path: str = "") -> None:
        self.tree = tree
        self.file = file
        self.path = path

    def at(self, key: str) -> str:
        """Where a key is: ``rules.temp_high.levels``."""
        plain = key if re.fullmatch(r"[A-Za-z0-9_-]{1,64}", key, re.ASCII) else _shown(key)
        return f"{self.path}.{plain}" if self.path else plain

    def refuse(self, key: str, what: str) -> NoReturn:
        """Raises RulesError."""
        raise RulesError(f"{self.file}: {self.at(key) if key else self.path}: {what}")

    def only(self, *keys: str) -> None:
        """Complains of a key that is none of these."""
        for key in self.tree:
            if key not in keys:
                self.refuse(key, f"no such key{_near(key, keys)} ({', '.join(keys) or 'none'} can be set)")

    def table(self, key: str) -> _Tables:
        """The table under a key; an empty one if there is none."""
        value = self.tree.get(key, {})
        if not isinstance(value, dict):
            self.refuse(key, f"is {_kind(value)}; a table is needed")
        return _Tables(value, self.file, self.at(key))

    def children(self, key: str) -> list[tuple[str, _Tables]]:
        """The tables in the table under a key, by name."""
        table = self.table(key)
        return [(name, table.table(name)) for name in table.tree]

    def text(self, key: str, default: str = "", longest: int = 500) -> str:
        """Text in one line, without control characters."""
        value = self.tree.get(key, default)
        if not isinstance(value, str):
            self.refuse(key, f"is {_kind(value)}; text is needed")
        if len(value) > longest or not " ".join(value.split()).isprintable():
            self.refuse(key, f"at most {longest} characters that can be printed are allowed")
        return " ".join(value.split())

    def choice(self, key: str, allowed: tuple[str, ...], default: str) -> str:
        """One of several words."""
        value = self.tree.get(key, default)
        if not isinstance(value, str) or value not in allowed:
            self.refuse(key, f"is {_shown(value)}; one of {', '.join(allowed)} is allowed")
        return value

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self.tree.get(key, default)
        if not isinstance(value, bool):
            self.refuse(key, f"is {_shown(value)}; true or false is allowed")
        return value

    def texts(self, key: str) -> list[str]:
        """A list of texts."""
        value = self.tree.get(key, [])
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value) or len(value) > 100:
            self.refuse(key, "a list of names is needed")
        return value

    def number(self, key: str) -> float:
        """A finite number of sensible size."""
        value = self.tree[key]
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.refuse(key, f"is {_shown(value)}; a number is needed")
        if not -MAX_MAGNITUDE <= value <= MAX_MAGNITUDE:  # also of nan
            self.refuse(key, f"is {_shown(value)}; a number up to {MAX_MAGNITUDE:g} is needed")
        return float(value)

    def whole(self, key: str, default: int, lowest: int, highest: float) -> int:
        """A whole number in a range."""
        value = self.tree.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
            self.refuse(key, f"is {_shown(value)}; a whole number from {lowest} to {highest:.0f} is allowed")
        return value

    def seconds(self, key: str, *, as_number: bool) -> float:
        """A duration in seconds, written "5m"; also as a number of seconds where ``as_number``."""
        value = self.tree.get(key, "0s")
        seconds = -1.0
        if isinstance(value, str) and len(value) <= 40:
            with suppress(ValueError):
                seconds = parse_duration(value) / _SECOND_NS
        elif as_number and isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= MAX_SECONDS:
            seconds = float(value)
        if not 0 <= seconds <= MAX_SECONDS:
            also = ", or seconds as a number," if as_number else ""
            self.refuse(
                key, f'is {_shown(value)}; a duration as "30s", "5m", "2h" or "7d"{also} up to 400 days is needed'
            )
        return seconds


# A file over the built-in tables.


def _laid_over(below: _Tables | None, table: _Tables, name: str, rules: Mapping[str, _Tables]) -> _Tables:
    """The table of a rule with what a user's file says of it."""
    if below is None:
        return _new_rule(table, name, rules)
    table.only(*_CHANGEABLE)
    if "severity" in table.tree and name in SEVERITY_BY_CASE:
        what = "change it under xids" if name.startswith("xid_") else "it rises with the case"
        table.refuse("severity", f"the events of {name} have the severity of their case: {what}")
    merged = {**below.tree, **table.tree}
    settings = below.tree.get("settings", {})
    table.table("settings").only(*settings)
    merged["settings"] = {**settings, **table.table("settings").tree}
    models = {key: dict(numbers) for key, numbers in below.tree.get("models", {}).items()}
    for model, numbers in table.children("models"):
        models[model] = {**models.get(model, {}), **numbers.tree}
    merged["models"] = models
    if "levels" in below.tree or "levels" in table.tree:
        merged["levels"] = _merged_levels(below, table, name)
    if "severity" in table.tree and "levels" in below.tree:
        severity = table.choice("severity", SEVERITIES, "")
        if len(merged["levels"]) != 1:
            table.refuse("severity", f"{name} has the levels {', '.join(merged['levels'])}: change those")
        merged["levels"] = {severity: next(iter(merged["levels"].values()))}
    return _Tables(merged, table.file, table.path)


def _merged_levels(below: _Tables, table: _Tables, name: str) -> _Tree:
    if below.tree["judge"] != "condition":
        table.refuse("levels", f"{name} is judged in code and has no levels: change its settings")
    levels = {severity: dict(level) for severity, level in below.tree["levels"].items()}
    given = table.table("levels")
    given.only(*SEVERITIES)
    for severity, level in given.tree.items():
        if level is False:
            levels.pop(severity, None)
        elif isinstance(level, dict):
            levels[severity] = {**levels.get(severity, {}), **level}
        else:
            given.refuse(severity, f"is {_shown(level)}; a table, or false to leave it out, is needed")
    if not levels:
        given.refuse("", "no level is left; to turn the rule off write enabled = false")
    return levels


def _new_rule(table: _Tables, name: str, rules: Mapping[str, _Tables]) -> _Tables:
    if not _NAME.fullmatch(name):
        table.refuse("", "a rule's name is lower-case letters, digits and underscores, at most 64, as my_rule")
    for needed in ("title", "levels"):
        if needed not in table.tree:
            table.refuse(
                "", f"there is no rule of this name{_near(name, rules)}; a rule of your own needs a title and levels"
            )
    table.choice("judge", ("condition",), "condition")
    table.choice("entity", ("gpu",), "gpu")
    defaults = {
        "judge": "condition",
        "entity": "gpu",
        "finds": table.text("title"),
        "action": "contact_support",
        "says": "{value:g}, limit {limit:g}",
        "source": "HEALTH_RULES",
    }
    return _Tables({**defaults, **table.tree}, table.file, table.path)


# Rules.


def _rule(name: str, table: _Tables) -> Rule:
    """One rule from its table, checked."""
    table.only(*_KEYS)
    judge = table.choice("judge", JUDGES, "")
    settings = _settings(table.table("settings"))
    levels = tuple(_levels(table, settings)) if judge == "condition" else ()
    needs = tuple(_needs(table)) or tuple(dict.fromkeys((metric,) for level in levels for metric in level.when.metrics))
    says = table.text("says")
    _check_template(table, says, levels, settings)
    return Rule(
        name=name,
        title=table.text("title", longest=100),
        finds=table.text("finds"),
        judge=judge,  # type: ignore[arg-type]
        entity=table.choice("entity", ENTITIES, ""),
        severity=levels[-1].severity if levels else table.choice("severity", SEVERITIES, ""),
        action=table.choice("action", ACTIONS, ""),
        advice=table.text("advice"),
        needs=needs,
        levels=levels,
        settings=settings,
        models=_models(table, settings),
        says=says,
        latch=table.choice("latch", LATCHES, ""),  # type: ignore[arg-type]
        inhibited_by=tuple(table.texts("inhibited_by")),
        quiet=table.flag("quiet", False),
        enabled=table.flag("enabled", True),
        source=table.text("source"),
        inferred=table.flag("inferred", False),
    )


def _settings(table: _Tables) -> dict[str, float]:
    return {name: _setting(table, name) for name in table.tree}


def _setting(table: _Tables, name: str) -> float:
    """A number whose name says what it is: seconds, a share, a count."""
    if not _NAME.fullmatch(name) or name in _NOT_SETTINGS:
        table.refuse(name, "a setting's name is lower-case letters, digits and underscores, and no function's")
    if name.endswith("_s"):
        return table.seconds(name, as_number=True)
    if name in ("samples", "clear_samples", "count", "resets"):
        return float(table.whole(name, 1, 1, MAX_SAMPLES))
    if name == "mask":
        return float(table.whole(name, 1, 1, MAX_BITS))
    number = table.number(name)
    if (name == "share" or name.endswith("_share")) and not 0 <= number <= 1:
        table.refuse(name, f"is {_shown(table.tree[name])}; a share from 0 to 1 is needed")
    return number


def _models(table: _Tables, settings: Mapping[str, float]) -> dict[str, dict[str, float]]:
    models = {}
    for model, numbers in table.children("models"):
        if not model.strip() or len(model) > 128:
            table.table("models").refuse(model, "a part of a model's name is needed, as H100")
        numbers.only(*settings)
        models[model] = _settings(numbers)
    return models


def _levels(table: _Tables, settings: Mapping[str, float]) -> list[Level]:
    """The levels, from the mildest to the worst."""
    levels = table.table("levels")
    levels.only(*SEVERITIES)
    if not levels.tree:
        table.refuse("levels", f"at least one of {', '.join(SEVERITIES)} is needed")
    return [_level(severity, levels.table(severity), settings) for severity in SEVERITIES if severity in levels.tree]


def _level(severity: str, table: _Tables, settings: Mapping[str, float]) -> Level:
    table.only(*_LEVEL_KEYS)
    if "when" not in table.tree:
        table.refuse("when", "a condition is needed")
    for_s, within_s = (table.seconds(key, as_number=False) for key in ("for", "within"))
    if within_s and not 0 < for_s <= within_s:
        table.refuse("within", "it is a window, so it needs a `for` that fits into it")
    return Level(
        severity=severity,
        when=_condition(table, "when", settings),
        until=_condition(table, "until", settings) if "until" in table.tree else None,
        samples=table.whole("samples", 1, 1, MAX_SAMPLES),
        for_ns=round(for_s * _SECOND_NS),
        clear_samples=table.whole("clear_samples", 1, 1, MAX_SAMPLES),
        clear_ns=round(table.seconds("clear_for", as_number=False) * _SECOND_NS),
        within_ns=round(within_s * _SECOND_NS),
    )


def _condition(table: _Tables, key: str, settings: Mapping[str, float]) -> Condition:
    text = table.tree[key]
    if not isinstance(text, str):
        table.refuse(key, f"is {_kind(text)}; a condition in text is needed")
    try:
        return compile_condition(text, settings)
    except RulesError as error:
        table.refuse(key, str(error))


def _needs(table: _Tables) -> list[tuple[str, ...]]:
    needs = table.tree.get("needs", [])
    if not isinstance(needs, list) or len(needs) > 100:
        table.refuse("needs", "a list of metrics is needed")
    return [tuple(_metric(table, name) for name in (each if isinstance(each, list) else [each])) for each in needs]


_SHORT = {short_name(name): name for name in CATALOGUE}


def _metric(table: _Tables, name: object) -> str:
    if not isinstance(name, str):
        table.refuse("needs", f"{_shown(name)} is no metric's name")
    canonical = _SHORT.get(name, canonical_name(name))
    if canonical not in CATALOGUE:
        table.refuse("needs", f"no metric {_shown(name)}{_near(name, _SHORT)} (metrics: those of /api/v1/metrics)")
    return canonical


def _check_template(table: _Tables, says: str, levels: tuple[Level, ...], settings: Mapping[str, float]) -> None:
    """A summary names values of its condition, and formats them as numbers."""
    metrics = {short_name(metric) for level in levels for metric in level.when.metrics}
    allowed = {"value", "limit", *metrics, *settings}
    try:
        fields = [(field, spec, conversion) for _, field, spec, conversion in string.Formatter().parse(says)]
    except ValueError as error:
        table.refuse("says", f"{_shown(says)} is no template: {error}")
    for field, spec, conversion in fields:
        if field is None:
            continue
        if (
            not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", field, re.ASCII)
            or conversion
            or not (_FORMAT.fullmatch(spec or "") or spec in WORDINGS)
        ):
            table.refuse(
                "says", f"{_shown(field)} is no value with a format: write {{value}}, {{value:g}} or {{value:.1f}}"
            )
        if levels and field not in allowed:
            table.refuse("says", f"no value {field}{_near(field, allowed)} (there are {', '.join(sorted(allowed))})")


def _check_inhibition(table: _Tables, name: str, rule: Rule, rules: Mapping[str, Rule]) -> None:
    """The rules that explain a rule's events are there, and do not explain each other in a circle."""
    for each in rule.inhibited_by:
        other = each.partition(":")[0]
        if other not in rules:
            table.refuse("inhibited_by", f"no rule {_shown(other)}{_near(other, rules)}")
    path = [name]
    seen = set()

    def follow(current: str) -> None:
        for each in rules[current].inhibited_by:
            other = each.partition(":")[0]
            if other == name:
                table.refuse("inhibited_by", f"goes in a circle: {' < '.join([*path, name])}")
            if other in rules and other not in seen:
                seen.add(other)
                path.append(other)
                follow(other)
                path.pop()

    follow(name)


# XIDs.


def _xids(tree: _Tree) -> list[Xid]:
    """The XIDs of the built-in table, where one entry may have many codes."""
    found = []
    for number, entry in enumerate(tree["xid"]):
        table = _Tables(entry, "xids.toml", f"xid {number}")
        table.only("codes", "mnemonic", "title", "severity", "action", "kind", "repeats_warn", "disagree")
        found += [_xid(code, table) for code in entry["codes"]]
    return found


def _xid(code: int, table: _Tables) -> Xid:
    return Xid(
        code=code,
        mnemonic=table.text("mnemonic", longest=64),
        title=table.text("title", longest=200),
        severity=table.choice("severity", SEVERITIES, ""),
        action=table.choice("action", ACTIONS, ""),
        kind=table.choice("kind", XID_KINDS, ""),  # type: ignore[arg-type]
        repeats_warn=table.flag("repeats_warn", False),
        disagree=table.text("disagree"),
    )


_KIND_OF = {"critical": "fatal", "warning": "warning", "info": "app"}


def _changed_xid(code_text: str, table: _Tables, xids: Mapping[int, Xid]) -> Xid:
    """An XID with what a user's file says of it. With another severity it is judged by the rule of that severity."""
    if not re.fullmatch(r"[1-9]\d{0,4}", code_text, re.ASCII):
        table.refuse("", "an XID's number is needed, as [xids.63]")
    table.only("title", "severity", "action", "repeats_warn")
    code = int(code_text)
    known = xids.get(code) or Xid(code, "", f"XID {code}", "warning", "contact_support", "unknown")
    severity = table.choice("severity", SEVERITIES, known.severity)
    return Xid(
        code=code,
        mnemonic=known.mnemonic,
        title=table.text("title", known.title, 200),
        severity=severity,
        action=table.choice("action", ACTIONS, known.action),
        kind=known.kind if severity == known.severity else _KIND_OF[severity],  # type: ignore[arg-type]
        repeats_warn=table.flag("repeats_warn", known.repeats_warn),
        disagree=known.disagree,
    )
