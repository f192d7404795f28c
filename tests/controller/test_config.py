"""controller.toml: what is accepted, what is refused and how, and what a change leaves alone."""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller import config
from controller.batteries.registry import BATTERIES
from controller.config import Catalogue, ConfigError, Key, Problem
from controller.config_keys import keys
from controller.config_places import idle
from controller.inverters.registry import INVERTERS
from controller.model.battery import Feed
from controller.model.settings import (
    CHEMISTRIES,
    Chemistry,
    ContactorSettings,
    Option,
    PackSettings,
    PrechargeSettings,
    Settings,
)


@dataclass(frozen=True)
class Pack:
    title: str
    wirings: tuple[str, ...]
    chemistries: tuple[str, ...]
    options: tuple[Option, ...] = ()
    lacks: frozenset[Feed] = frozenset()
    line: object = None


@dataclass(frozen=True)
class Black:
    """An inverter that does not precharge itself and lets others take longer."""

    title: str = "Black Box"
    options: tuple[Option, ...] = ()
    precharges: bool = False
    precharge_max_ms: int = 8000
    line: object = None
    bitrate: int | None = None
    ignores_zero: frozenset[str] = frozenset()
    windows_v: Mapping[str, tuple[float, float]] = field(default_factory=dict)


CATALOGUE = Catalogue(
    {
        "tesla_model3": Pack("Tesla Model 3/Y", ("pack", "pack+inverter"), ("nca", "ncm", "lfp")),
        "leaf": Pack(
            "Nissan Leaf",
            ("own",),
            ("lmo",),
            (Option("generation", "auto", "Its generation.", choices=("auto", "ze0", "ze1")),),
        ),
    },
    {**INVERTERS, "black": Black()},
)

RIGHT = """\
schema = 1

[battery]
name = "tesla_model3"
chemistry = "nca"
cells = 96

[inverter]
name = "byd_modbus"

[wiring]
kind = "pack"

[limits]
max_charge_a = 30
max_discharge_a = 35.5  # the fuse is 40 A
max_power_w = 8000
"""


RELAYS = """
[pins]
heartbeat = 12
[relays]
kind = "gpio"
negative = 17
precharge = 27
positive = 22
positive_feedback = 5
"""
METER = """
[link]
source = "modbus"
port = "/dev/ttyUSB7"
voltage_register = 0
volts_per_count = 0.1
update_ms = 50
"""
LEAF = RIGHT.replace("tesla_model3", "leaf").replace("nca", "lmo").replace('"pack"', '"own"') + RELAYS + METER
INVERTER_RELAY = """
[pins]
heartbeat = 12
[relays]
kind = "gpio"
positive = 22
"""


def problems(text: str) -> list[Problem]:
    return config.check(text, "controller.toml", CATALOGUE)


def unverified(text: str) -> str:
    """A new config of the wiring `own` with the one thing stated that nobody can guess: why no meter is there."""
    text = re.sub("(?m)^#(capacitance_f = ).*", r"\g<1>0.001", text)
    return re.sub("(?m)^#(unverified_reason = ).*", r'\1"no meter"', text)


def parsed(text: str) -> Settings:
    return config.parse(text, "controller.toml", CATALOGUE).settings


def only(text: str) -> Problem:
    found = problems(text)
    assert len(found) == 1, found
    return found[0]


def line_of(text: str, row: str) -> int:
    return text.split("\n").index(row) + 1


def with_row(row: str, section: str, text: str = RIGHT) -> str:
    """The right config with one more line in a section."""
    if f"[{section}]\n" in text:
        return text.replace(f"[{section}]\n", f"[{section}]\n{row}\n")
    return f"{text}\n[{section}]\n{row}\n"


# --- what is accepted ---


def test_a_short_config_gives_the_defaults_of_the_safety_concept_for_everything_else() -> None:
    got = parsed(RIGHT)
    assert (got.battery, got.inverter, got.wiring, got.max_power_w) == ("tesla_model3", "byd_modbus", "pack", 8000.0)
    assert got.pack == PackSettings(CHEMISTRIES["nca"], 96, 30.0, 35.5)
    assert (got.precharge, got.contactors) == (PrechargeSettings(), ContactorSettings())
    assert isinstance(got.pack.max_charge_a, float)


def test_options_reach_the_inverter_and_the_battery() -> None:
    assert parsed(with_row("primo = true", "inverter")).inverter_options == {
        "capacity_cap_wh": 32_000, "serial": "packwarden", "primo": True, "wait_for_go": True,
    }  # fmt: skip
    leaf = with_row("resistance_ohm = 100.0", "precharge", with_row('generation = "ze1"', "battery", LEAF))
    assert parsed(leaf).battery_options == {"generation": "ze1"}
    INVERTERS["byd_modbus"].start(parsed(RIGHT).inverter_options)


def test_a_cell_limit_may_be_moved_to_the_safe_side() -> None:
    chemistry = parsed(with_row("charge_stop_v = 4.10", "limits")).pack.chemistry
    assert (chemistry.name, chemistry.charge_stop_v, chemistry.critical_high_v) == ("nca", 4.10, 4.25)


def test_a_derating_curve_may_be_lowered() -> None:
    got = parsed(with_row("charge_over_coldest = [[5, 0], [15.0, 0.8]]", "limits"))
    assert got.pack.charge_over_coldest == ((5.0, 0.0), (15.0, 0.8))


def test_every_number_of_the_settings_can_be_reached_from_the_file() -> None:
    reachable = {key.name for key in keys(CATALOGUE)}
    for owner in (PackSettings, PrechargeSettings, ContactorSettings, Chemistry):
        missing = {field.name for field in fields(owner)} - reachable
        assert missing <= {"chemistry", "name"}, owner
    assert {field.name for field in fields(Settings)} >= {"max_power_w", "off_grid"} <= reachable


