"""The loop on a real machine: one turn every 10 ms, what is told of it, commands in, and how it ends.

A turn: sleep to the deadline → one command → the tick → answer, systemd → in the time left: socket, status, garbage.
"""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol

from controller import status
from controller.blackbox import Decided
from controller.core import CoreState
from controller.incident import Keeper
from controller.link import Asked, Link
from controller.loop import Loop
from controller.model.events import Event, Notice, Severity
from controller.model.inverter import InverterStatus
from controller.ports import Command, CommandKind, Outputs
from controller.safety import gate
from controller.status import Aside, Happened
from drivers.systemd import Systemd
from statecharts.supervisor import Contactor, State

EVENTS_KEPT: Final = 50
SPARE_US: Final = 3000
"""Telemetry and garbage are left alone in a turn that has less time over than this."""
OVERDUE_MS: Final = 2000
HOUSEKEEPING_MS: Final = 1000
STORE_MS: Final = 2000
AT_REST: Final = frozenset({State.STARTING, State.STANDBY, State.COOLING_DOWN, State.FAULT, State.LOCKED_OUT})
"""Nothing is energised and no verdict is awaited: the program may end."""


class Pace(Protocol):
    """See drivers.pacer.Pacer."""

    def wait(self) -> int: ...

    def spare_us(self) -> int: ...


class Lateness:
    """How late the turns woke, in µs: counts in steps of an eighth, so that 1 s and 1 µs fit into 150 numbers."""

    def __init__(self) -> None:
        self.turns, self.max_us = 0, 0
        self._counts = [0] * 256

    def add(self, late_us: int) -> None:
        late_us = max(0, late_us)
        self.turns += 1
        self.max_us = max(self.max_us, late_us)
        self._counts[min(_step(late_us), 255)] += 1

    def within_us(self, fraction: float) -> int:
        """What this fraction of the turns was not later than, to an eighth."""
        left = fraction * self.turns
        for step, count in enumerate(self._counts):
            left -= count
            if left <= 0:
                return min(_edge_us(step), self.max_us)
        return self.max_us

    def as_json(self) -> dict[str, Any]:
        """In ms."""
        shares = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
        return {
            "turns": self.turns,
            **{name: round(self.within_us(share) / 1000, 3) for name, share in shares.items()},
            "max": round(self.max_us / 1000, 3),
        }


def _step(late_us: int) -> int:
    shift = max(0, late_us.bit_length() - 4)
    return shift * 8 + (late_us >> shift)


