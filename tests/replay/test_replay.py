"""Recordings through the whole controller: what state they end in, what is found, and that it is always the same."""

import hashlib
import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from typer.testing import CliRunner

from controller.cli import app
from sim import michael
from sim.closed_loop import Controller
from sim.recording import open_recording, shipped, write_candump
from tests.shared import LOGS, needs_shared

ROOT = Path(__file__).parents[2]
MICHAEL = "m3-michael.log"

FINAL = {  # the expected final state of each recording of a pack
    "leaf-aze0-40-bridge.log": "STARTING",  # no Leaf tells its contactors, and only one recording asks for the cells
    "leaf-env200-40-startup.log": "STARTING",
    "leaf-me0-40-ignition.log": "STARTING",
    "leaf-me0-40-startup.log": "STARTING",
    "leaf-ze0-30-quick-charge-refused.log": "STARTING",
    "leaf-ze0-30-start-stop.log": "STARTING",  # 4 A at most
    "leaf-ze0-shift-and-stop.log": "RUNNING",
    "leaf-ze1-62-drive-cells.log": "RUNNING",
    "leaf-ze1-62-quick-charge.log": "RUNNING",
    "leaf-ze1-62-startup-ignition.log": "STARTING",
    "tesla-hvc-alone-power-up.log": "STARTING",  # no cells
    "tesla-m3-accelerate.log": "RUNNING",
    "tesla-m3-bench-battery-only.log": "STARTING",  # HVIL unknown
    "tesla-m3-dc-charging-40kw.log": "RUNNING",
    "tesla-m3-dc-charging-90kw.log": "RUNNING",
    "tesla-m3-drive.log": "RUNNING",
    "tesla-m3-lfp-vehicle-bus-a.log": "RUNNING",
    "tesla-m3-lfp-vehicle-bus-b.log": "RUNNING",
    "tesla-m3-lfp-vehicle-bus-c.log": "RUNNING",
    "tesla-m3-parked-a.log": "RUNNING",
    "tesla-m3-parked-b.log": "STARTING",  # 4 A at most
}
INVERTER_SIDE = ("byd-sungrow-discharge-30min.log", "goodwe-hello.log", "byd-gen24-active.rtu")


def run(*arguments: str):
    return CliRunner().invoke(app, list(arguments))


def replay(path: Path | str, *options: str) -> dict:
    result = run("sim", "--replay", str(path), "--json", *options)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@needs_shared
@pytest.mark.parametrize("name", FINAL)
def test_each_recording_ends_in_its_state(name: str):
    story = replay(LOGS / name)
    assert story["battery"] == {"leaf": "leaf", "tesla": "tesla_model3"}[name.split("-")[0]]
    assert story["final_state"] == FINAL[name]
    assert story["rejected_frames"] == 0
    if FINAL[name] == "STARTING":
        assert story["missing_signals"]


@needs_shared
def test_every_shared_recording_of_a_pack_has_an_expected_state():
    assert {path.name for kind in ("leaf", "tesla") for path in LOGS.glob(f"{kind}-*.log")} == set(FINAL)


@needs_shared
@pytest.mark.parametrize("name", [n for n, state in FINAL.items() if state == "RUNNING"])
def test_a_recording_that_begins_closed_runs_for_the_recorded_reason(name: str):
    states = replay(LOGS / name)["states"]
    assert states[0] == {"t_s": 0.0, "state": "STARTING", "cause": "boot"}
    assert (states[1]["state"], states[1]["cause"]) == ("RUNNING", "recorded-closed")


@needs_shared
@pytest.mark.parametrize("name", INVERTER_SIDE)
def test_a_recording_of_an_inverters_side_says_so(name: str):
    result = run("sim", "--replay", str(LOGS / name))
    assert result.exit_code == 2
    assert "inverter's side" in result.output.replace("\n", " ")


@needs_shared
def test_cells_that_a_recorded_phone_asked_a_leaf_for_are_known_and_what_was_not_asked_is_named():
    story = replay(LOGS / "leaf-ze1-62-drive-cells.log")
    assert None not in story["cells_v"]
    assert story["signals"]["current_a"]["min"] == -482.5
    story = replay(LOGS / "leaf-ze1-62-startup-ignition.log")
    assert story["missing_signals"] == ["cell_min_v, cell_max_v", "temp_min_c, temp_max_c"]
    assert {event["id"] for event in story["events"]} == {"pack-voltage-high"}