@pytest.mark.parametrize("section", ["limits", "precharge", "contactors"])
def test_every_default_lies_within_its_own_hard_bound(section: str) -> None:
    for key in keys(CATALOGUE):
        if key.section == section and key.default is not None and key.low is not None and key.high is not None:
            assert key.low <= key.default <= key.high, key


def test_every_number_that_is_judged_has_a_hard_bound() -> None:
    free = [key.path for key in keys(CATALOGUE) if key.kind in (float, int) and (key.low is None or key.high is None)]
    assert free == []


# --- what is refused ---


def test_everything_wrong_is_reported_at_once_in_the_order_of_the_lines() -> None:
    text = """\
schema = 1
[battery]
name = "tezla_model3"
cells = "96"
[inverter]
name = "byd_modbus"
capacity_cap_wh = 70000
capacity_cap = 3
[wiring]
kind = "own"
[limits]
max_charge_a = thirty
max_discharge_a = 20
soc_max_pct = true
[precharge]
unverified_reason = "no sensor"
"""
    assert [(p.line, p.key) for p in problems(text)] == [
        (2, "battery.chemistry"),
        (3, "battery.name"),
        (4, "battery.cells"),
        (7, "inverter.capacity_cap_wh"),
        (8, "inverter.capacity_cap"),
        (11, "limits.max_power_w"),
        (12, "limits.max_charge_a"),
        (14, "limits.soc_max_pct"),
        (15, "precharge.resistance_ohm"),
        (16, "precharge.unverified_reason"),
    ]


def test_the_error_is_one_line_for_each_problem_with_file_line_key_wrong_and_right() -> None:
    text = with_row("soc_max_pct = 101", "limits").replace("cells = 96", "cells = 0.5")
    with pytest.raises(ConfigError) as caught:
        config.parse(text, "/etc/x.toml", CATALOGUE)
    assert str(caught.value).splitlines() == [
        "/etc/x.toml:6: battery.cells: 0.5 is not a whole number; write for example `cells = 96`",
        "/etc/x.toml:15: limits.soc_max_pct: 101 is outside the hard bound 50…100 %; "
        "stay inside it; limits may be moved to the safe side only",
    ]


@pytest.mark.parametrize("name", ["max_charge_a", "max_discharge_a", "max_power_w"])
def test_a_config_without_a_limit_is_refused(name: str) -> None:
    text = "\n".join(row for row in RIGHT.split("\n") if not row.startswith(name))
    problem = only(text)
    assert (problem.key, problem.line) == (f"limits.{name}", line_of(text, "[limits]"))
    assert problem.message == "is missing; the controller does not start without it"
    assert problem.fix.startswith(f"add {name} = ")


def test_an_empty_config_names_everything_that_has_to_be_stated() -> None:
    assert [problem.key for problem in problems("")] == [
        "battery.cells", "battery.chemistry", "battery.name", "inverter.name", "limits.max_charge_a",
        "limits.max_discharge_a", "limits.max_power_w", "schema", "wiring.kind",
    ]  # fmt: skip


BEYOND = [
    ("limits", "temp_max_c = 56", "20…55 °C"),
    ("limits", "temp_min_c = -21", "-20…10 °C"),
    ("limits", "lv_min_open_v = 11.6", "11.7…14 V"),
    ("limits", "isolation_min_kohm = 99", "100…5000 kΩ"),
    ("limits", "charge_stop_v = 4.16", "4.15 V and below for nca"),
    ("limits", "critical_high_v = 4.3", "4.25 V and below for nca"),
    ("limits", "discharge_stop_v = 3.0", "3.1 V and above for nca"),
    ("limits", "critical_low_v = 2.8", "2.9 V and above for nca"),
    ("limits", "spread_warn_v = 0.31", "0.01…0.3 V"),
    ("precharge", "charged_fraction = 0.94", "0.95…0.999"),
    ("precharge", "charged_gap_v = 21", "1…20 V"),
    ("precharge", "charged_samples = 4", "5…100"),
    ("precharge", "limit_ms = 2001", "2000 ms"),
    ("precharge", "tries = 4", "1…3"),
    ("precharge", "cool_down_ms = 29999", "30000…3600000 ms"),
    ("contactors", "break_current_a = 5.1", "0.5…5 A"),
    ("contactors", "offset_max_a = 6.1", "0.5…6 A"),
    ("contactors", "minimum_off_ms = 9999", "10000…3600000 ms"),
    ("contactors", "closings_per_hour = 7", "1…6"),
    ("contactors", "closings_per_day = 21", "1…20"),
    ("contactors", "open_link_v = 61", "10…60 V"),
    ("contactors", "overlap_ms = 499", "500…2000 ms"),
]


