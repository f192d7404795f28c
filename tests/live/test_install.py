"""install.sh: what it refuses to stop, with a systemd, a controller and a /proc that a test speaks for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from controller.ports import Record
from drivers.record_files import OsDisk, write_copies

ROOT = Path(__file__).parents[2]
SCRIPT = (ROOT / "install.sh").read_text()
CONTROL, TWO = "packwarden-control.service", "packwarden-control@two.service"


class Machine:
    """units: name → "ACTIVE/SUB". statuses: control socket → what `controller status --json` prints there."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.units, self.statuses = folder, dict[str, str](), dict[str, str]()
        self.by_hand: list[str] = []
        self.bin, self.state = folder / "current" / "bin", folder / "state"
        self.bin.mkdir(parents=True)
        self.state.mkdir()
        self._program("python", f'PYTHONPATH={ROOT} exec {sys.executable} "$@"')
        self._program("controller", f'[ "$2 $3" = "--json --socket" ] && cat "{folder}/status$4"')
        for name in ("rm", "userdel"):  # were a refusal missing, this machine keeps its files
            self._program(name, f'echo "{name} $*" >>{folder}/asked')
        self._program("systemctl", f'echo "$*" >>{folder}/asked\n[ "$1" != list-units ] || cat {folder}/units')

    def _program(self, name: str, text: str) -> None:
        (self.bin / name).write_text(f"#!/bin/sh\n{text}\n")
        (self.bin / name).chmod(0o755)

    def runs(self, unit: str, **status: Any) -> None:
        name = unit.removeprefix("packwarden-control").removesuffix(".service").replace("@", "-")
        self.units[unit] = "active/running"
        said = {"state": "STANDBY", "closed": [], "faults": []} | status
        self.statuses[f"/run/packwarden{name}/control.sock"] = json.dumps(said)

    def does(self, call: str) -> subprocess.CompletedProcess[str]:
        """One function of the script, with everything it knows."""
        rows = (
            f"{unit} loaded {at.replace('/', ' ')} packwarden battery controller\n" for unit, at in self.units.items()
        )
        (self.folder / "units").write_text("".join(rows))
        for socket, said in self.statuses.items():
            place = Path(f"{self.folder}/status{socket}")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(said)
        unix = "".join(
            f"0000: 00000002 00000000 00010000 0001 01 31 @packwarden socket {name}\n"
            for name in (*self.statuses, *self.by_hand)
        )
        (self.folder / "unix").write_text("Num RefCount Path\n" + unix)
        functions = SCRIPT.partition('\ncheck_machine "$@"\n')[0]
        for old, new in (
            ("HOME_DIR=/opt/packwarden", f"HOME_DIR={self.folder}"),
            ("STATE_DIR=/var/lib/packwarden", f"STATE_DIR={self.state}"),
            ("/proc/net/unix", f"{self.folder}/unix"),
        ):  # fmt: skip
            assert old in functions
            functions = functions.replace(old, new)
        path = f"{self.bin}:/usr/bin:/bin"
        return subprocess.run(
            ["sh", "-c", f"{functions}\n{call}\necho done ${{running:-}}", "install.sh"], env={"PATH": path}, cwd=ROOT,
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    def refuses(self, call: str = "refuse_while_closed") -> str:
        """The sentence; an assertion fails when it does not refuse."""
        done = self.does(call)
        assert (done.returncode, done.stdout) == (2, ""), done
        assert done.stderr.startswith("install: ")
        assert not self.asked("rm ")
        return done.stderr

    def asked(self, what: str) -> bool:
        asked = self.folder / "asked"
        return asked.exists() and what in asked.read_text()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_it_goes_on_where_nothing_runs_and_where_every_pack_is_open(machine: Machine):
    assert machine.does("refuse_while_closed").stdout == "done\n"
    machine.units[CONTROL] = "inactive/dead"
    machine.runs(TWO, state="LOCKED_OUT", faults=[{"id": "record-lost"}])
    assert machine.does("refuse_while_closed").stdout == f"done {TWO}\n"


@pytest.mark.parametrize("unit", [CONTROL, TWO])
@pytest.mark.parametrize(
    ("status", "why"),
    [
        ({"state": "RUNNING", "closed": ["pack"]}, "state RUNNING, pack closed"),
        ({"state": "UNLOADING"}, "state UNLOADING"),
        ({"state": "FAULT", "closed": ["positive"]}, "positive closed"),
        ({"state": "FAULT", "faults": [{"id": "relay-failed"}]}, "relay-failed"),
        ({"state": "FAULT", "faults": [{"id": "feedback-mismatch"}]}, "feedback-mismatch"),
        ({"state": "LOCKED_OUT", "faults": [{"id": "weld-measured"}]}, "weld-measured"),
    ],
)
def test_a_pack_that_may_not_be_open_is_not_stopped(machine: Machine, unit: str, status: dict[str, Any], why: str):
    machine.runs(CONTROL)
    machine.runs(unit, **status)
    said = machine.refuses()
    assert f"the pack of {unit} may not be open (" in said
    assert why in said


def test_one_that_does_not_answer_is_not_stopped(machine: Machine):
    machine.units[CONTROL] = "active/running"
    assert "does not tell its state" in machine.refuses()


@pytest.mark.parametrize(
    "at", ["activating/auto-restart", "activating/start", "deactivating/stop-sigterm", "failed/failed"]
)
def test_one_that_comes_or_goes_or_has_failed_is_not_stopped(machine: Machine, at: str):
    machine.units[TWO] = at
    assert f"{TWO} is {at}: systemctl stop {TWO}" in machine.refuses()


def test_a_controller_started_by_hand_is_not_passed_over(machine: Machine):
    machine.runs(CONTROL)
    machine.by_hand = ["/tmp/mine.sock"]
    assert "started by hand runs (/tmp/mine.sock)" in machine.refuses()


def test_what_still_runs_after_it_was_stopped_keeps_its_files(machine: Machine):
    machine.runs(CONTROL)
    assert f"not every service ended: {CONTROL} is active" in machine.refuses("stop_all")
    machine.units[CONTROL] = "failed/failed"
    assert machine.does("stop_all").returncode == 0
    assert machine.asked("stop packwarden-gateway.service packwarden-control*")


def test_it_is_not_taken_away_while_another_pack_runs(machine: Machine):
    machine.runs(TWO)
    assert f"more packs run: {TWO}" in machine.refuses("uninstall")
    assert not machine.asked("stop")


@pytest.mark.parametrize("place", ["", "two"])
@pytest.mark.parametrize(
    ("record", "why"),
    [
        (Record(locked_out=True), "locked out"),
        (Record(latched=("weld-measured",)), "weld-measured"),
        (Record(closed=True), "closed"),
    ],
)
def test_a_lock_out_is_not_forgotten_by_purging_its_record(machine: Machine, place: str, record: Record, why: str):
    (machine.state / place).mkdir(exist_ok=True)
    write_copies(OsDisk(machine.state / place), record)
    assert f"{machine.state / place}: {why}" in machine.refuses("uninstall --purge")
    assert not machine.asked("stop")


def test_a_spoilt_record_is_not_purged_and_a_harmless_or_an_absent_one_is(machine: Machine):
    assert machine.does("refuse_to_forget").returncode == 0
    write_copies(OsDisk(machine.state), Record(seq=3))
    assert machine.does("refuse_to_forget").returncode == 0
    for name in ("record-a", "record-b"):
        (machine.state / name).write_bytes(b"\0" * 100)
    assert "is damaged" in machine.refuses("refuse_to_forget")