@needs_shared
def test_the_pack_alone_on_a_bench_is_what_the_controller_meets_first():
    story = replay(LOGS / "tesla-m3-bench-battery-only.log")
    assert story["missing_signals"] == ["hvil_ok"]
    assert story["signals"]["contactor_state"]["last"] == "OPEN"
    assert story["signals"]["current_a"]["min"] == pytest.approx(-4.4)
    assert {"pack-refuses", "lv-supply-low"} <= {event["id"] for event in story["events"]}
    assert story["limits"]["charge_w"] == story["limits"]["discharge_w"] == 0
    assert story["inverter_image"]["301"][6:8] == [0, 0]


# --- the shipped recording ---


def test_the_shipped_recording_tells_its_story_and_says_that_it_is_synthetic():
    story = replay(MICHAEL)
    assert story["synthetic"] is True
    assert [(s["state"], s["cause"]) for s in story["states"]] == [
        ("STARTING", "boot"),
        ("STANDBY", "recorded-open"),
        ("WAKING_PACK", "recorded-closing"),
        ("RUNNING", "recorded-closed"),
        ("VERIFYING_OPEN", "recorded-open"),
        ("STANDBY", "open-checked"),
        ("WAKING_PACK", "recorded-closing"),
        ("RUNNING", "recorded-closed"),
        ("VERIFYING_OPEN", "recorded-open"),
        ("STANDBY", "open-checked"),
    ]
    assert "hvil-open" in {event["id"] for event in story["events"]}
    assert len(story["cells_v"]) == 96
    assert None not in story["cells_v"]
    text = run("sim", "--replay", MICHAEL).stdout
    assert "synthetic" in text


def test_the_shipped_recording_is_what_the_controller_and_its_pack_model_say_today(tmp_path: Path):
    partner = Controller()
    made = tmp_path / MICHAEL
    write_candump(made, michael.record(partner, michael.pack()))
    path = shipped(MICHAEL)
    assert path is not None
    assert made.read_bytes() == path.read_bytes(), "stale: run `make recording`"
    assert [state.value for _, state, _ in partner.states] == [
        "STARTING", "STANDBY", "WAKING_PACK", "RUNNING", "UNLOADING", "VERIFYING_OPEN", "STANDBY", "WAKING_PACK",
        "RUNNING", "VERIFYING_OPEN", "FAULT",
    ]  # fmt: skip


def test_the_json_keeps_its_contract():
    story = replay(MICHAEL)
    promised = {
        "schema", "log", "battery", "inverter", "frames", "decoded_frames", "rejected_frames", "duration_s", "ticks",
        "wall_s", "final_state", "masked_rules", "states", "events", "signals", "cells_v", "trace_sha256",
        "inverter_image",
    }  # fmt: skip
    assert promised <= set(story)
    assert story["schema"] == 1
    assert story["ticks"] == 6601
    assert set(story["signals"]["pack_voltage_v"]) == {"first", "last", "min", "max", "samples"}
    assert set(story["events"][0]) == {"t_s", "id", "severity", "detail"}
    image = story["inverter_image"]
    assert {block: len(words) for block, words in image.items()} == {"101": 68, "201": 13, "301": 24, "401": 20}
    assert "feedback-mismatch" in story["masked_rules"]


def test_the_trace_is_what_its_hash_says_and_speaks_every_second(tmp_path: Path):
    trace = tmp_path / "trace.jsonl"
    story = replay(MICHAEL, "--trace", str(trace))
    assert hashlib.sha256(trace.read_bytes()).hexdigest() == story["trace_sha256"]
    lines = [json.loads(line) for line in trace.read_text(encoding="utf-8").splitlines()]
    assert set(lines[0]) == {"t_ms", "state", "closed", "signals", "limits", "tx", "events"}
    stamps = [line["t_ms"] for line in lines]
    assert max(b - a for a, b in pairwise(stamps)) <= 1_000
    assert all(line["closed"] == [] and line["tx"] == [] for line in lines)  # in shadow
    assert all(set(line["signals"]) == set(lines[0]["signals"]) for line in lines)


LFP = str(LOGS / "tesla-m3-lfp-vehicle-bus-a.log")


