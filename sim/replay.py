"""Runs a recording of a pack through the whole controller, in shadow: the pack in it answers to somebody else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TextIO

from controller import core
from controller.batteries.base import BatteryProtocol
from controller.inverters.base import InverterProtocol
from controller.loop import TICK_MS, Loop, Ports
from controller.model.battery import SIGNALS
from controller.model.events import Notice
from controller.model.settings import Settings
from controller.ports import CanFrame, Outputs
from controller.safety.envelope import Limits
from controller.safety.situation import missing_feeds
from controller.trace import Trace
from drivers.memory import HandClock, MemoryCan, MemoryEvents, MemoryRecords, MemoryRegisters, MemoryRelays
from sim.recording import Recording
from statecharts.supervisor import State


@dataclass
class Summary:
    """One signal over the run: first and last known value, the extremes, and in how many ticks it was known."""

    first: object = None
    last: object = None
    least: object = None
    most: object = None
    samples: int = 0

    def change(self, value: object) -> None:
        """A known value, other than the one before."""
        self.last = value
        if self.first is None:
            self.first = value
            if not isinstance(value, (str, bool)):
                self.least = self.most = value
        elif self.least is not None:
            if value < self.least:  # type: ignore[operator]
                self.least = value
            elif value > self.most:  # type: ignore[operator]
                self.most = value

    def as_json(self) -> dict[str, object]:
        return {
            "first": self.first, "last": self.last, "min": self.least, "max": self.most, "samples": self.samples,
        }  # fmt: skip


class Tally:
    """Adds up every signal; a value that stays costs next to nothing."""

    def __init__(self) -> None:
        self.summaries = tuple(Summary() for _ in SIGNALS)
        self._before: list[object] = [None] * len(SIGNALS)
        self._known_since = [0] * len(SIGNALS)
        self._ticks = 0

    def add(self, signals: tuple[object, ...]) -> None:
        """One tick's values in the order of SIGNALS; None is unknown."""
        for n, (value, before) in enumerate(zip(signals, self._before, strict=True)):
            if value is not before:
                self._changed(n, value, before)
        self._before[:] = signals
        self._ticks += 1

    def _changed(self, n: int, value: object, before: object) -> None:
        if before is None:
            self._known_since[n] = self._ticks
        if value is None:
            self.summaries[n].samples += self._ticks - self._known_since[n]
        elif value != before:
            self.summaries[n].change(value)

    def finished(self) -> dict[str, Summary]:
        """By name."""
        self.add((None,) * len(SIGNALS))
        return dict(zip(SIGNALS, self.summaries, strict=True))


@dataclass(frozen=True)
class StateChange:
    t_ms: int
    state: str
    cause: str


@dataclass(frozen=True)
class Active:
    """The last tick in which the inverter was told ACTIVE: what was published then."""

    t_ms: int
    limits: Limits
    registers: Mapping[int, tuple[int, ...]]
    frames: tuple[CanFrame, ...] = ()


@dataclass
class Result:
    """What a run showed. missing: required signals unknown at the end, by name. active: None when it never was told.

    registers, frames: what the inverter would be told at the end, by register block or over CAN.
    """

    states: list[StateChange] = field(default_factory=list)
    events: list[tuple[int, Notice]] = field(default_factory=list)
    signals: dict[str, Summary] = field(default_factory=dict)
    registers: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    active: Active | None = None
    cells_v: tuple[float | None, ...] = ()
    frames: tuple[CanFrame, ...] = ()
    missing: tuple[str, ...] = ()
    ticks: int = 0
    trace_sha256: str = ""
    core: core.CoreState | None = None

    @property
    def final_state(self) -> str:
        return self.states[-1].state


Watcher = Callable[[int, core.CoreState, Outputs], None]


class Replay:
    """The same Loop as on the Pi, over memory ports and a clock moved by hand.

    pace: called with each tick's time before it, to wait for it. on_frames: handed the frames of each tick.
    """

    def __init__(
        self, recording: Recording, settings: Settings, battery: BatteryProtocol, inverter: InverterProtocol,
        trace: TextIO | None = None,
    ) -> None:  # fmt: skip
        self.recording = recording
        self.battery = battery
        self.clock = HandClock()
        self.bus = MemoryCan()
        self.events = MemoryEvents()
        self.registers = MemoryRegisters()
        self.trace = Trace(trace)
        self.pace: Callable[[int], None] | None = None
        self.on_frames: Callable[[list[CanFrame]], None] | None = None
        ports = Ports(self.bus, MemoryRelays(), self.clock, self.events, MemoryRecords(), MemoryCan(), self.registers)
        self.loop = Loop(core.start(settings, battery, inverter, shadow=True), ports)

    def run(self, watchers: tuple[Watcher, ...] = ()) -> Result:
        """Every tick from 0 to the last frame's. Raises RecordingError when the recording turns out to be none."""
        result = Result()
        result.states.append(StateChange(0, self.loop.state.supervisor.state.value, "boot"))
        tally = Tally()
        cells: tuple[float | None, ...] = ()
        last_cells: dict[int, float] = {}
        active: tuple[int, core.CoreState, Mapping[int, tuple[int, ...]]] | None = None
        for now_ms in self._ticks():
            outputs = self.loop.tick()
            if self.loop.error is not None:
                raise self.loop.error
            state = self.loop.state
            signals = self.trace.add(now_ms, state, outputs)
            tally.add(signals)
            supervisor = state.supervisor
            if supervisor.state.value != result.states[-1].state:
                result.states.append(StateChange(now_ms, supervisor.state.value, supervisor.cause))
            if state.pack.cells_v is not cells:
                cells = state.pack.cells_v
                last_cells.update((n, volts) for n, volts in enumerate(cells) if volts is not None)
            if supervisor.state is State.RUNNING and not state.faults.held:
                active = (now_ms, state, outputs.registers)
            for watch in watchers:
                watch(now_ms, state, outputs)
            result.ticks += 1
        result.signals = tally.finished()
        result.cells_v = tuple(last_cells.get(n) for n in range(self.loop.state.setup.settings.pack.cells))
        if active:
            at_ms, told, registers = active
            result.active = Active(at_ms, told.limits, registers, _frames_to_inverter(told))
        return self._finished(result)

    def _ticks(self) -> Iterator[int]:
        """The time of each tick, its frames put into the inbox."""
        tick = 0
        for at, frames in self.recording.batches(TICK_MS * 1000):
            while tick < at:
                yield self._at(tick)
                tick += 1
            self.bus.inbox = frames
            if self.on_frames is not None:
                self.on_frames(frames)
            yield self._at(tick)
            tick += 1
        last = -(-self.recording.duration_us // (TICK_MS * 1000))
        while tick <= last:
            yield self._at(tick)
            tick += 1

    def _at(self, tick: int) -> int:
        self.clock.ms = tick * TICK_MS
        if self.pace is not None:
            self.pace(self.clock.ms)
        return self.clock.ms

    def _finished(self, result: Result) -> Result:
        state = self.loop.state
        result.events = self.events.seen
        result.registers = self.registers.blocks
        result.frames = _frames_to_inverter(state)
        result.missing = tuple(feed.value for feed in missing_feeds(state.pack, state.setup.settings, self.clock.ms))
        result.trace_sha256 = self.trace.sha256
        result.core = state
        return result


def _frames_to_inverter(state: core.CoreState) -> tuple[CanFrame, ...]:
    """All that would tell an inverter on CAN what it is told by this tick; in shadow nothing is sent."""
    return () if state.view is None else state.inverter.image(state.view)