@pytest.mark.parametrize(("section", "row", "bound"), BEYOND)
def test_a_limit_beyond_its_hard_bound_is_refused_with_the_bound(section: str, row: str, bound: str) -> None:
    text = with_row(row, section)
    problem = only(text)
    assert (problem.line, problem.key) == (line_of(text, row), f"{section}.{row.partition(' ')[0]}")
    assert bound in problem.message
    assert "limits may be moved to the safe side only" in problem.fix


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ('soc_max_pct = "95"', '"95" is not a number'),
        ("soc_max_pct = true", "true is not a number"),
        ("soc_max_pct = nan", "nan is not a number"),
        ("soc_max_pct = [95]", "[95] is not a number"),
        ("soc_max_pct = {}", "a section is not a number"),
        ("soc_max_pct = 1979-05-27", "1979-05-27 is not a number"),
        ("charge_over_coldest = 3", "3 is not a list of points"),
        ("charge_over_coldest = [[1, 2, 3]]", "[[1, 2, 3]] is not a list of points"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(row: str, says: str) -> None:
    assert only(with_row(row, "limits")).message == says


@pytest.mark.parametrize("row", ["soc_max_pct = inf", f"soc_max_pct = 1{400 * '0'}"])
def test_a_number_out_of_this_world_is_refused(row: str) -> None:
    assert only(with_row(row, "limits")).key == "limits.soc_max_pct"


def test_a_number_is_no_switch() -> None:
    assert only(with_row("auto_enable = 1", "contactors")).message == "1 is not true or false"


@pytest.mark.parametrize(
    ("row", "section", "fix"),
    [
        ("max_charg_a = 3", "limits", "did you mean limits.max_charge_a?"),
        ("tries = 2", "contactors", "did you mean precharge.tries?"),
        ("zzz = 2", "site", "remove it; `controller config schema` lists all there are"),
        ("x = 1", "limts", "did you mean limits?"),
        ('generation = "ze1"', "battery", "remove it; `controller config schema` lists all there are"),
    ],
)
def test_an_unknown_key_is_refused_with_the_one_that_was_probably_meant(row: str, section: str, fix: str) -> None:
    assert only(with_row(row, section)).fix == fix


def test_an_unknown_name_is_refused_with_what_there_is() -> None:
    problem = only(RIGHT.replace("byd_modbus", "byd_modbu"))
    assert problem.message == f'"byd_modbu" is none of {", ".join(CATALOGUE.inverters)}'
    assert problem.fix == "did you mean byd_modbus?"


@pytest.mark.parametrize("row", ["limits = 3", "limits = [1]"])
def test_a_section_must_be_a_section(row: str) -> None:
    text = RIGHT.replace("schema = 1", f"schema = 1\n{row}").partition("[limits]")[0]
    assert (only(text).line, only(text).fix) == (2, "write it as `[limits]`")


def test_what_does_not_go_together_is_refused() -> None:
    assert only(RIGHT.replace('"pack"', '"own"') + METER + "[precharge]\nresistance_ohm = 50").message == (
        "Tesla Model 3/Y cannot be wired as `own`"
    )
    assert only(RIGHT.replace("nca", "lto")).message == "Tesla Model 3/Y has no cells of `lto`"
    black = RIGHT.replace("byd_modbus", "black").replace('"pack"', '"pack+inverter"')
    assert only(black + INVERTER_RELAY).message == "Black Box does not precharge itself behind a relay"
    assert problems(black.replace("black", "byd_modbus") + INVERTER_RELAY) == []


@pytest.mark.parametrize(("row", "other"), [
    ("confirm_ms = 500", "settle_blind_ms (500)"), ("overlap_ms = 1000", "overlap_ms (1000)"),
    ("settle_blind_ms = 1500", "settle_blind_ms (1500)"), ("settle_feedback_ms = 1000", "settle_feedback_ms (1000)"),
])  # fmt: skip
def test_a_contactor_is_not_given_up_before_the_next_may_close(row: str, other: str) -> None:
    found = [problem.message for problem in problems(RIGHT + f"[contactors]\n{row}\n")]
    assert any(f"is not above contactors.{other}: it would give up before it goes on" in message for message in found)
    assert problems(RIGHT + "[contactors]\nconfirm_ms = 501\n") == []


def test_an_inverter_that_ignores_a_limit_of_0_needs_a_relay_between_it_and_the_battery() -> None:
    text = RIGHT.replace("byd_modbus", "byd_can").replace('"byd_can"', '"byd_can"\nprofile = "deye"')
    assert "wiring.kind" not in [problem.key for problem in problems(text)]
    found = {p.key: p.message for p in config.check(MEASURED.replace('"byd_modbus"', '"byd_can"\nprofile = "deye"'),
                                                    "x", WITH_SHUNT)}  # fmt: skip
    assert found["wiring.kind"] == (
        "an inverter of the profile `deye` ignores a limit of 0, and nothing could disconnect it"
    )


def test_an_unverified_precharge_needs_resistor_and_capacitors() -> None:
    reason = 'unverified_reason = "the link has no sensor"'
    assert only(with_row(reason, "precharge")).key == "precharge.unverified_reason"
    assert only(with_row(f"resistance_ohm = 50\n{reason}", "precharge")).key == "precharge.unverified_reason"
    assert problems(with_row(f"resistance_ohm = 50\ncapacitance_f = 0.001\n{reason}", "precharge")) == []


def test_relays_of_our_own_need_a_precharge_resistor() -> None:
    assert only(LEAF).key == "precharge.resistance_ohm"
    assert problems(with_row("resistance_ohm = 50", "precharge", LEAF)) == []


def test_a_precharge_may_only_take_as_long_as_the_inverter_allows() -> None:
    slow = with_row("resistance_ohm = 500\ncapacitance_f = 0.001", "precharge")
    assert only(slow).message == "5·R·C is 2500 ms, beyond the hard bound 2000 ms of a precharge"
    assert problems(slow.replace("byd_modbus", "black")) == []
    assert problems(with_row("limit_ms = 8000", "precharge").replace("byd_modbus", "black")) == []


@pytest.mark.parametrize(
    ("row", "key"),
    [
        ("soc_min_pct = 50\nsoc_max_pct = 50", "limits.soc_max_pct"),
        ("lv_min_closed_v = 12", "limits.lv_min_open_v"),
        ("charge_stop_v = 4.0", "limits.charge_stop_v"),
        ("critical_low_v = 3.2", "limits.discharge_stop_v"),
    ],
)
def test_limits_must_keep_their_order(row: str, key: str) -> None:
    assert only(with_row(row, "limits")).key == key


@pytest.mark.parametrize(
    ("curve", "says"),
    [
        ("[[0, 0], [2, 0.3], [5, 0.5], [10, 1]]", "allows 30% at 2 °C, beyond the hard bound 25%"),
        ("[[-5, 0], [10, 1.0]]", "allows 33% at 0 °C, beyond the hard bound 0%"),
        ("[[10, 1.0]]", "allows 100% at 0 °C, beyond the hard bound 0%"),
        ("[[10, 1.0], [0, 0.0]]", "is no curve"),
        ("[[0, 0.0], [10, 1.1]]", "is no curve"),
        ("[]", "is no curve"),
    ],
)
def test_a_derating_curve_may_nowhere_allow_more_than_the_default(curve: str, says: str) -> None:
    assert only(with_row(f"charge_over_coldest = {curve}", "limits")).message == says


# --- versions ---


def test_a_newer_file_is_refused_in_one_sentence_whatever_else_it_holds() -> None:
    with pytest.raises(ConfigError) as caught:
        config.parse("schema = 2\nanything = 1\n[limits]\n", "x.toml", CATALOGUE)
    assert str(caught.value) == "x.toml:1: schema: this file has version 2, this program reads 1; update the program"


@pytest.mark.parametrize("version", ["0", "true", "1.0", '"1"', "-1"])
def test_no_other_version_passes_for_this_one(version: str) -> None:
    problem = only(RIGHT.replace("schema = 1", f"schema = {version}"))
    assert (problem.line, problem.key, problem.message) == (1, "schema", f"is {version}")


def test_a_file_without_a_version_is_refused() -> None:
    assert only(RIGHT.replace("schema = 1", "")).message == "is missing"


# --- text that is no TOML ---


def test_several_unreadable_lines_are_all_named_together_with_the_other_errors() -> None:
    text = RIGHT.replace("cells = 96", "cells = 9 6").replace("= 30\n", "= \n").replace("= 8000", '= "8000"')
    assert [(p.line, p.key) for p in problems(text)] == [
        (6, "battery.cells"),
        (15, "limits.max_charge_a"),
        (17, "limits.max_power_w"),
    ]


def test_a_key_stated_twice_is_refused_at_its_second_line() -> None:
    text = RIGHT + "max_charge_a = 40\n"
    assert (only(text).line, only(text).message) == (18, 'not readable: Key "max_charge_a" already exists.')


@pytest.mark.parametrize(
    "text",
    [
        "[limits\nmax_charge_a = 3\n",
        'a = """never closed\n',
        "a = [1,\n2,\n",
        "[limits]\n[limits]\n",
        "[[limits]]\n[limits]\n",
        "[a]\nb = 1\n[a.b]\nc = 1\n",
        "\x00\x01\x02",
        "a = " + "[" * 5000,
        "= 1\n" * 50,
    ],
)
def test_broken_text_gives_clear_errors_and_no_traceback(text: str) -> None:
    found = problems(text)
    assert 1 <= len(found) <= 20
    assert all(problem.message and problem.fix for problem in found)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.sampled_from("[]{}=\"'#\\,. \n\r\tab1_-+:eE\x00é"), max_size=60))