@pytest.mark.requirement("I14")
@pytest.mark.parametrize("log", [MICHAEL, pytest.param(LFP, marks=needs_shared)])
def test_two_runs_with_different_hash_seeds_give_the_same_bytes(log: str, tmp_path: Path):
    traces = []
    for seed in ("1", "4711"):
        out = tmp_path / f"{seed}.jsonl"
        subprocess.run(
            [sys.executable, "-m", "controller", "sim", "--replay", log, "--json", "--trace", str(out)],
            check=True, capture_output=True, cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": seed},
        )  # fmt: skip
        traces.append(out.read_bytes())
    assert traces[0] == traces[1]
    assert len(traces[0]) > 100_000


def test_ticks_without_frames_are_run_too(tmp_path: Path):
    recording = open_recording(shipped(MICHAEL))
    frames = [(us, frame) for us, frame in recording if us < 20_000_000]
    gap = [(us + 3_000_000 * (us > 13_000_000), frame) for us, frame in frames]
    path = tmp_path / "gap.log"
    write_candump(path, gap)
    story = replay(path)
    assert story["ticks"] == 2300 + 1 or story["ticks"] == 2300
    lost = [event for event in story["events"] if event["id"] == "pack-data-lost"]
    assert lost
    assert 13.5 <= lost[0]["t_s"] <= 14.2


# --- damaged, foreign, empty ---


def damaged(tmp_path: Path, every: int) -> Path:
    path = tmp_path / "damaged.log"
    lines = shipped(MICHAEL).read_text(encoding="ascii").splitlines()[:8000]
    path.write_text("\n".join("garbage" if n % every == every - 1 else line for n, line in enumerate(lines)) + "\n")
    return path


def test_a_few_unreadable_lines_are_counted_and_the_first_is_named(tmp_path: Path):
    story = replay(damaged(tmp_path, 100))
    assert story["rejected_frames"] == 80
    assert story["first_rejection"][0] == 100


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"\x89PNG\r\n\x1a\n" + bytes(200), "not a recording"),
        (b"hello world\n" * 50, "not a recording"),
        (b"(1.000000) can0 7FF#00\n(1.010000) can0 7FE#00\n", "no pack known here"),
    ],
)
def test_a_foreign_or_empty_file_is_one_clear_line(tmp_path: Path, content: bytes, says: str):
    path = tmp_path / "odd.log"
    path.write_bytes(content)
    result = run("sim", "--replay", str(path))
    assert result.exit_code == 2
    assert len(result.stderr.strip().splitlines()) == 1
    assert str(path) in result.stderr
    assert says in result.stderr


def test_more_than_a_tenth_unreadable_is_refused(tmp_path: Path):
    result = run("sim", "--replay", str(damaged(tmp_path, 5)))
    assert result.exit_code == 2
    assert "cannot be read" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("--replay", "no-such.log"),
        ("--replay", MICHAEL, "--battery", "leaf99"),
        ("--replay", MICHAEL, "--inverter", "toaster"),
        ("--replay", MICHAEL, "--expect-state", "ASLEEP"),
        ("--replay", MICHAEL, "--config", "no-such.toml"),
        ("--replay", MICHAEL, "--bus", "can0"),
    ],
)
def test_wrong_use_is_one_clear_line_and_exit_two(arguments: tuple):
    result = run("sim", *arguments)
    assert result.exit_code == 2
    assert len(result.stderr.strip().splitlines()) == 1
    assert "Traceback" not in result.output


def test_an_unexpected_final_state_is_exit_one():
    assert run("sim", "--replay", MICHAEL, "--expect-state", "STANDBY").exit_code == 0
    assert run("sim", "--replay", MICHAEL, "--expect-state", "RUNNING").exit_code == 1


def test_the_plot_is_one_page_that_needs_no_network(tmp_path: Path):
    page = tmp_path / "plot.html"
    replay(MICHAEL, "--plot", str(page))
    text = page.read_text(encoding="utf-8")
    assert "synthetic" in text
    assert "hvil-open" in text
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert "https://" not in text


def test_a_config_changes_what_is_judged(tmp_path: Path):
    config = tmp_path / "controller.toml"
    assert run("config", "init", "-o", str(config)).exit_code == 0
    assert run("config", "set", "limits.max_charge_a", "8", "--config", str(config)).exit_code == 0
    story = replay(MICHAEL, "--config", str(config))
    assert "overcurrent" in {event["id"] for event in story["events"]}
    assert "overcurrent" not in {event["id"] for event in replay(MICHAEL)["events"]}
