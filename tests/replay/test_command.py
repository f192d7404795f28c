"""The command as users and attackers type it: one line, the right exit status, nothing lost."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sim.recording import shipped
from tests.shared import LOGS, needs_shared

ROOT = Path(__file__).parents[2]
MICHAEL = shipped("m3-michael.log")


def controller(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "controller", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
        **options,
    )
    assert "Traceback" not in done.stderr
    return done


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("controller: ")
    assert done.returncode == 2
    return lines[0]


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """The first 15 s of the shipped recording."""
    assert MICHAEL is not None
    path = tmp_path / "in.log"
    path.write_text("".join(MICHAEL.read_text(encoding="ascii").splitlines(keepends=True)[:8_000]), encoding="ascii")
    return path


@pytest.mark.parametrize("option", ["--trace", "--plot"])
@pytest.mark.parametrize("way", ["itself", "symlink", "hard link", "another spelling"])
def test_a_recording_is_never_written_over(recording: Path, tmp_path: Path, option: str, way: str):
    before = recording.read_bytes()
    target = recording
    if way == "symlink":
        target = tmp_path / "link.log"
        target.symlink_to(recording)
    elif way == "hard link":
        target = tmp_path / "hard.log"
        os.link(recording, target)
    elif way == "another spelling":
        target = tmp_path / ".." / tmp_path.name / "in.log"
    assert "read or written twice" in one_line(controller("sim", "--replay", str(recording), option, str(target)))
    assert recording.read_bytes() == before


def test_trace_and_plot_cannot_be_one_file(recording: Path, tmp_path: Path):
    both = str(tmp_path / "out")
    one_line(controller("sim", "--replay", str(recording), "--trace", both, "--plot", both))
    assert not (tmp_path / "out").exists()


def test_an_old_trace_stays_when_the_run_fails(tmp_path: Path):
    trace, broken = tmp_path / "trace.jsonl", tmp_path / "broken.log"
    trace.write_text("the old one")
    assert MICHAEL is not None
    lines = MICHAEL.read_text(encoding="ascii").splitlines()[:5_000]
    broken.write_text("\n".join("x" if n % 5 == 4 else line for n, line in enumerate(lines)))
    one_line(controller("sim", "--replay", str(broken), "--trace", str(trace)))
    assert trace.read_text() == "the old one"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.log", "trace.jsonl"]


@pytest.mark.parametrize("option", ["--trace", "--plot"])
def test_a_folder_that_is_not_there_is_one_line_with_its_name(recording: Path, option: str):
    assert "/no/such/folder/x" in one_line(controller("sim", "--replay", str(recording), option, "/no/such/folder/x"))


def test_a_clock_that_was_set_ahead_by_years_does_not_stop_the_run(recording: Path):
    lines = recording.read_text(encoding="ascii").splitlines()
    later = [line.replace("(1700000", "(2000000") if n >= 4_000 else line for n, line in enumerate(lines)]
    recording.write_text("\n".join(later) + "\n", encoding="ascii")
    done = controller("sim", "--replay", str(recording), "--json")
    story = json.loads(done.stdout)
    assert story["stepped_forward"] == 1
    assert story["duration_s"] < 20


@pytest.mark.parametrize(
    "arguments",
    [("sim",), ("nonsense",), ("sim", "--nonsense"), ("config", "set", "limits.max_charge_a"), ("--nonsense",)],
)
def test_wrong_use_is_one_line(arguments: tuple[str, ...]):
    one_line(controller(*arguments))


@needs_shared
def test_a_named_battery_that_says_nothing_is_one_line():
    leaf = str(LOGS / "leaf-ze1-62-drive-cells.log")
    one_line(controller("sim", "--replay", leaf, "--battery", "tesla_model3"))
    one_line(controller("log", "decode", leaf, "--as", "tesla_model3"))
    one_line(controller("log", "decode", str(LOGS / "byd-gen24-active.rtu"), "--as", "tesla_model3"))


@needs_shared
def test_a_recording_of_another_battery_than_the_named_one_is_told() -> None:
    leaf = str(LOGS / "leaf-ze1-62-drive-cells.log")
    line = one_line(controller("sim", "--replay", leaf, "--battery", "tesla_model3"))
    assert line.endswith("no tesla_model3 speaks in it; it looks like leaf")


def test_a_line_is_not_broken_however_long_the_path_is(tmp_path: Path):
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    log = folder / "m3-michael.log"
    log.write_bytes(Path(str(shipped("m3-michael.log"))).read_bytes())
    who, _ = controller("log", "identify", str(log)).stdout.splitlines()
    assert who.startswith(f"{log}: ")
    assert who.endswith("96 cells, NCA")


@needs_shared
@pytest.mark.parametrize(
    ("log", "says", "format"),
    [
        ("leaf-ze1-62-drive-cells.log", "96 cells, LMO or NCM", "candump, 41 ids in the first seconds"),
        ("tesla-m3-lfp-vehicle-bus-a.log", "106 cells, LFP", "ids in the first seconds"),
        ("byd-gen24-active.rtu", "heard: inverter and battery", "rtu"),
    ],
)
def test_what_is_in_a_recording_is_told_as_far_as_it_is_known(log: str, says: str, format: str) -> None:
    *who, form = controller("log", "identify", str(LOGS / log)).stdout.splitlines()
    assert " ".join(who).endswith(says)
    assert form.endswith(format)
    assert log.endswith(".log") or form == "rtu"


@needs_shared
def test_a_leaf_config_of_either_chemistry_is_not_doubted(tmp_path: Path) -> None:
    config, leaf = tmp_path / "c.toml", str(LOGS / "leaf-ze1-62-drive-cells.log")
    controller("config", "init", "--battery", "leaf", "--chemistry", "ncm", "-o", str(config))
    controller("config", "set", "precharge.capacitance_f", "0.001", "--config", str(config))
    controller("config", "set", "precharge.unverified_reason", "no meter", "--config", str(config))
    story = json.loads(controller("sim", "--replay", leaf, "--json", "--config", str(config)).stdout)
    assert (story["chemistry"], story["assumed"]) == ("ncm", [])


def test_a_new_config_that_lacks_more_than_one_thing_can_be_mended_in_steps(tmp_path: Path) -> None:
    config = str(tmp_path / "c.toml")
    setup = ("--battery", "juntek", "--inverter", "byd_can", "--wiring", "none")
    controller("config", "init", *setup, "-o", config)
    first = controller("config", "set", "battery.capacity_ah", "90", "--config", config)
    assert first.returncode == 0
    assert first.stderr.startswith("still to mend:\n")
    assert "battery.cells_protected_by: still to be stated: " in first.stderr
    assert "battery.capacity_ah" not in first.stderr
    controller("config", "set", "inverter.soh_pct", "85", "--config", config)
    last = controller("config", "set", "battery.cells_protected_by", "a BMS", "--config", config)
    assert (last.returncode, last.stderr) == (0, "")
    assert controller("config", "check", "--config", config).returncode == 0


@needs_shared
@pytest.mark.parametrize(
    ("name", "cells", "known"), [("tesla-m3-lfp-vehicle-bus-c", 106, 9), ("tesla-m3-bench-battery-only", 96, 3)]
)
def test_cells_are_told_one_by_one_as_far_as_they_were_seen(name: str, cells: int, known: int):
    story = json.loads(controller("sim", "--replay", str(LOGS / f"{name}.log"), "--json").stdout)
    assert len(story["cells_v"]) == cells
    assert sum(volts is not None for volts in story["cells_v"]) == known


def test_a_full_disk_is_one_line(recording: Path):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "controller", "sim", "--replay", str(recording), "--json"],
            stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT, timeout=120,
        )  # fmt: skip
    assert done.returncode == 2
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_goes_away_is_no_error():
    line = f"{sys.executable} -m controller verify | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_negative_value_can_be_set(tmp_path: Path):
    config = str(tmp_path / "c.toml")
    assert controller("config", "init", "-o", config).returncode == 0
    assert controller("config", "set", "limits.temp_min_c", "-10", "--config", config).returncode == 0


@pytest.mark.parametrize("curve", ["[[-inf,0.0],[inf,1.0]]", "[[-20,0.0],[nan,1.0],[60,0.0]]", "[[0,0],[10,nan]]"])
def test_a_curve_with_a_point_that_is_no_number_is_refused(tmp_path: Path, curve: str):
    config = str(tmp_path / "c.toml")
    controller("config", "init", "-o", config)
    before = Path(config).read_bytes()
    done = controller("config", "set", "limits.charge_over_coldest", curve, "--config", config)
    assert done.returncode == 2
    assert Path(config).read_bytes() == before


def test_two_changes_at_once_are_both_kept(tmp_path: Path):
    config = str(tmp_path / "c.toml")
    controller("config", "init", "-o", config)
    command = [sys.executable, "-m", "controller", "config", "set", "--config", config]
    both = [
        subprocess.Popen([*command, key, "7"], cwd=ROOT, stdout=subprocess.DEVNULL)
        for key in ("limits.max_charge_a", "limits.max_discharge_a")
    ]
    assert [process.wait(timeout=60) for process in both] == [0, 0]
    text = Path(config).read_text(encoding="utf-8")
    assert "max_charge_a = 7" in text
    assert "max_discharge_a = 7" in text


@needs_shared
def test_a_config_of_another_pack_is_told(tmp_path: Path):
    config = str(tmp_path / "c.toml")
    controller("config", "init", "-o", config)
    lfp = str(LOGS / "tesla-m3-lfp-vehicle-bus-a.log")
    story = json.loads(controller("sim", "--replay", lfp, "--json", "--config", config).stdout)
    assert any("106 cells" in text and "96 cells" in text for text in story["assumed"])
