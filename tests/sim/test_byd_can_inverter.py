"""The inverter at the other end, against what a Sungrow and a GoodWe were recorded to say."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import sim.byd_can_inverter
from controller.ports import CanFrame
from sim.byd_can_inverter import WANTED, BydCanInverter
from sim.recording import open_recording
from tests.shared import LOGS, needs_shared

TICK_MS = 10
IDENTITY = [CanFrame(can_id, bytes([part]) + bytes(7)) for can_id, part in sorted(WANTED)]
LIMITS = CanFrame(0x110, bytes.fromhex("06D804B00190012C"))  # 40 A out, 30 A in
STATE = CanFrame(0x150, bytes.fromhex("22D8271001E1021C"))
READY = CanFrame(0x1D0, bytes.fromhex("061AFF7F00AA0308"))


def living(brand: str = "SUNGROW") -> BydCanInverter:
    """It knows its battery and is at work."""
    inverter = BydCanInverter(brand)
    inverter.step(0, [*IDENTITY, LIMITS, STATE, READY], 155.6, -12.9)
    return inverter


def run_ms(
    inverter: BydCanInverter, begin_ms: int, duration_ms: int, *frames: CanFrame, volts: float = 155.6
) -> list[tuple[int, CanFrame]]:
    """The frames come every 2 s."""
    return [
        (now_ms, frame)
        for now_ms in range(begin_ms, begin_ms + duration_ms, TICK_MS)
        for frame in inverter.step(now_ms, frames if now_ms % 2_000 == 0 else (), volts, -12.9)
    ]


@needs_shared
def test_a_goodwe_greets_as_recorded() -> None:
    greeting = {(frame.id, frame.data) for frame in BydCanInverter("GOODWE").step(0, ())}
    assert {(frame.id, frame.data) for _, frame in open_recording(LOGS / "goodwe-hello.log")} <= greeting


def test_it_greets_every_second_until_it_knows_its_battery() -> None:
    inverter = BydCanInverter()
    said = run_ms(inverter, 0, 5_000)
    assert {frame.id for _, frame in said} == {0x151, 0x191}
    assert [at_ms for at_ms, frame in said if frame.id == 0x191] == [0, 1_000, 2_000, 3_000, 4_000]
    inverter.step(5_000, IDENTITY[:-1])
    assert not inverter.works
    inverter.step(5_010, IDENTITY[-1:])
    assert inverter.works
    assert {frame.id for _, frame in run_ms(inverter, 5_020, 12_000, LIMITS)} == {0x091, 0x0D1, 0x111}


def recorded() -> list[tuple[float, CanFrame]]:
    return [(us / 1000, frame) for us, frame in open_recording(LOGS / "byd-sungrow-discharge-30min.log")]


def u16(data: bytes) -> int:
    return int.from_bytes(data[:2], "big")


@needs_shared
def test_told_and_measuring_what_the_recorded_sungrow_did_it_says_the_same() -> None:
    """Voltage and current to the bit, the SoC to 0.1 %."""
    state, measured, compared = None, None, 0
    for _, frame in recorded():
        state = frame if frame.id == 0x150 else state
        measured = frame.data if frame.id == 0x091 else measured
        if frame.id != 0x0D1 or state is None or measured is None:
            continue
        inverter = BydCanInverter()
        volts, amps = u16(measured) / 10, -u16(measured[2:]) / 10
        said = [*inverter.step(0, [*IDENTITY, state], volts, amps), *inverter.step(50, (), volts, amps)]
        mine = {frame.id: frame.data for frame in said}
        assert mine[0x091][:4] == measured[:4]
        assert abs(u16(mine[0x0D1]) - u16(frame.data)) <= 1
        assert mine[0x0D1][2:] == frame.data[2:]
        compared += 1
    assert compared == 180


@needs_shared
def test_it_reports_in_the_recorded_rhythm() -> None:
    theirs = [(at_ms, frame.id) for at_ms, frame in recorded() if frame.id in (0x091, 0x0D1, 0x111)]
    inverter = living()
    ours = [(at_ms, frame.id) for at_ms, frame in run_ms(inverter, 10, 60_000, LIMITS)][2:]
    assert [can_id for _, can_id in ours] == [can_id for _, can_id in theirs[: len(ours)]]
    begin = theirs[0][0] - ours[0][0]
    assert len(ours) >= 15
    for (mine_ms, _), (their_ms, _) in zip(ours, theirs, strict=False):
        assert mine_ms == pytest.approx(their_ms - begin, abs=10)


def test_limits_are_currents_at_the_voltage_it_measures_and_discharge_comes_first() -> None:
    inverter = living()
    assert (inverter.discharge_limit_w, inverter.charge_limit_w) == (6_224.0, 4_668.0)
    assert inverter.sees_ready


@pytest.mark.parametrize(("wish_w", "power_w"), [(9_000.0, 4_668.0), (-9_000.0, -6_224.0), (1_000.0, 1_000.0)])
def test_it_takes_what_it_wants_within_its_limits(wish_w: float, power_w: float) -> None:
    inverter = living()
    inverter.wish_w = wish_w
    assert inverter.power_w == power_w


def test_one_that_ignores_limits_takes_what_it_wants() -> None:
    inverter = living()
    inverter.wish_w, inverter.ignores_limits = 9_000.0, True
    assert inverter.power_w == 9_000.0


def test_it_takes_nothing_from_a_dead_link_or_a_battery_that_is_not_ready() -> None:
    inverter = living()
    inverter.wish_w = 1_000.0
    inverter.step(10, (), 0.0)
    assert inverter.power_w == 0.0
    inverter.step(20, [READY._replace(data=bytes.fromhex("061AFF7F00AA0208"))], 155.6)
    assert inverter.power_w == 0.0


def test_it_gives_the_battery_up_30_seconds_after_its_last_frame_and_greets_again() -> None:
    inverter = living()
    run_ms(inverter, 10, 10_000, LIMITS)
    assert {frame.id for _, frame in run_ms(inverter, 10_010, 30_000)} == {0x091, 0x0D1, 0x111}
    assert not inverter.battery_lost
    said = run_ms(inverter, 40_010, 1_000)
    assert inverter.battery_lost
    assert (inverter.charge_limit_w, inverter.power_w) == (0.0, 0.0)
    assert {frame.id for _, frame in said} == {0x151, 0x191}


def test_foreign_frames_do_not_keep_the_battery() -> None:
    inverter = living()
    run_ms(inverter, 10, 31_000, CanFrame(0x132, bytes(8)), CanFrame(0x110, bytes(4)))
    assert inverter.battery_lost


def test_after_a_reboot_it_is_silent_for_a_while_and_knows_nothing() -> None:
    inverter = living()
    inverter.reboot(1_000)
    assert run_ms(inverter, 1_000, 20_000, LIMITS) == []
    assert not inverter.works
    assert {frame.id for _, frame in run_ms(inverter, 21_000, 100)} == {0x151, 0x191}


def test_a_silent_one_says_nothing() -> None:
    inverter = living()
    inverter.silent = True
    assert run_ms(inverter, 10, 60_000, LIMITS) == []


def test_the_peer_imports_nothing_of_the_code_it_tests() -> None:
    tree = ast.parse(Path(sim.byd_can_inverter.__file__).read_text("utf-8"))
    ours = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name for name in ours if name and name.startswith("controller")} == {"controller.ports"}
