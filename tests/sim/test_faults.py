"""Each fault does what it says, on frames or parts, and everything is as before when it ends."""

import random

import pytest

from controller.model.battery import PackContactor
from controller.ports import CanFrame, CommandKind
from sim import faults
from sim.faults import (
    AnotherCar,
    BusOff,
    Corruption,
    Delay,
    Duplication,
    Frozen,
    Loss,
    MissingPage,
    OnTheWire,
    Reordering,
    Weld,
    draw,
    kinds,
)
from sim.garage import FROM_PACK, Build, Garage
from sim.plain_pack import sealed
from statecharts.supervisor import Contactor, State

OWN, TESLA = Build("own", hurried=True), Build("pack", "tesla", hurried=True)
LEAF = Build("own", "leaf", inverter="gen24")


def passed(fault: OnTheWire, *frames: CanFrame, at_ms: int = 10) -> list[CanFrame]:
    """What comes out of a wire with this fault in it."""
    garage = Garage(OWN)
    fault.begin(garage)
    (wire,) = garage.wires[FROM_PACK]
    return wire(list(frames), at_ms)


FRAME = CanFrame(0x100, sealed(bytes(range(7))), 10)


def test_loss_loses_its_share():
    assert passed(Loss(share=1.0), FRAME) == []
    assert len(passed(Loss(share=0.5, seed=1), *[FRAME] * 1000)) == pytest.approx(500, abs=60)


def test_only_the_named_ids_are_touched():
    other = FRAME._replace(id=0x101)
    assert passed(Loss(ids=(0x100,)), FRAME, other) == [other]


def test_a_delayed_frame_comes_later_with_its_new_stamp():
    garage, fault = Garage(OWN), Delay(delay_ms=50)
    fault.begin(garage)
    (wire,) = garage.wires[FROM_PACK]
    assert wire([FRAME], 10) == []
    assert wire([], 50) == []
    assert wire([], 60) == [FRAME._replace(at_ms=60)]


def test_duplicated_frames_come_twice():
    assert passed(Duplication(share=1.0), FRAME) == [FRAME, FRAME]


def test_reordered_frames_all_come_in_another_order():
    garage, fault = Garage(OWN), Reordering(ticks=5, seed=3)
    fault.begin(garage)
    (wire,) = garage.wires[FROM_PACK]
    sent = [FRAME._replace(id=n) for n in range(8)]
    assert wire(sent[:4], 10) == []
    came = wire(sent[4:], 50)
    assert [f.id for f in came] != list(range(8))
    assert sorted(f.id for f in came) == list(range(8))


@pytest.mark.parametrize("mended", [False, True])
def test_a_corrupt_frame_has_one_bit_turned_and_a_checksum_only_where_it_says(mended: bool):
    (frame,) = passed(Corruption(share=1.0, sealed=mended, seed=2), FRAME)
    assert frame.data != FRAME.data or mended
    assert (frame.data == sealed(frame.data[:7])) is mended


def test_a_frozen_id_repeats_itself_page_by_page():
    garage, fault = Garage(OWN), Frozen()
    fault.begin(garage)
    (wire,) = garage.wires[FROM_PACK]
    one, two = CanFrame(0x101, bytes([0, 1])), CanFrame(0x101, bytes([1, 7]))
    assert wire([one, two], 10) == [one, two]
    assert wire([one._replace(data=bytes([0, 9])), two], 20) == [one, two]


def test_one_page_is_missing_and_the_others_come():
    pages = [CanFrame(0x332, bytes([mux | 0xF0, 0])) for mux in (0, 1)]
    assert passed(MissingPage(ids=(0x332,), mux=1), *pages) == pages[:1]


def test_another_cars_frames_refresh_nothing():
    garage = Garage(OWN).plan(Loss(3_000, 9_000), AnotherCar(3_000, 9_000)).run_ms(4_000)
    assert garage.state.pack.pack_voltage_v is None


def test_a_bus_that_is_off_passes_nothing_and_is_told_of():
    garage = Garage(TESLA).plan(BusOff(3_000, 5_000)).run_ms(4_000)
    assert garage.state.pack.pack_voltage_v is None
    assert "bus-failed" in {notice.id.value for _, notice in garage.notices}
    garage.run_ms(3_000)
    assert garage.state.pack.contactor_state is PackContactor.OPEN


def test_of_two_faults_at_one_part_the_last_counts_and_both_leave_nothing_behind():
    garage = Garage(OWN).plan(faults.Resistor(0, 200, ohm=5.0), faults.Resistor(50, 300, ohm=9.0)).run_ms(100)
    assert garage.plant.precharge_ohm == 9.0
    garage.run_ms(300)
    assert garage.plant.precharge_ohm == OWN.precharge_ohm


def test_a_weld_holds_the_relay_closed_until_it_ends():
    garage = Garage(OWN).plan(Weld(100, 200, member=Contactor.POSITIVE)).run_ms(150)
    assert garage.closed[Contactor.POSITIVE]
    assert not garage.run_ms(100).closed[Contactor.POSITIVE]


@pytest.mark.parametrize("build", [OWN, TESLA, Build("pack+inverter", "tesla"), Build("none"), LEAF],
                         ids=lambda b: f"{b.wiring} {b.pack}")  # fmt: skip
def test_every_kind_of_fault_begins_and_ends_in_this_garage_and_it_can_be_healed(build: Build):
    garage, dice = Garage(build), random.Random(1)
    for n, make in enumerate(kinds(build).values()):
        fault = make(dice, build)
        fault.begin_ms, fault.end_ms = 100 * n, 100 * n + 60
        garage.plan(fault)
    garage.run_ms(100 * len(kinds(build)))
    before = vars(Garage(build).plant)
    after = vars(garage.end_all().plant)
    kept = ("precharge_ohm", "bleed_ohm", "load_a", "fuse_blown")
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    assert garage.wires == {wire: [] for wire in garage.wires}


def test_the_same_chance_draws_the_same_faults_and_another_one_others():
    lines = [list(map(str, draw(random.Random(seed), OWN, 60_000))) for seed in (5, 5, 6, 7, 8)]
    assert lines[0] == lines[1]
    assert len({tuple(line) for line in lines}) > 2


def test_a_person_who_insists_gets_it_running_again_after_a_fault_that_is_over():
    garage = Garage(OWN).ask(CommandKind.ENABLE)
    garage.plan(faults.Complaint(4_000, 5_000, complaint="fault"), faults.Insists(0, 60_000)).run_ms(7_000)
    assert any(change.state is State.FAULT for change in garage.states)
    assert garage.until(State.RUNNING)
