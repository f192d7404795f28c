"""The live loop: how it ends, what it tells, what overload takes. In simulated time."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller import core
from controller.batteries.tesla_model3 import OFF, POWER_ID
from controller.inverters.registry import INVERTERS
from controller.live import AT_ONCE, OVERRUN, RESTLESS, STOPPED, STORE_MS, Lateness
from controller.model.events import Event
from controller.ports import CanFrame, Inputs, Record
from statecharts.supervisor import Contactor, State
from tests.controller.live_rig import Rig

BYD = INVERTERS["byd_modbus"]
NOTHING: frozenset[Contactor] = frozenset()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    rig.link.close()


def ended(rig: Rig, within: int = 6_000) -> Rig:
    for _ in range(within):
        if rig.ended is not None:
            return rig
        rig.turns()
    raise AssertionError(f"still {rig.state}")


# --- how it ends ---


def test_a_stop_unloads_opens_and_waits_for_the_verdict_and_its_record(rig: Rig):
    rig.running()
    rig.live.signals(15, None)
    ended(rig)
    assert rig.ended == STOPPED
    assert rig.state is State.STANDBY
    assert [line for line in rig.told() if line.startswith("state-changed")][-3:] == [
        "state-changed: RUNNING → UNLOADING: service-stop",
        "state-changed: UNLOADING → VERIFYING_OPEN: unloaded",
        "state-changed: VERIFYING_OPEN → STANDBY: open-checked",
    ]
    assert rig.records.record is not None
    assert not rig.records.record.closed
    assert "STOPPING=1" in rig.systemd.heard


def test_a_stop_at_rest_ends_at_once(rig: Rig):
    rig.until(State.STANDBY).live.signals(15, None)
    rig.turns(3)
    assert rig.ended == STOPPED


def test_a_second_stop_opens_at_once(rig: Rig):
    rig.running()
    rig.bus.pack.step = lambda now_ms, load_a=0.0: []  # type: ignore[method-assign,misc]  # it never says OPEN
    rig.live.signals(15, None)
    rig.turns(2)
    rig.live.signals(2, None)
    rig.turns(1)
    assert rig.ended == AT_ONCE


def test_a_disk_that_fails_does_not_hold_up_a_stop(rig: Rig):
    rig.running()
    rig.records.full = True
    rig.live.signals(15, None)
    ended(rig)
    assert rig.ended == STOPPED
    assert rig.records.record is not None
    assert rig.records.record.closed  # the next start checks for a weld
    verdict_ms = next(at for at, notice in reversed(rig.events.seen) if notice.id is Event.STATE_CHANGED)
    assert rig.clock.ms - verdict_ms >= STORE_MS


def test_an_opening_that_cannot_be_verified_ends_as_failed(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    rig.running()
    monkeypatch.setattr(core, "step", broken)
    rig.live.signals(15, None)
    ended(rig)
    assert rig.ended == RESTLESS
    assert rig.relays.history[-1] == NOTHING


def test_a_tick_far_too_late_opens_and_ends_as_failed(rig: Rig):
    rig.running()
    rig.pace.late_ms = 250
    rig.turns()
    assert rig.relays.history[-1] == NOTHING
    ended(rig)
    assert rig.ended == OVERRUN
    assert rig.records.record is not None
    assert rig.records.record.latched == ("tick-overrun",)


def test_the_next_start_holds_it_and_does_not_end_again(tmp_path: Path):
    rig = Rig(tmp_path, record=Record(seq=3, latched=("tick-overrun",))).turns(500)
    assert rig.state is State.FAULT
    assert rig.ended is None
    rig.link.close()


def test_a_late_tick_is_told_and_not_caught_up(rig: Rig):
    rig.running()
    before = len(rig.decided)
    rig.pace.late_ms = 60
    rig.turns(10)
    assert len(rig.decided) == before + 10
    assert any(line.startswith("tick-late") for line in rig.told())
    assert rig.state is State.RUNNING


def broken(*_: object) -> None:
    raise ZeroDivisionError


def test_an_exception_opens_in_its_tick_and_the_program_goes_on_in_fault(rig: Rig):
    rig.running()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(core, "step", broken)
        rig.turns()
    assert rig.relays.history[-1] == NOTHING
    rig.until(State.FAULT)
    assert rig.ended is None
    assert rig.live.status(rig.clock.ms)["faults"][0]["id"] == "exception"


def test_the_watchdog_is_not_fed_by_a_tick_that_failed(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    rig.turns(300)
    assert rig.systemd.heard.count("WATCHDOG=1") == 6
    monkeypatch.setattr(core, "step", broken)
    rig.turns(300)
    assert rig.systemd.heard.count("WATCHDOG=1") == 6


def test_it_is_ready_after_its_first_healthy_tick(rig: Rig):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(core, "step", broken)
        rig.turns(5)
        assert "READY=1" not in rig.systemd.heard
    rig.turns(5)
    assert rig.systemd.heard.count("READY=1") == 1


def test_whatever_ends_the_loop_the_outputs_are_off_and_it_is_told(rig: Rig):
    rig.running()
    rig.relays.history.append(frozenset({Contactor.POSITIVE}))

    def gone() -> int:
        raise MemoryError

    rig.pace.wait = gone  # type: ignore[method-assign]
    with pytest.raises(MemoryError):
        rig.live.run()
    assert rig.relays.history[-1] == NOTHING
    assert rig.told()[-1] == "ended: it failed"


FAULT_CODE = 4
"""Register 301, byd_modbus."""


def served(rig: Rig) -> Mapping[str, float | str]:
    return BYD.explain(rig.live.loop.ports.registers.blocks)[301]  # type: ignore[union-attr]


def fails(rig: Rig) -> list[CanFrame]:
    """A running loop ends with an exception; what the pack is told in that."""
    told: list[CanFrame] = []
    rig.running()
    rig.bus.send = told.extend  # type: ignore[method-assign, assignment]
    rig.pace.wait = lambda: 1 / 0  # type: ignore[method-assign, assignment, return-value]
    with pytest.raises(ZeroDivisionError):
        rig.live.run()
    return told


def test_an_end_by_failure_tells_the_pack_off_and_the_inverter_fault_and_no_power(rig: Rig):
    told = fails(rig)
    assert [frame.data in OFF[1] for frame in told if frame.id == POWER_ID] == [True]
    assert served(rig)["status"] == FAULT_CODE
    assert (served(rig)["max_charge_w"], served(rig)["max_discharge_w"]) == (0, 0)


def test_a_pack_that_cannot_be_told_does_not_keep_it_from_the_inverter(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("controller.live._off", broken)
    assert fails(rig) == []
    assert served(rig)["status"] == FAULT_CODE


def test_a_stop_that_ends_at_rest_tells_no_fault(rig: Rig):
    rig.until(State.STANDBY).live.signals(15, None)
    assert rig.live.run() == 0
    assert served(rig)["status"] != FAULT_CODE


def test_listening_only_ends_at_once_whatever_the_pack_does(tmp_path: Path):
    rig = Rig(tmp_path, shadow=True).turns(500)
    assert rig.ask(do="enable")["why"] == "this pack answers to somebody else"
    rig.live.signals(15, None)
    rig.turns(3)
    assert rig.ended == STOPPED
    assert all(not outputs.closed and not outputs.battery_frames for outputs in rig.decided)
    rig.link.close()


# --- what only tells opens nothing ---


@pytest.mark.parametrize("part", ["controller.link.Link.poll", "controller.status.status", "controller.status.headline",
                                  "controller.link.Link.answer"])  # fmt: skip
def test_telling_that_breaks_opens_nothing_and_is_told_once(part: str, rig: Rig, monkeypatch: pytest.MonkeyPatch):
    rig.running()
    with rig.connect() as watching:
        watching.ask(do="watch", every_ms=200)
        watching.say(b'{"version":1,"do":"cap","charge_w":0,"for_s":60}\n')
        monkeypatch.setattr(part, broken)
        rig.turns(500)
    assert rig.state is State.RUNNING
    assert rig.ended is None
    assert rig.live.loop.error is None
    assert [line for line in rig.told() if line.startswith("telemetry")] == ["telemetry-failed: ZeroDivisionError()"]


def test_a_status_that_breaks_keeps_no_garbage_uncollected(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    rig.turns(200)
    with rig.connect() as watching:
        watching.ask(do="watch", every_ms=200)
        monkeypatch.setattr("controller.status.status", broken)
        rig.trouble = "the disk"
        rig.turns(200)
    assert "record-not-stored: the disk" in rig.told()


def test_a_command_of_a_tick_that_broke_is_told_so_and_not_handed_to_the_core_again(rig: Rig):
    rig.until(State.STANDBY)
    with pytest.MonkeyPatch.context() as patch, rig.connect() as client:
        patch.setattr(core, "step", broken)
        assert "ask again" in client.ask(do="enable")["why"]
        assert rig.live.loop.commands == []
        patch.undo()
        rig.turns(10)
        assert not rig.live.loop.state.supervisor.enabled
        assert client.ask(do="enable")["done"]
    assert rig.live.loop.state.supervisor.enabled


# --- what it tells ---


def test_lines_the_journal_did_not_take_are_in_the_status(rig: Rig):
    assert rig.live.status(0)["events_lost"] is None
    rig.events.lost = 7  # type: ignore[attr-defined]
    assert rig.live.status(0)["events_lost"] == 7


def test_every_tick_s_inputs_are_shown_to_a_recorder(rig: Rig):
    seen: list[tuple[Inputs, int]] = []
    rig.live.loop.recorder = lambda inputs, now_ms: seen.append((inputs, now_ms))
    rig.turns(100)
    assert [now_ms for _, now_ms in seen] == list(range(10, 1_010, 10))
    assert any(inputs.battery_frames for inputs, _ in seen)


def test_a_record_that_cannot_be_stored_is_told_once_and_when_it_can_again(rig: Rig):
    rig.trouble = "the record cannot be stored: No space left on device"
    rig.turns(300)
    rig.trouble = ""
    rig.turns(300)
    told = [line for line in rig.told() if line.startswith("record-not-stored")]
    assert told == [
        "record-not-stored: the record cannot be stored: No space left on device", "record-not-stored: cleared",
    ]  # fmt: skip


def test_the_status_is_json_and_says_nothing_that_is_not_known(rig: Rig):
    status = json.loads(json.dumps(rig.turns(1).live.status(rig.clock.ms), allow_nan=False))
    assert status["state"] == "STARTING"
    assert set(status["signals"].values()) == {None}
    assert status["limits"]["charge_w"] == 0
    assert status["faults"] == []


def test_the_status_of_a_running_pack(rig: Rig):
    rig.running()
    status = rig.live.status(rig.clock.ms)
    assert (status["state"], status["cause"], status["closed"]) == ("RUNNING", "pack-closed", ["pack"])
    assert status["limits"] == {
        "charge_w": 5000, "discharge_w": 5000, "charge_by": "max_power_w", "discharge_by": "max_power_w"
    }  # fmt: skip
    assert 0 <= status["ages_s"]["pack_voltage_v"] < 0.1
    assert status["closings"]["hour"] == 1
    assert status["inverter"]["says"]["301"]["status"] == 3
    assert status["inverter"]["registers"]["301"][0] == 3
    assert status["record"] == {"seq": 1, "stored_seq": 1, "stored": True, "trouble": None}
    assert len(status["cells_v"]) == 96
    assert [event["id"] for event in status["events"]][-1] == "state-changed"


def test_each_cause_in_the_status_says_what_to_do(rig: Rig):
    rig.running()
    rig.bus.pack.hvil_open()
    rig.until(State.FAULT)
    fault = rig.live.status(rig.clock.ms)["faults"][0]
    assert fault["id"] == "hvil-open"
    assert fault["held"]
    assert "acknowledge hvil-open" in fault["do"]
    assert any("held by hvil-open" in line for line in rig.turns(200).systemd.heard)


# --- lateness ---


@given(st.lists(st.integers(0, 2_000_000), min_size=1, max_size=200), st.sampled_from([0.5, 0.99, 0.999]))
def test_a_share_of_the_lateness_is_right_to_an_eighth(late_us: list[int], share: float):
    lateness = Lateness()
    for us in late_us:
        lateness.add(us)
    exact = sorted(late_us)[min(len(late_us) - 1, max(0, -(-int(share * 1000 * len(late_us)) // 1000) - 1))]
    assert exact <= lateness.within_us(share) <= exact * 9 / 8 + 1
    assert lateness.max_us == max(late_us)
