"""The user's file over the built-in tables: what it changes, and how it is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from health.rules.errors import RulesError
from health.rules.loading import MAX_FILE_BYTES, load_rules

NEW_RULE = """
[rules.fan_dead]
title = "Fan dead"
levels.warning = { when = "FAN_SPEED == 0 and GPU_TEMP > limit", samples = 3, for = "2m", clear_samples = 2, clear_for = "1h30m" }
settings = { limit = 60 }
"""


def written(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "rules.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_without_a_file_the_rules_are_as_they_come() -> None:
    rules = load_rules()
    assert rules["temp_high"].settings["warning_above"] == 85
    assert all(rule.enabled for rule in rules.values())


def test_a_file_changes_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    text = """
    [rules.temp_high]
    quiet = true
    action = "run_diag"
    advice = "Open the window."
    settings.warning_above = 80
    models.A100 = { warning_above = 83 }
    levels.critical = false
    levels.warning = { for = "10m" }
    [rules.gpu_missing]
    severity = "warning"
    settings = { after_s = "5m", samples = 5 }
    [rules.memory_full]
    enabled = false
    [rules.clock_low]
    severity = "critical"
    [rules.temp_margin.models.B200]
    offset = -5
    [xids.63]
    severity = "critical"
    action = "reset_gpu"
    [xids.9]
    severity = "info"
    title = "Ours"
    """
    built_in, rules = load_rules(), load_rules(written(tmp_path, text))
    hot = rules["temp_high"]
    assert (hot.quiet, hot.action, hot.action_text) == (True, "run_diag", "Open the window.")
    assert (hot.setting("warning_above"), hot.setting("warning_above", "NVIDIA A100")) == (80, 83)
    assert hot.settings["hysteresis"] == 2
    assert [(level.severity, level.for_ns, level.clear_samples) for level in hot.levels] == [
        ("warning", 600 * 10**9, 3)
    ]
    assert hot.severity == "warning"
    assert (rules["gpu_missing"].severity, rules["gpu_missing"].settings["after_s"]) == ("warning", 300)
    assert rules["gpu_missing"].settings["seen_within_s"] == 6 * 3600
    assert not rules["memory_full"].enabled
    assert [level.severity for level in rules["clock_low"].levels] == ["critical"]
    assert rules["temp_margin"].setting("offset", "NVIDIA B200") == -5
    assert rules["temp_margin"].setting("offset", "NVIDIA A100") == -200
    assert (rules.xid(63).severity, rules.xid(63).kind, rules.xid(63).action) == ("critical", "fatal", "reset_gpu")
    assert rules.xid(63).mnemonic == built_in.xid(63).mnemonic
    assert (rules.xid(9).severity, rules.xid(9).kind, rules.xid(9).title) == ("info", "app", "Ours")
    changed = {"temp_high", "gpu_missing", "memory_full", "clock_low", "temp_margin"}
    assert {name for name in rules if rules[name] != built_in[name]} == changed
    assert list(rules) == list(built_in)


def test_a_file_adds_rules(tmp_path: Path) -> None:
    rules = load_rules(written(tmp_path, NEW_RULE))
    fan = rules["fan_dead"]
    assert list(rules)[-1] == "fan_dead"
    assert fan.needs == (("DCGM_FI_DEV_FAN_SPEED",), ("DCGM_FI_DEV_GPU_TEMP",))
    assert (fan.finds, fan.judge, fan.entity, fan.action, fan.severity) == (
        "Fan dead",
        "condition",
        "gpu",
        "contact_support",
        "warning",
    )
    assert fan.summary({"value": 0, "limit": 60.0}) == "0, limit 60"
    (level,) = fan.levels
    assert (level.samples, level.for_ns, level.clear_samples, level.clear_ns) == (3, 120 * 10**9, 2, 5400 * 10**9)


def rule(body: str, name: str = "temp_high") -> str:
    return f"[rules.{name}]\n{body}\n"


def new(body: str) -> str:
    return rule(f'title = "x"\n{body}', "mine")


WHEN = 'levels.warning.when = "GPU_TEMP > 1"\n'


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("x = 1", "x: no such key (rules, xids can be set)"),
        ("rules = 1", "rules: is a number; a table is needed"),
        ("rule.temp_high.quiet = true", "rule: no such key; did you mean rules?"),
        ("rules.temp_high = 1979-05-27", "rules.temp_high: is a date or time; a table is needed"),
        (rule("queit = true"), "rules.temp_high.queit: no such key; did you mean quiet?"),
        (rule('quiet = "yes"'), "rules.temp_high.quiet: is 'yes'; true or false is allowed"),
        (rule('action = "pray"'), "rules.temp_high.action: is 'pray'; one of none, restart_app,"),
        (rule("action = []"), "rules.temp_high.action: is []; one of"),
        (rule("settings.warning_abov = 1"), "rules.temp_high.settings.warning_abov: no such key; did you mean warning_above?"),
        (rule("settings.warning_above = nan"), "rules.temp_high.settings.warning_above: is nan; a number"),
        (rule("settings.warning_above = inf"), "is inf; a number up to"),
        (rule("settings.warning_above = true"), "is True; a number is needed"),
        (rule('settings.warning_above = "85"'), "is '85'; a number is needed"),
        (rule(f"settings.warning_above = 1{'0' * 400}"), "a number up to 1e+15 is needed"),
        (rule("settings = 5"), "rules.temp_high.settings: is a number; a table is needed"),
        (rule('severity = "critical"'), "rules.temp_high.severity: temp_high has the levels warning, critical: change those"),
        (rule('levels.fatal.when = "GPU_TEMP > 1"'), "rules.temp_high.levels.fatal: no such key (info, warning, critical can be set)"),
        (rule("levels.warning = 5"), "rules.temp_high.levels.warning: is 5; a table, or false"),
        (rule("levels.warning = false\nlevels.critical = false"), "no level is left; to turn the rule off write enabled = false"),
        (rule('levels.info.for = "5m"'), "rules.temp_high.levels.info.when: a condition is needed"),
        (rule('levels.warning.when = "GPU_TEMP > limit"'), 'rules.temp_high.levels.warning.when: "GPU_TEMP > limit", at 12: no metric or setting limit'),
        (rule("levels.warning.when = 5"), "levels.warning.when: is a number; a condition in text is needed"),
        (rule('levels.warning.within = "1m"'), "levels.warning.within: it is a window, so it needs a `for` that fits into it"),
        (rule("levels.warning.for = 5"), 'levels.warning.for: is 5; a duration as "30s", "5m", "2h" or "7d" up to 400 days'),
        (rule('levels.warning.for = "-5m"'), "levels.warning.for: is '-5m'; a duration"),
        (rule('levels.warning.for = "500d"'), "levels.warning.for: is '500d'; a duration"),
        (rule(f'levels.warning.for = "{"9" * 1500}m"'), "levels.warning.for: is '9999"),
        (rule("levels.warning.samples = 0"), "levels.warning.samples: is 0; a whole number from 1 to 10000"),
        (rule("levels.warning.samples = 2.5"), "levels.warning.samples: is 2.5; a whole number"),
        (rule("levels.warning.samples = true"), "levels.warning.samples: is True; a whole number"),
        (rule("levels.warning.sample = 2"), "levels.warning.sample: no such key; did you mean samples?"),
        (rule('models."".limit = 1'), 'a part of a model\'s name is needed'),
        (rule("models.H100.limit = 1"), "rules.temp_high.models.H100.limit: no such key"),
        (rule("models.H100 = 1"), "rules.temp_high.models.H100: is a number; a table is needed"),
        (rule('says = "{valeu}"'), "rules.temp_high.says: no value valeu; did you mean value?"),
        (rule('says = "{value.__class__}"'), "is no value with a format"),
        (rule('says = "{value:999999999}"'), "is no value with a format"),
        (rule('says = "{value!r}"'), "is no value with a format"),
        (rule('says = "{"'), "is no template"),
        (rule('says = "a\\u0007b"'), "at most 500 characters that can be printed"),
        (rule(f'title = "{"x" * 101}"'), "rules.temp_high.title: at most 100 characters"),
        (rule("title = 5"), "rules.temp_high.title: is a number; text is needed"),
        (rule('judge = "point"'), "rules.temp_high.judge: no such key"),
        (rule('inhibited_by = ["gpu_mising"]'), "rules.temp_high.inhibited_by: no rule 'gpu_mising'; did you mean gpu_missing?"),
        (rule('inhibited_by = "gpu_missing"'), "rules.temp_high.inhibited_by: a list of names is needed"),
        (rule('inhibited_by = ["temp_high"]'), "goes in a circle: temp_high < temp_high"),
        (rule('inhibited_by = ["gpu_missing"]', "source_silent"), "rules.source_silent.inhibited_by: goes in a circle: source_silent < gpu_missing < source_silent"),
        (rule("settings.samples = 0", "gpu_missing"), "rules.gpu_missing.settings.samples: is 0; a whole number from 1"),
        (rule('settings.after_s = "-1s"', "gpu_missing"), 'rules.gpu_missing.settings.after_s: is \'-1s\'; a duration as "30s", "5m", "2h" or "7d", or seconds as a number, up to 400 days'),
        (rule("settings.after_s = -1", "gpu_missing"), "rules.gpu_missing.settings.after_s: is -1"),
        (rule("settings.after_s = nan", "gpu_missing"), "rules.gpu_missing.settings.after_s: is nan"),
        (rule("settings.share = 90", "source_silent"), "rules.source_silent.settings.share: is 90; a share from 0 to 1"),
        (rule("settings.mask = 1.5", "hw_slowdown"), "rules.hw_slowdown.settings.mask: is 1.5; a whole number"),
        (rule('settings.window_s = "1s"', "ecc_sbe_rate"), "rules.ecc_sbe_rate.levels.warning.when: "),
        (rule('levels.warning.when = "GPU_TEMP > 1"', "gpu_missing"), "gpu_missing is judged in code and has no levels"),
        (rule('severity = "info"', "host_stale"), "the events of host_stale have the severity of their case: it rises"),
        (rule('severity = "info"', "xid_fatal"), "the events of xid_fatal have the severity of their case: change it under xids"),
        (rule('severity = "bad"', "gpu_missing"), "rules.gpu_missing.severity: is 'bad'; one of info, warning, critical"),
        (rule("quiet = true", "gpu_mising"), "rules.gpu_mising: there is no rule of this name; did you mean gpu_missing?; a rule of your own needs a title and levels"),
        (rule('title = "x"', '"a\\nb"'), "rules.'a\\nb': a rule's name is lower-case letters"),
        (new(WHEN + 'judge = "xid"'), "rules.mine.judge: is 'xid'; one of condition is allowed"),
        (new(WHEN + 'entity = "host"'), "rules.mine.entity: is 'host'; one of gpu is allowed"),
        (new(WHEN + 'needs = ["GPU_TMEP"]'), "rules.mine.needs: no metric 'GPU_TMEP'; did you mean GPU_TEMP?"),
        (new(WHEN + "needs = [[1]]"), "rules.mine.needs: 1 is no metric's name"),
        (new(WHEN + 'needs = "GPU_TEMP"'), "rules.mine.needs: a list of metrics is needed"),
        (new(WHEN + "settings.held = 1"), "rules.mine.settings.held: a setting's name is lower-case"),
        (new(WHEN + "settings.Limit = 1"), "rules.mine.settings.Limit: a setting's name is lower-case"),
        (new("levels = {}"), "rules.mine.levels: at least one of info, warning, critical is needed"),
        (new("levels.warning = {}"), "rules.mine.levels.warning.when: a condition is needed"),
        ("[xids.abc]\nseverity = 'info'", "xids.abc: an XID's number is needed, as [xids.63]"),
        ("[xids.0]\nseverity = 'info'", "xids.0: an XID's number is needed"),
        ("[xids.63]\nkind = 'app'", "xids.63.kind: no such key"),
        ("[xids.63]\nseverity = 1", "xids.63.severity: is 1; one of info, warning, critical is allowed"),
        ("rules.temp_high.quiet = ", "is not TOML: Invalid value"),
        ("a = " + "[\n" * 5000, "is not TOML: too deeply nested"),
        (f"x = 1\n{'a.' * 50_000}a = 1", "line 2 is longer than the 2000 bytes that are allowed"),
        (b"\xff\xfe", "is not UTF-8 (byte 0)"),
        (b"x" * (MAX_FILE_BYTES + 1), "is larger than the 256 KiB that are allowed"),
        ("\n".join(rule(f'title = "x"\n{WHEN}', f"mine{number}") for number in range(500)), "rules; at most 500 are allowed"),
    ],
)  # fmt: skip
def test_what_is_refused_and_what_is_said(tmp_path: Path, text: str | bytes, complaint: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(RulesError) as caught:
        load_rules(path)
    said = str(caught.value)
    assert said.startswith(f"{path}: ")
    assert complaint in said
    assert said.isprintable()
    assert len(said) < len(str(path)) + 900


def test_what_is_no_file_is_refused_and_waits_for_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(RulesError, match="is no file; a TOML file is needed"):
            load_rules(path)
    with pytest.raises(RulesError, match="cannot be read: No such file or directory"):
        load_rules(tmp_path / "nothing.toml")
    with pytest.raises(RulesError, match="cannot be read"):
        load_rules(Path("a\0b"))


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    assert dict(load_rules(written(tmp_path, ""))) == dict(load_rules())


def test_a_windows_file_is_read(tmp_path: Path) -> None:
    text = b"\xef\xbb\xbf[rules.temp_high]\r\nquiet = true\r\n"
    assert load_rules(written(tmp_path, text))["temp_high"].quiet