def test_whatever_the_text_there_are_problems_and_no_traceback(text: str) -> None:
    assert problems(text)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(RIGHT) - 1), st.characters(codec="utf-8"))
def test_one_wrong_character_never_ends_in_a_traceback(at: int, char: str) -> None:
    for problem in problems(RIGHT[:at] + char + RIGHT[at + 1 :]):
        assert problem.line is None or 1 <= problem.line <= RIGHT.count("\n") + 2


@settings(max_examples=100, deadline=None)
@given(st.integers(0, len(RIGHT)))
def test_a_truncated_config_never_passes_for_a_whole_one(at: int) -> None:
    if "max_power_w = 8" not in RIGHT[:at]:
        assert problems(RIGHT[:at])


def test_line_numbers_are_right_behind_strings_and_lists_over_several_lines() -> None:
    text = with_row(
        'charge_over_coldest = [\n  [0, 0], # "\n  [10, 0.5],\n]\nsoc_max_pct = 200', "limits"
    ) + '[precharge]\nunverified_reason = """\n[limits]\nx = 1\n"""\n'  # fmt: skip
    found = {problem.key: problem.line for problem in problems(text)}
    assert found == {
        "limits.soc_max_pct": line_of(text, "soc_max_pct = 200"),
        "precharge.unverified_reason": line_of(text, 'unverified_reason = """'),
    }


def test_quoted_dotted_and_inline_keys_are_found_too() -> None:
    text = RIGHT.replace("cells = 96", '"cells" = 0').replace('[wiring]\nkind = "pack"\n', "")
    text = text.replace("schema = 1", 'schema = 1\nwiring.kind = "x"\nsite = { name = "a b" }')
    assert [(p.line, p.key) for p in problems(text)] == [(2, "wiring.kind"), (3, "site.name"), (8, "battery.cells")]


# --- files ---


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "controller.toml"
    file.write_text(RIGHT, "utf-8")
    return file


def test_a_file_is_loaded(path: Path) -> None:
    assert config.load(path, CATALOGUE) == parsed(RIGHT)


def write_binary(path: Path) -> None:
    path.write_bytes(b"schema = 1\n\xff\xfe\x00")


def write_huge(path: Path) -> None:
    path.write_bytes(b"# a comment\n" * 40_000)


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (write_binary, ":2: this is no text in UTF-8; give the path of a config file, saved as UTF-8"),
        (write_huge, ": it is larger than 256 KiB; give the path of a config file"),
        (make_folder, ": it cannot be read (Is a directory); give the path of a readable file"),
        (Path.unlink, ": there is no such file; `controller config init` writes one"),
    ],
)
def test_a_file_that_is_no_config_is_one_clear_error(path: Path, spoil: Callable[[Path], None], says: str) -> None:
    spoil(path)
    for use in (lambda: config.load(path, CATALOGUE), lambda: config.set_value(path, "site.name", "a", CATALOGUE)):
        with pytest.raises(ConfigError) as caught:
            use()
        assert str(caught.value) == f"{path}{says}"


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(path: Path) -> None:
    path.write_bytes(b"\xef\xbb\xbf" + RIGHT.replace("\n", "\r\n").encode())
    assert config.load(path, CATALOGUE) == parsed(RIGHT)