def _edge_us(step: int) -> int:
    """The largest lateness of a step."""
    shift = max(0, step // 8 - 1)
    return ((step - shift * 8 + 1) << shift) - 1


@dataclass
class Signals:
    """What the operating system asks: stop, and after a second time at once."""

    stops: int = 0

    def __call__(self, number: int, frame: object) -> None:
        self.stops += 1


class Ended(NamedTuple):
    """The exit status, and why, for the journal."""

    code: int
    why: str


STOPPED = Ended(0, "it was told to stop")
AT_ONCE = Ended(1, "it was told twice to stop, and opened at once")
OVERRUN = Ended(1, "its ticks came too late")
RESTLESS = Ended(1, "it was told to stop, and the opening could not be verified in time")


@dataclass
class Live:
    """The loop with everything around it. `turn` until it gives an exit status.

    stop_ms: how long a graceful stop may take. trouble: why the record is not stored, empty when it is.
    """

    loop: Loop
    pace: Pace
    link: Link
    systemd: Systemd
    program: str
    config: str
    stop_ms: int
    trouble: Callable[[], str] = lambda: ""
    bus: Callable[[], Mapping[str, Mapping[str, int]]] = dict
    keeper: Keeper | None = None
    signals: Signals = field(default_factory=Signals)
    lateness: Lateness = field(default_factory=Lateness)
    events: deque[Happened] = field(default_factory=lambda: deque(maxlen=EVENTS_KEPT))
    registers: Mapping[int, Sequence[int]] = field(default_factory=dict)
    closed: frozenset[Contactor] = frozenset()
    _ending: Ended | None = None
    _ends_by_ms: int = 0
    _rests_since_ms: int | None = None
    _kept_house_ms: int = 0
    _published_ms: int = 0
    _troubled: str = ""
    _box_troubled: str = ""
    _dumb: bool = False
    _ready: bool = False

    def run(self) -> int:
        """Until it is told to stop. Whatever happens, the outputs are off afterwards, and who listens was told."""
        end = Ended(1, "it failed")
        try:
            while (ended := self.turn()) is None:
                pass
            end = ended
        finally:
            with suppress(Exception):
                self.loop.ports.relays.write(frozenset())
            now_ms = self.loop.ports.clock.now_ms()
            if end.code:
                self._leave(now_ms)
            self._note(Event.ENDED, end.why, now_ms)
            self._recorded(lambda keeper: keeper.end(end.why, now_ms), now_ms)
        return end.code

    def turn(self) -> Ended | None:
        """One turn. How it ended when it was the last one."""
        self.lateness.add(self.pace.wait())
        now_ms = self.loop.ports.clock.now_ms()
        asked = self._take(now_ms)
        was = self.loop.state
        outputs = self.loop.tick()
        self.closed = outputs.closed
        self._tell(was, self.loop.state, outputs, now_ms)
        by, error = "" if asked is None else str(asked), "" if self.loop.error is None else repr(self.loop.error)
        tick = Decided(was, self.loop.state, outputs, now_ms, by, error)
        self._recorded(lambda keeper: keeper.decided(tick), now_ms)
        if asked is not None:
            self._telling(lambda now_ms: self.link.answer(asked, self._reply(asked, outputs, now_ms), now_ms), now_ms)
        if self.loop.error is None:
            self._healthy(now_ms)
        for part in (self.link.poll, self._publish, self._keep_house):
            self._telling(part, now_ms)
        return self._end(outputs, now_ms)

    def _take(self, now_ms: int) -> Asked | None:
        """At most one command of a person goes into a tick, with who gave it on record; none while one waits there."""
        if self.loop.commands:
            return None
        if self._ending is not None and not self.loop.state.supervisor.exiting:
            self.loop.commands.append(Command(CommandKind.SERVICE_STOP))
        asked = self.link.take()
        if asked is not None and asked.ask.command is not None:
            self.loop.commands.append(asked.ask.command)
            self._note(Event.COMMAND_GIVEN, str(asked), now_ms)
        return asked

    def _recorded(self, tell: Callable[[Keeper], str], now_ms: int) -> str:
        """Tell the black box; the name of the bundle that begins with it, empty when none does."""
        if self.keeper is None:
            return ""
        try:
            begun = tell(self.keeper)
        except Exception as error:  # noqa: BLE001 - what only records must not open anything: it ends, and says so
            self.keeper = self.loop.recorder = None
            self._note(Event.INCIDENT_NOT_WRITTEN, f"the black box has failed: {error!r}", now_ms, Severity.WARNING)
            return ""
        if begun:
            self._note(Event.INCIDENT, begun, now_ms)
        return begun

    def _telling(self, tell: Callable[[int], None], now_ms: int) -> None:
        """What only tells must not open anything either: the first time it breaks is an event; it is tried again."""
        try:
            tell(now_ms)
        except Exception as error:  # noqa: BLE001 - see above
            if not self._dumb:
                self._dumb = True
                self._note(Event.TELEMETRY_FAILED, repr(error), now_ms, Severity.WARNING)

    def _reply(self, asked: Asked, outputs: Outputs, now_ms: int) -> dict[str, Any]:
        """What the core made of it in this tick."""
        if asked.ask.do == "incident":
            begun = self._recorded(lambda keeper: keeper.asked(str(asked), now_ms), now_ms)
            why = "a bundle has just been written" if self.keeper else "there is no black box"
            if not begun:
                return {"done": False, "field": "", "why": why}
            return {"done": True, "state": self.loop.state.supervisor.state.value, "incident": begun}
        if self.loop.error is not None:
            return {"done": False, "field": "", "why": "the tick failed; the outputs are off; ask again"}
        for notice in outputs.events:
            if notice.id is Event.COMMAND_REFUSED:
                return {"done": False, "field": "", "why": notice.detail.partition(": ")[2]}
        core = self.loop.state
        return {"done": True, "state": core.supervisor.state.value, "withheld": list(core.withheld)}

    def _tell(self, was: CoreState, now: CoreState, outputs: Outputs, now_ms: int) -> None:
        """Keep what happened for the status; a change of state is told here, the core does not."""
        self.registers = outputs.registers
        self.events.extend(Happened(now_ms, notice) for notice in outputs.events)
        if now.supervisor.state is not was.supervisor.state:
            change = f"{was.supervisor.state.value} → {now.supervisor.state.value}: {now.supervisor.cause}"
            self._note(Event.STATE_CHANGED, change, now_ms)

    def _note(self, event: Event, detail: str, now_ms: int, severity: Severity = Severity.INFO) -> None:
        notice = Notice(event, severity, detail)
        self.events.append(Happened(now_ms, notice))
        self.loop.ports.events.write((notice,), now_ms)

    def _healthy(self, now_ms: int) -> None:
        if not self._ready:
            self._ready = True
            self.systemd.ready()
        self.systemd.alive(now_ms)

    # --- in the time left over ---

    def _relaxed(self) -> bool:
        """Overload takes from telemetry first: in a full turn only commands are still read."""
        return self.pace.spare_us() > SPARE_US

    def _publish(self, now_ms: int) -> None:
        if self.link.wanted(now_ms) and (self._relaxed() or now_ms - self._published_ms >= OVERDUE_MS):
            self._published_ms = now_ms
            self.link.publish(self.status(now_ms), now_ms)

    def _keep_house(self, now_ms: int) -> None:
        if now_ms - self._kept_house_ms < HOUSEKEEPING_MS or not self._relaxed():
            return
        self._kept_house_ms = now_ms
        gc.collect(0)
        self.loop.ports.events.write((), now_ms)
        self.systemd.says(status.headline(self.loop.state))
        trouble = self.trouble()
        if trouble != self._troubled:
            self._troubled = trouble
            severity = Severity.NO_CLOSING if trouble else Severity.INFO
            self._note(Event.RECORD_NOT_STORED, trouble or "cleared", now_ms, severity)
        trouble = self.keeper.trouble if self.keeper else ""
        if trouble != self._box_troubled:
            self._box_troubled = trouble
            severity = Severity.WARNING if trouble else Severity.INFO
            self._note(Event.INCIDENT_NOT_WRITTEN, trouble or "cleared", now_ms, severity)

    def status(self, now_ms: int) -> dict[str, Any]:
        aside = Aside(
            program=self.program, config=self.config, closed=self.closed,
            stored_seq=self.loop.ports.records.stored_seq(), trouble=self.trouble(), registers=self.registers,
            events=tuple(self.events), lateness=self.lateness.as_json(), bus=self.bus(),
            events_lost=getattr(self.loop.ports.events, "lost", None),
            black_box=self.keeper.status() if self.keeper else None,
        )  # fmt: skip
        return status.status(self.loop.state, aside, now_ms)

    # --- the end ---

    def _leave(self, now_ms: int) -> None:
        """It did not end at rest: one last word to the pack and one to the inverter, each as far as it still goes."""
        core = self.loop.state
        for last in (_off, _fault):
            with suppress(Exception):
                _, outputs = gate.allow(core.gate, core.setup.gate, last(core, now_ms), core.pack, None, "", now_ms)
                self.loop.hand_on(outputs, now_ms)

    def _end(self, outputs: Outputs, now_ms: int) -> Ended | None:
        """Asked to stop: gracefully, and at once when asked twice. Ticks too late: open, and end as failed."""
        if self._ending is None:
            overrun = any(n.id is Event.TICK_OVERRUN and n.severity is not Severity.INFO for n in outputs.events)
            if overrun or self.signals.stops:
                self._ending = OVERRUN if overrun else STOPPED
                self._ends_by_ms = now_ms + self.stop_ms
                self.systemd.stopping()
            return None
        if self.signals.stops > 1:
            return AT_ONCE
        if self._at_rest(now_ms):
            return self._ending
        return RESTLESS if now_ms >= self._ends_by_ms else None

    def _at_rest(self, now_ms: int) -> bool:
        """Nothing energised, the weld check over, and its verdict on disk (a disk that fails is not waited for)."""
        core = self.loop.state
        resting = not self.closed and core.supervisor.exiting
        resting = resting and (core.setup.shadow or core.supervisor.state in AT_REST)
        if not resting:
            self._rests_since_ms = None
            return False
        if self._rests_since_ms is None:
            self._rests_since_ms = now_ms
        stored = core.record is None or self.loop.ports.records.stored_seq() >= core.record.seq
        return stored or now_ms - self._rests_since_ms >= STORE_MS


def _off(core: CoreState, now_ms: int) -> Outputs:
    """What a pack is told that is not to be closed."""
    _, frames = core.battery.transmit(frozenset(), now_ms)
    return Outputs(battery_frames=frames)


def _fault(core: CoreState, now_ms: int) -> Outputs:
    """What an inverter is told of a battery nobody controls: FAULT, 0 W, no voltage."""
    if core.view is None:
        return Outputs()
    view = core.view._replace(
        status=InverterStatus.FAULT, max_charge_w=0.0, max_discharge_w=0.0, outer_voltage_v=0.0, current_a=0.0,
        power_w=0.0,
    )  # fmt: skip
    _, answer = core.inverter.answer(view, now_ms)
    return Outputs(inverter_frames=answer.frames, registers=answer.registers or {})
