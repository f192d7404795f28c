"""The loop: whatever breaks, the outputs go off in that tick, and the next one makes it a fault."""

import pytest

from controller.loop import Loop, Ports
from controller.model.events import Event
from controller.ports import CanFrame, Command, CommandKind, Inputs, Pins, RelayError
from drivers.memory import (
    HandClock,
    MemoryCan,
    MemoryEvents,
    MemoryHeartbeat,
    MemoryLink,
    MemoryPins,
    MemoryRecords,
    MemoryRegisters,
    MemoryRelays,
)
from statecharts.supervisor import WIRINGS, Contactor, State
from tests.bench import Bench

PACK = Contactor.PACK


class Rig:
    """A loop over memory ports whose core was brought to RUNNING on the bench."""

    def __init__(self, wiring: str = "own") -> None:
        bench = Bench(wiring).running()
        self.relays, self.clock, self.bus = (
            MemoryRelays(WIRINGS[wiring], blind=False),
            HandClock(bench.now_ms),
            MemoryCan(),
        )
        self.relays.history.append(bench.closed - {PACK})
        self.events, records = MemoryEvents(), MemoryRecords()
        records.record = bench.stored
        self.link, self.heartbeat = MemoryLink(), MemoryHeartbeat()
        ports = Ports(
            self.bus, self.relays, self.clock, self.events, records, pins=MemoryPins(Pins(True, True)), link=self.link,
            heartbeat=self.heartbeat,
        )  # fmt: skip
        self.loop = Loop(bench.state, ports)
        self.tick()
        self.bus.outbox.clear()

    def tick(self, after_ms: int = 10) -> None:
        self.clock.ms += after_ms
        self.link.newest = (360.0, self.clock.ms)
        self.loop.tick()

    @property
    def state(self) -> State:
        return self.loop.state.supervisor.state

    def told(self) -> set[Event]:
        return {notice.id for _, notice in self.events.seen}


def test_a_healthy_loop_goes_on_running():
    rig = Rig()
    for _ in range(100):
        rig.tick()
    assert rig.state is State.RUNNING
    assert rig.told() == set()


@pytest.mark.requirement("I7", "cause:exception")
def test_an_exception_in_a_port_switches_everything_off_in_that_tick_and_faults_in_the_next():
    rig = Rig()
    rig.bus.receive = lambda: 1 / 0  # type: ignore[method-assign, assignment, return-value]
    rig.tick()
    assert rig.relays.history[-1] == frozenset()
    assert isinstance(rig.loop.error, ZeroDivisionError)
    rig.bus.receive = lambda: ()  # type: ignore[method-assign]
    rig.tick()
    assert rig.loop.error is None
    assert Event.EXCEPTION in rig.told()
    assert rig.state is not State.RUNNING


@pytest.mark.requirement("I7", "cause:exception", "cause:tick-overrun")
def test_what_a_broken_tick_was_told_reaches_the_next_one():
    rig = Rig()
    rig.loop.commands.append(Command(CommandKind.STOP))
    rig.bus.receive = lambda: 1 / 0  # type: ignore[method-assign, assignment, return-value]
    rig.tick(after_ms=500)
    rig.tick()
    rig.bus.receive = lambda: ()  # type: ignore[method-assign]
    seen: list[Inputs] = []
    rig.loop.recorder = lambda inputs, now_ms: seen.append(inputs)
    rig.tick()
    rig.tick()
    assert set(seen[0].breakdowns) == {Event.EXCEPTION, Event.TICK_LATE, Event.TICK_OVERRUN}
    assert len(seen[0].breakdowns) == 3
    assert seen[0].commands == (Command(CommandKind.STOP),)
    assert (seen[1].breakdowns, seen[1].commands) == ((), ())


@pytest.mark.requirement("I10", "cause:exception")
@pytest.mark.parametrize("breaks", ["receive", "send"])
def test_a_tick_that_broke_withdraws_what_the_inverter_was_told(breaks: str, monkeypatch: pytest.MonkeyPatch):
    rig = Rig("pack+inverter")
    rig.loop.ports.registers = registers = MemoryRegisters()
    registers.publish({301: (3,)})
    monkeypatch.setattr(rig.bus, breaks, lambda *_: 1 / 0)
    rig.tick()
    assert isinstance(rig.loop.error, ZeroDivisionError)
    assert registers.blocks == {}


@pytest.mark.requirement("I7", "cause:relay-failed")
def test_a_relay_board_that_fails_is_switched_off_and_no_frame_asks_the_pack_to_close():
    rig = Rig("pack+inverter")
    writes = []

    def write(closed: frozenset[Contactor]) -> None:
        writes.append(closed)
        if closed:
            raise RelayError("board: no answer")

    rig.relays.write = write  # type: ignore[method-assign]
    rig.tick()
    assert writes[-1] == frozenset()
    assert rig.bus.outbox == []
    rig.tick()
    assert Event.RELAY_FAILED in rig.told()
    assert PACK not in rig.loop.state.gate.closed


def test_one_tick_fifty_milliseconds_late_is_an_event_and_goes_on():
    rig = Rig()
    rig.tick(after_ms=70)
    rig.tick()
    assert Event.TICK_LATE in rig.told()
    assert rig.state is State.RUNNING


@pytest.mark.requirement("cause:tick-overrun")
def test_a_tick_more_than_two_hundred_milliseconds_late_opens():
    rig = Rig()
    rig.tick(after_ms=220)
    rig.tick()
    assert Event.TICK_OVERRUN in rig.told()
    assert rig.state is not State.RUNNING


def test_five_late_ticks_in_a_second_open():
    rig = Rig()
    for _ in range(5):
        rig.tick(after_ms=70)
    rig.tick()
    assert Event.TICK_OVERRUN in rig.told()


def test_frames_reach_the_bus_while_everything_is_well():
    rig = Rig("pack+inverter")
    rig.tick()
    assert rig.bus.outbox == [CanFrame(0x100, b"\x01")]