def test_the_config_is_looked_for_in_the_promised_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system = tmp_path / "etc.toml"
    monkeypatch.setattr(config, "SYSTEM_PATH", system)
    environ = {"CONTROLLER_CONFIG": "/named/in/environ.toml"}
    assert config.search(None, {}, tmp_path) is None
    system.touch()
    assert config.search(None, {"CONTROLLER_CONFIG": ""}, tmp_path) == system
    (tmp_path / "controller.toml").touch()
    assert config.search(None, {}, tmp_path) == tmp_path / "controller.toml"
    assert config.search(None, environ, tmp_path) == Path("/named/in/environ.toml")
    assert config.search("/given.toml", environ, tmp_path) == Path("/given.toml")


# --- templates ---


COMBINATIONS = [
    ("tesla_model3", "pack", "lfp"),
    ("tesla_model3", "pack", None),
    ("tesla_model3", "pack+inverter", None),
    ("leaf", "own", None),
]


@pytest.mark.parametrize(("battery", "wiring", "chemistry"), COMBINATIONS)
def test_a_new_config_passes_its_own_check_and_explains_every_key(
    battery: str, wiring: str, chemistry: str | None
) -> None:
    text = config.template(CATALOGUE, battery, "byd_modbus", wiring, chemistry)
    assert problems(unverified(text) if wiring == "own" else text) == []
    silent = idle(CATALOGUE.batteries[battery], CATALOGUE.inverters["byd_modbus"], wiring)
    for key in keys(CATALOGUE, battery, "byd_modbus"):
        rows = [row for row in text.split("\n") if row.lstrip("#").startswith(f"{key.name} = ")]
        if key.section in silent or key.path in silent:
            continue
        assert rows, key.path
    assert text.startswith("#:schema controller.schema.json\n")
    assert all(len(row) <= 120 for row in text.split("\n"))


@pytest.mark.parametrize(("battery", "wiring", "chemistry"), COMBINATIONS)
def test_a_new_config_with_every_hash_taken_away_means_the_same(
    battery: str, wiring: str, chemistry: str | None
) -> None:
    text = config.template(CATALOGUE, battery, "byd_modbus", wiring, chemistry)
    text = unverified(text) if wiring == "own" else text
    unstated = (key for key in keys(CATALOGUE) if key.default is None)
    spare = tuple(f"#{key.name} = " for key in unstated)
    bare = "\n".join(
        row[1:] if row.startswith("#") and row[1] not in " :\n" and not row.startswith(spare) else row
        for row in text.split("\n")
        if row != "#"
    )
    assert parsed(bare) == parsed(text)


@pytest.mark.parametrize("inverter", INVERTERS)
@pytest.mark.parametrize(("battery", "wiring"), [(name, w) for name, kind in BATTERIES.items() for w in kind.wirings])
def test_a_new_config_passes_for_all_that_is_in_the_registries(battery: str, wiring: str, inverter: str) -> None:
    catalogue = Catalogue(BATTERIES, INVERTERS)
    if wiring == "pack+inverter" and not INVERTERS[inverter].precharges:
        pytest.skip("this inverter does not precharge itself")
    for chemistry in BATTERIES[battery].chemistries or ("nca",):
        text = config.template(catalogue, battery, inverter, wiring, chemistry)
        text = text.replace('cells_protected_by = "…"', 'cells_protected_by = "a BMS"')
        text = text.replace("capacity_ah = 0.0", "capacity_ah = 100.0").replace("soh_pct = 0.0", "soh_pct = 80.0")
        text = unverified(text) if wiring == "own" else text
        got = config.parse(text, "new", catalogue).settings
        BATTERIES[battery].start(got.battery_options)
        INVERTERS[inverter].start(got.inverter_options)


def test_a_new_config_marks_what_a_person_has_to_set() -> None:
    text = config.template(CATALOGUE, "leaf", "byd_modbus", "own")
    marked = [text[at:].split("\n\n")[0].rstrip().rsplit("\n", 1)[1] for at in find_all(text, "# YOURS TO SET. ")]
    assert [row.partition(" ")[0] for row in marked] == [
        "cells", "max_charge_a", "max_discharge_a", "max_power_w", "resistance_ohm", "negative", "precharge",
        "positive", "negative_feedback", "precharge_feedback", "positive_feedback", "heartbeat",
    ]  # fmt: skip


def test_a_chemistry_nobody_named_is_marked_as_a_guess_where_there_are_several() -> None:
    guess = "# YOURS TO SET. What its cells are."
    assert guess in config.template(CATALOGUE, "tesla_model3", "byd_modbus", "pack")
    assert guess not in config.template(CATALOGUE, "tesla_model3", "byd_modbus", "pack", "lfp")
    assert guess not in config.template(CATALOGUE, "leaf", "byd_modbus", "own")


def find_all(text: str, part: str) -> list[int]:
    return [at for at in range(len(text)) if text.startswith(part, at)]


def test_a_combination_that_cannot_be_is_not_written() -> None:
    with pytest.raises(ConfigError, match=r"Tesla Model 3/Y cannot be wired as `own`"):
        config.template(CATALOGUE, "tesla_model3", "byd_modbus", "own")
    with pytest.raises(ConfigError, match=r'"bmw" is none of tesla_model3, leaf'):
        config.template(CATALOGUE, "bmw", "byd_modbus", "pack")


def test_a_new_file_never_overwrites_one(path: Path) -> None:
    with pytest.raises(ConfigError, match="there is a file already, and it is kept"):
        config.init_file(path, config.template(CATALOGUE, "leaf", "byd_modbus", "own"))
    assert path.read_text() == RIGHT
    assert os.listdir(path.parent) == [path.name]


