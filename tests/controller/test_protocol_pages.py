"""The pages of the protocols say what runs; the example of docs/adding-a-battery.md is a battery like any other."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from controller import config
from controller.batteries.base import BatteryProtocol
from controller.batteries.registry import BATTERIES
from controller.config import Catalogue
from controller.inverters.base import InverterProtocol
from controller.inverters.registry import INVERTERS
from controller.protocol_pages import EVERY, PAGES, dbc_files, module_of, page
from controller.reference import PAGES as WRITTEN
from sim.identify import identify
from sim.recording import open_recording
from sim.replay import Replay
from tests.batteries.documented import EXAMPLE, PAGE
from tests.shared import LOGS, needs_shared

ROOT = Path(__file__).parents[2]
every = pytest.mark.parametrize("protocol", EVERY, ids=lambda protocol: protocol.name)
Anything = BatteryProtocol | InverterProtocol


def test_every_protocol_has_its_page_and_make_docs_writes_it():
    assert set(PAGES) == {f"protocols/{name}.md" for name in (*BATTERIES, *INVERTERS)}
    assert PAGES.items() <= WRITTEN.items()
    assert {path.name for path in (ROOT / "docs" / "protocols").iterdir()} == {Path(name).name for name in PAGES}


@every
def test_a_page_has_every_message_signal_register_and_option(protocol: Anything):
    text = page(protocol, module_of(protocol))
    names = [option.name for option in protocol.options]
    for path in dbc_files(protocol, module_of(protocol)):
        dbc = path.read_text(encoding="utf-8")
        names += re.findall(r"^BO_ \d+ (\w+):", dbc, re.MULTILINE)
        names += [name for name in re.findall(r"^ SG_ (\w+) ", dbc, re.MULTILINE) if not name.startswith(ALIKE)]
    for block in getattr(module_of(protocol), "BLOCKS", {}).values():
        names += [row.name for row in block.registers]
    assert [name for name in names if not re.search(rf"\b{name}\b", text)] == []


ALIKE = ("BMS_brick", "BMS_alerts")
"""Signals of many pages that are laid out alike: the first two and the last are named."""


@every
def test_a_page_says_what_is_uncertain_and_which_recordings_pin_it(protocol: Anything):
    module, text = module_of(protocol), page(protocol, module_of(protocol))
    assert all(f"- {doubt}\n" in text for doubt in module.UNCERTAIN)
    assert module.UNCERTAIN
    for name, origin in module.RECORDINGS.items():
        assert f"- `{name}`, from {origin}" in text


@every
def test_a_recording_that_is_said_to_pin_a_protocol_is_used_by_its_tests(protocol: Anything):
    folder = "batteries" if isinstance(protocol, BatteryProtocol) else "inverters"
    tests = [(ROOT / "tests" / folder / f"test_{protocol.name}.py"), ROOT / "tests" / "replay" / "test_replay.py"]
    text = "".join(path.read_text(encoding="utf-8") for path in tests)
    for name in module_of(protocol).RECORDINGS:
        assert name.split("*")[0].removesuffix(".log") in text, name


@needs_shared
@every
def test_a_recording_that_is_said_to_pin_a_protocol_is_there(protocol: Anything):
    for name in module_of(protocol).RECORDINGS:
        assert [*LOGS.glob(name), *(ROOT / "sim" / "logs").glob(name)], name


def test_a_frame_is_drawn_bit_by_bit():
    """Of 0x1DB of a Leaf: 11 bits of current from the top of byte 0, the interlock in bit 3 of byte 3."""
    text = PAGES["protocols/leaf.md"]()
    drawing = text[text.index("### 0x1DB") :]
    lines = drawing[drawing.index("```text") :].splitlines()[1:10]
    assert lines[0] == "byte  7 6 5 4 3 2 1 0"
    assert lines[1] == "   0  a a a a a a a a"
    assert lines[2].startswith("   1  a a a ")
    interlock = re.search(r"^\| (\w) \| `LB_interlock` \| `27\\\|1@1\+` ", drawing, re.MULTILINE)
    assert interlock is not None
    assert lines[4].split()[1:][7 - 3] == interlock[1]
    assert "| `LB_totalVoltage` | `23\\|10@0+` | × 0.5 V | 0x3FF |" in drawing


# --- the example of docs/adding-a-battery.md ---


def test_the_example_gets_a_page_of_its_own():
    text = page(EXAMPLE.battery, sys.modules[type(EXAMPLE.battery).__module__])
    assert "### 0x6A0 TB_status" in text
    assert "| `TB_packVoltage` | `7\\|16@0+` | × 0.1 V | 0xFFFF |" in text


def test_the_example_is_told_from_the_others_by_its_recording():
    recording = open_recording(EXAMPLE.folder / "tiny_bms-charging.log")
    found = identify(recording, {**BATTERIES, EXAMPLE.name: EXAMPLE.battery})
    assert found.battery is EXAMPLE.battery


def test_the_example_replays_its_recordings_and_rejects_nothing():
    catalogue = Catalogue({EXAMPLE.name: EXAMPLE.battery}, INVERTERS)
    settings = config.defaults_for(EXAMPLE.name, "ncm", 96, "own", "byd_modbus", catalogue)
    for name, amps in (("tiny_bms-charging.log", 12.5), ("tiny_bms-discharging.log", -12.5)):
        recording = open_recording(EXAMPLE.folder / name)
        replay = Replay(recording, settings, EXAMPLE.battery, INVERTERS["byd_modbus"])
        result = replay.run()
        assert result.signals["current_a"].last == amps
        assert result.missing == ()
        assert replay.loop.state.pack.corrupt_frames == 0
        assert replay.loop.state.pack.decoded_frames == 6


def test_every_path_that_the_page_names_exists_or_is_the_examples():
    text = PAGE.read_text(encoding="utf-8")
    named = re.findall(r"`((?:controller|tests|sim|docs)/[\w./-]+)`", text)
    assert len(named) > 8
    for path in named:
        assert (ROOT / path).exists() or path in EXAMPLE.files or "tiny_bms" in path, path


def test_the_lines_of_the_registry_that_the_page_changes_are_there():
    registry = (ROOT / "controller" / "batteries" / "registry.py").read_text(encoding="utf-8")
    changed = re.findall(r"^-(.+)$", PAGE.read_text(encoding="utf-8").split("```diff")[1].split("```")[0], re.MULTILINE)
    assert len(changed) == 2
    assert all(f"{line}\n" in registry for line in changed)