def test_a_new_file_is_written_whole_and_readable(tmp_path: Path) -> None:
    text = config.template(CATALOGUE, "leaf", "byd_modbus", "own")
    config.init_file(tmp_path / "new.toml", text)
    assert (tmp_path / "new.toml").read_text("utf-8") == text
    assert stat.S_IMODE((tmp_path / "new.toml").stat().st_mode) == 0o644
    assert os.listdir(tmp_path) == ["new.toml"]


def test_a_new_file_in_a_missing_folder_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"it cannot be written \(No such file or directory\)"):
        config.init_file(tmp_path / "none" / "new.toml", "")


def test_the_defaults_without_a_config_are_those_of_the_chemistry() -> None:
    got = config.defaults_for("tesla_model3", "lfp", 106, "pack", "byd_modbus", CATALOGUE)
    assert got.pack == PackSettings(CHEMISTRIES["lfp"], 106, 20.0, 20.0)


# --- a battery that lacks signals ---


SHUNT = Pack(
    "Some shunt",
    ("none",),
    ("nca", "lfp"),
    (
        Option("capacity_ah", 0.0, "Its capacity.", "Ah", 1, 1000, yours=True),
        Option("cells", 0, "Cells."),
        Option("energy_full_wh", 0.0, "Energy.", yours=True),
    ),
    frozenset({Feed.CELLS, Feed.TEMPERATURES}),
)
WITH_SHUNT = Catalogue({**CATALOGUE.batteries, "shunt": SHUNT}, CATALOGUE.inverters)
STATED = 'cells_protected_by = "a BMS with a relay"\ncapacity_ah = 90\nenergy_full_wh = 30000'
MEASURED = with_row(STATED, "battery", RIGHT.replace("tesla_model3", "shunt").replace('"pack"', '"none"'))


def wrong(text: str) -> list[tuple[str, str]]:
    return [(problem.key, problem.message) for problem in config.check(text, "x", WITH_SHUNT)]


def test_a_battery_that_lacks_cells_says_so_to_the_core_and_shows_what_protects_them() -> None:
    got = config.parse(MEASURED, "x", WITH_SHUNT)
    assert got.settings.lacks == SHUNT.lacks
    assert config.show(got)["battery.cells_protected_by"][:2] == ("a BMS with a relay", "file")
    assert parsed(RIGHT).lacks == frozenset()
    assert config.defaults_for("shunt", "lfp", 16, "none", "byd_modbus", WITH_SHUNT).lacks == SHUNT.lacks


def test_a_battery_that_lacks_cells_is_refused_while_nobody_says_what_protects_them() -> None:
    text = "\n".join(row for row in MEASURED.split("\n") if not row.startswith("cells_protected_by"))
    with pytest.raises(ConfigError) as caught:
        config.parse(text, "x.toml", WITH_SHUNT)
    assert str(caught.value) == (
        'x.toml:3: battery.cells_protected_by: is missing; it has to be stated; add cells_protected_by = "…" under '
        "[battery]: What protects each cell and watches its temperature, as this battery reports neither; say, a BMS "
        "with a relay."
    )


@pytest.mark.parametrize("text", ["", "  ", "?"])
def test_what_protects_the_cells_is_said_in_words(text: str) -> None:
    (key, message), *more = wrong(MEASURED.replace("a BMS with a relay", text))
    assert (key, more) == ("battery.cells_protected_by", [])
    assert message.endswith(" does not fit")


def test_a_battery_that_reports_its_cells_has_no_such_key() -> None:
    assert only(with_row('cells_protected_by = "me"', "battery")).message == "there is no such key"


def test_an_option_named_like_a_shared_key_gets_its_value_and_can_make_it_mandatory() -> None:
    options = config.parse(MEASURED, "x", WITH_SHUNT).settings.battery_options
    assert options == {"capacity_ah": 90.0, "cells": 96, "energy_full_wh": 30000.0}
    assert wrong(MEASURED.replace("energy_full_wh = 30000", "")) == [
        ("battery.energy_full_wh", "is missing; it has to be stated")
    ]
    assert "energy_full_wh" not in config.defaults_for(
        "shunt", "lfp", 16, "none", "byd_modbus", WITH_SHUNT
    ).battery_options  # fmt: skip


def test_a_new_config_leaves_to_its_owner_what_nobody_can_guess() -> None:
    text = config.template(WITH_SHUNT, "shunt", "byd_modbus", "none")
    assert wrong(text) == [
        (
            "battery.cells_protected_by",
            "still to be stated: What protects each cell and watches its temperature, as this battery reports neither; "
            "say, a BMS with a relay",
        ),
        ("battery.capacity_ah", "still to be stated: Its capacity"),
    ]
    for name in ("cells_protected_by", "capacity_ah", "energy_full_wh"):
        block = next(part for part in text.split("\n\n") if f"\n{name} = " in part)
        assert block.startswith("# YOURS TO SET. ")
    stated = text.replace('"…"', '"a BMS"').replace("capacity_ah = 0.0", "capacity_ah = 100")
    assert wrong(stated) == []
    with pytest.raises(ConfigError, match="Some shunt cannot be wired as `own`"):
        config.template(WITH_SHUNT, "shunt", "byd_modbus", "own")


# --- what an inverter is told that it cannot find out ---


REGISTRIES = Catalogue(BATTERIES, INVERTERS)


def with_inverter(name: str, row: str, text: str = RIGHT) -> list[tuple[str, str, str]]:
    found = config.check(with_row(row, "inverter", text.replace("byd_modbus", name)), "x", REGISTRIES)
    return [problem[1:] for problem in found]


def test_a_model_that_does_not_hold_the_packs_window_is_refused_while_another_comes_nearer() -> None:
    assert with_inverter("sungrow_sbr", 'model = "SBR064"') == [
        ("inverter.model", "its 108 to 146 V do not hold the pack's 298 to 398 V", "take SBR192")
    ]
    assert with_inverter("sungrow_sbr", 'model = "SBR192"') == []


def test_the_voltages_stated_in_the_config_are_what_a_model_has_to_hold() -> None:
    narrow = with_row("charge_stop_v = 3.8\ncharge_taper_v = 3.7\ncritical_high_v = 3.9", "limits")
    assert with_inverter("sungrow_sbr", 'model = "SBR160"', narrow) == []
    assert [key for key, *_ in with_inverter("sungrow_sbr", 'model = "SBR192"', narrow)] == ["inverter.model"]


@pytest.mark.parametrize(
    ("chemistry", "cells", "model"), [("nca", 96, "SBR192"), ("lfp", 106, "SBR160"), ("lfp", 60, "SBR096")]
)
def test_a_new_config_has_the_model_that_fits(chemistry: str, cells: int, model: str) -> None:
    text = config.template(REGISTRIES, "tesla_model3", "sungrow_sbr", "pack", chemistry, cells)
    assert config.parse(text, "new", REGISTRIES).settings.inverter_options["model"] == model
    used = config.defaults_for("tesla_model3", chemistry, cells, "pack", "sungrow_sbr", REGISTRIES)
    assert used.inverter_options["model"] == model


@pytest.mark.parametrize(("inverter", "row"), [("byd_can", 'profile = "sungrow"'), ("sungrow_sbr", 'model = "SBR192"')])
def test_the_health_of_a_battery_that_never_tells_it_has_to_be_stated(inverter: str, row: str) -> None:
    juntek = with_row(STATED, "battery", RIGHT.replace("tesla_model3", "juntek").replace('"pack"', '"none"'))
    ((key, message, _),) = with_inverter(inverter, row, juntek)
    assert (key, message) == ("inverter.soh_pct", "is missing; it has to be stated")
    assert [key for key, *_ in with_inverter(inverter, f"{row}\nsoh_pct = 0", juntek)] == ["inverter.soh_pct"]
    assert with_inverter(inverter, f"{row}\nsoh_pct = 85", juntek) == []
    assert with_inverter(inverter, row) == []
    assert with_inverter("byd_modbus", "", juntek) == []


# --- changing one value ---


VALUES: dict[type, Callable[[Key], st.SearchStrategy[Any]]] = {
    float: lambda key: st.floats(key.low, key.high),
    int: lambda key: st.integers(math.ceil(key.low or 0), math.floor(key.high or 0)),
    bool: lambda key: st.booleans(),
    str: lambda key: st.text(st.characters(codec="utf-8"), max_size=20),
}
TIED = (
    "unverified_reason", "limit_ms", "soc_min_pct", "soc_max_pct", "resistance_ohm", "capacitance_f", "confirm_ms",
    "settle_feedback_ms", "settle_blind_ms", "overlap_ms",
)  # fmt: skip
FREE = [
    key
    for key in keys(CATALOGUE, "tesla_model3", "byd_modbus")
    if not (key.choices or key.kind is list or key.pattern or key.name in TIED or key.name.endswith("_v"))
]
"""Keys that may take any value within their bounds, whatever the others say."""

TEMPLATE = config.template(CATALOGUE, "tesla_model3", "byd_modbus", "pack")


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data(), st.sampled_from([RIGHT, TEMPLATE]), st.sampled_from(["\n", "\r\n"]))
def test_a_value_set_is_the_value_read_and_every_other_line_stays_byte_by_byte(
    path: Path, data: st.DataObject, text: str, end: str
) -> None:
    key = data.draw(st.sampled_from(FREE))
    value = data.draw(VALUES[key.kind](key))
    before = text.replace("\n", end)
    path.write_bytes(before.encode())
    as_typed = str(value).lower() if key.kind is bool else str(value)
    assert config.set_value(path, key.path, as_typed, CATALOGUE).left == []
    assert config.read(path, CATALOGUE).values[key.path] == value
    old, new = before.split(end), path.read_bytes().decode().split(end)
    codes = [code[1:] for code in SequenceMatcher(None, old, new, autojunk=False).get_opcodes() if code[0] != "equal"]
    gone = [row for a, b, _, _ in codes for row in old[a:b]]
    come = [row for _, _, c, d in codes for row in new[c:d] if row.strip()]
    assert [row.partition(" =")[0].strip("#") for row in gone] in ([], [key.name])
    assert [row.partition(" =")[0] for row in come] in ([], [key.name], [f"[{key.section}]", key.name])


def changed(path: Path, key: str, value: str, text: str) -> str:
    path.write_text(text, "utf-8")
    config.set_value(path, key, value, CATALOGUE)
    return path.read_text("utf-8")


def test_a_comment_behind_a_value_and_the_spaces_around_it_stay(path: Path) -> None:
    text = RIGHT.replace("max_discharge_a = 35.5  #", "max_discharge_a   =   35.5  #")
    assert changed(path, "limits.max_discharge_a", "15", text) == text.replace("35.5", "15.0")


def test_a_key_that_was_commented_out_takes_the_place_of_its_comment(path: Path) -> None:
    assert changed(path, "precharge.tries", "2", TEMPLATE) == TEMPLATE.replace("#tries = 3", "tries = 2")


def test_a_key_that_was_not_there_is_written_under_its_section(path: Path) -> None:
    assert changed(path, "limits.soc_max_pct", "90", RIGHT) == RIGHT.replace(
        "[limits]\n", "[limits]\nsoc_max_pct = 90.0\n"
    )


def test_a_section_that_was_not_there_is_written_at_the_end(path: Path) -> None:
    assert changed(path, "can.channel", "can1", RIGHT) == RIGHT + '\n[can]\nchannel = "can1"\n'


def test_inline_and_dotted_sections_can_be_changed(path: Path) -> None:
    text = RIGHT.replace("schema = 1", 'schema = 1\nsite = { name = "a" }\ncan.channel = "can1" # bus')
    after = changed(path, "site.pack", "west", text)
    assert 'site = { name = "a"' in after
    config.set_value(path, "can.bitrate", "250000", CATALOGUE)
    values = config.read(path, CATALOGUE).values
    assert (values["site.pack"], values["can.bitrate"], values["can.channel"]) == ("west", 250_000, "can1")
    assert "# bus" in path.read_text()


def test_a_list_can_be_set(path: Path) -> None:
    config.set_value(path, "limits.charge_over_coldest", "[[5, 0], [15, 0.5]]", CATALOGUE)
    assert config.load(path, CATALOGUE).pack.charge_over_coldest == ((5.0, 0.0), (15.0, 0.5))


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("pack.max_charge_a", "15", "did you mean limits.max_charge_a?"),
        ("limits.max_charg_a", "15", "did you mean limits.max_charge_a?"),
        ("limits", "15", "there is no such section or key"),
        ("", "15", "there is no such section or key"),
        ("schema", "2", "there is no such section or key"),
        ("limits.max_charge_a", "a lot", "'a lot' is not a number"),
        ("limits.max_charge_a", "nan", "is not a number"),
        ("limits.max_charge_a", "inf", "is not a number"),
        ("limits.max_charge_a", "900", "outside the hard bound 1…500 A"),
        ("limits.temp_max_c", "60", "outside the hard bound 20…55 °C"),
        ("battery.cells", "96.5", "'96.5' is not a whole number"),
        ("contactors.auto_enable", "1", "'1' is not true or false"),
        ("limits.charge_over_coldest", "[[1,", "is not a list of points"),
        ("limits.charge_over_coldest", "3", "3 is not a list of points"),
        ("wiring.kind", "own", "Tesla Model 3/Y cannot be wired as `own`"),
        ("battery.name", "leaf", "Nissan Leaf cannot be wired as `pack`"),
        ("site.name", "a/b", "does not fit"),
        ("can.channel", "can\udcff", "is not a text"),
    ],
)
def test_a_failed_change_says_why_and_leaves_the_file_alone(path: Path, key: str, value: str, says: str) -> None:
    before = path.stat()
    with pytest.raises(ConfigError) as caught:
        config.set_value(path, key, value, CATALOGUE)
    assert says in str(caught.value)
    assert path.read_text() == RIGHT
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert os.listdir(path.parent) == [path.name]


def test_a_new_config_can_be_mended_one_key_at_a_time(path: Path) -> None:
    path.write_text(config.template(WITH_SHUNT, "shunt", "byd_modbus", "none"), "utf-8")
    first = config.set_value(path, "battery.capacity_ah", "90", WITH_SHUNT)
    assert [problem.key for problem in first.left] == ["battery.cells_protected_by"]
    assert config.set_value(path, "battery.cells_protected_by", "a BMS", WITH_SHUNT).left == []
    assert config.read(path, WITH_SHUNT).values["battery.capacity_ah"] == 90.0


@pytest.mark.parametrize(
    ("key", "value"), [("battery.capacity_ah", "0"), ("limits.max_charge_a", "900"), ("wiring.kind", "pack")]
)
def test_a_change_of_a_wrong_config_makes_nothing_else_wrong(path: Path, key: str, value: str) -> None:
    text = config.template(WITH_SHUNT, "shunt", "byd_modbus", "none")
    path.write_text(text, "utf-8")
    with pytest.raises(ConfigError) as caught:
        config.set_value(path, key, value, WITH_SHUNT)
    assert {problem.key for problem in caught.value.problems} == {key}
    assert path.read_text("utf-8") == text


def test_a_disk_that_fails_leaves_the_old_file_and_no_rubbish(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigError, match="it cannot be written \\(No space left on device\\)"):
        config.set_value(path, "site.name", "a", CATALOGUE)
    assert path.read_text() == RIGHT
    assert os.listdir(path.parent) == [path.name]


def test_mode_and_link_of_the_file_survive_a_change(path: Path) -> None:
    path.chmod(0o640)
    link = path.parent / "link.toml"
    link.symlink_to(path)
    config.set_value(link, "site.name", "barn", CATALOGUE)
    assert link.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert config.read(path, CATALOGUE).values["site.name"] == "barn"


# --- showing ---


def test_each_effective_value_is_shown_with_its_origin() -> None:
    shown = config.show(config.parse(with_row("charge_stop_v = 4.1", "limits"), "x", CATALOGUE))
    assert shown["limits.max_charge_a"][:3] == (30.0, "file", "A")
    assert shown["limits.soc_max_pct"][:3] == (95.0, "default", "%")
    assert shown["limits.charge_stop_v"][:3] == (4.1, "file", "V")
    assert shown["limits.critical_high_v"][:3] == (4.25, "default", "V")
    assert shown["limits.charge_stop_v"].bound == "4.15 V and below for nca"
    assert shown["inverter.serial"][:2] == ("packwarden", "default")
    json.dumps(shown)


def test_the_schema_for_editors_describes_every_key_with_its_bounds() -> None:
    schema = config.schema(CATALOGUE)
    json.dumps(schema)
    for key in keys(CATALOGUE):
        rows = schema["$defs"][key.section.title()]["properties"]
        assert rows[key.name]["description"].startswith(key.text)
        assert rows[key.name].get("minimum") == key.low
    assert schema["$defs"]["Battery"]["properties"]["name"]["enum"] == ["tesla_model3", "leaf"]
    assert set(schema["required"]) == {"schema", "battery", "inverter", "wiring", "limits"}
    assert set(tomlkit.parse(TEMPLATE)) <= set(schema["properties"])
