"""One tick: read ports → core.step → write ports. The same loop lives on the Pi and in the simulator."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from controller import core
from controller.core import CoreState
from controller.model.events import Event
from controller.ports import (
    CanPort,
    ClockPort,
    Command,
    EventPort,
    HeartbeatPort,
    Inputs,
    LinePort,
    LinkPort,
    Outputs,
    PinPort,
    Pins,
    PortError,
    RecordPort,
    RegisterPort,
    RelayError,
    RelayPort,
)
from statecharts.supervisor import Contactor

TICK_MS = 10
LATE_MS, OVERRUN_MS = 50, 200
LATE_MOST, LATE_WINDOW_MS = 5, 1000
"""A tick > 50 ms late is an event, > 200 ms or 5 late ones in 1 s open (safety concept, section 3)."""


@dataclass
class Ports:
    """The world as the loop sees it. What a setup does not have is None."""

    battery_bus: CanPort | None
    relays: RelayPort
    clock: ClockPort
    events: EventPort
    records: RecordPort
    inverter_bus: CanPort | None = None
    registers: RegisterPort | None = None
    battery_line: LinePort | None = None
    pins: PinPort | None = None
    link: LinkPort | None = None
    heartbeat: HeartbeatPort | None = None


@dataclass
class Loop:
    """Holds the core's state between ticks; owns no decision.

    commands: wishes to be handed to the core with the next inputs. What broke before a tick that breaks is told to the
    one after. error: what broke the last tick, None when it was healthy.
    recorder: is shown what each tick goes by, before the core is.
    """

    state: CoreState
    ports: Ports
    commands: list[Command] = field(default_factory=list)
    error: Exception | None = None
    recorder: Callable[[Inputs, int], None] | None = None
    _broken: set[Event] = field(default_factory=set)
    _last_ms: int | None = None
    _late_ms: tuple[int, ...] = ()
    _relays_lost: bool = False

    def tick(self) -> Outputs:
        """One tick at the clock's time. Whatever breaks, the outputs go off first; the next tick makes it a fault."""
        now_ms = self.ports.clock.now_ms()
        self._time(now_ms)
        try:
            inputs = self._inputs()
            self.commands = []  # what breaks the core is not handed to it again
            if self.recorder is not None:
                self.recorder(inputs, now_ms)
            self.state, outputs = core.step(self.state, inputs, now_ms)
            self._broken, self.error = set(), None
        except Exception as error:  # noqa: BLE001 - safety concept, section 3: any exception opens, in the same tick
            self.error, outputs = error, Outputs()
            self._broken.add(Event.EXCEPTION)
        self._relays_lost = not self._switch(outputs.closed)  # first: opening never waits for anything else
        try:
            # without relays nothing is asked of a pack either
            told = outputs._replace(battery_frames=(), battery_bytes=b"") if self._relays_lost else outputs
            self.hand_on(told, now_ms)
        except Exception as error:  # noqa: BLE001 - a device that breaks in a way nobody foresaw
            self.error = error
            self._broken.add(Event.EXCEPTION)
            self._relays_lost = not self._switch(frozenset())
            with suppress(Exception):
                if self.ports.registers:
                    self.ports.registers.publish({})
        return outputs

    def _time(self, now_ms: int) -> None:
        """Judge how late this tick is. A late tick is counted, never caught up."""
        late_ms = 0 if self._last_ms is None else now_ms - self._last_ms - TICK_MS
        self._last_ms = now_ms
        if late_ms <= LATE_MS:
            return
        self._broken.add(Event.TICK_LATE)
        self._late_ms = (*(at for at in self._late_ms if now_ms - at < LATE_WINDOW_MS), now_ms)
        if late_ms > OVERRUN_MS or len(self._late_ms) >= LATE_MOST:
            self._broken.add(Event.TICK_OVERRUN)

    def _inputs(self) -> Inputs:
        ports = self.ports
        writes, polls = ports.registers.requests() if ports.registers else ((), 0)
        pins = ports.pins.read() if ports.pins else Pins()
        link_v, link_at_ms = (ports.link.link() if ports.link else None) or (None, None)
        return Inputs(
            battery_frames=ports.battery_bus.receive() if ports.battery_bus else (),
            battery_bytes=ports.battery_line.receive() if ports.battery_line else b"",
            inverter_frames=ports.inverter_bus.receive() if ports.inverter_bus else (),
            register_writes=writes,
            register_polls=polls,
            feedback={} if self._relays_lost else ports.relays.feedback(),
            estop_ok=pins.estop_ok,
            interlock_ok=pins.interlock_ok,
            link_voltage_v=link_v,
            link_at_ms=link_at_ms,
            commands=tuple(self.commands),
            breakdowns=tuple(sorted(self._broken)),
            stored_seq=ports.records.stored_seq(),
        )

    def hand_on(self, outputs: Outputs, now_ms: int) -> None:
        """Everything but the relays. Registers a tick does not give are withdrawn."""
        ports = self.ports
        self._send(ports.battery_bus, outputs.battery_frames)
        self._send(ports.battery_line, outputs.battery_bytes)
        self._send(ports.inverter_bus, outputs.inverter_frames)
        if ports.registers:
            ports.registers.publish(outputs.registers)
        if outputs.record is not None:
            ports.records.store(outputs.record)
        if outputs.events:
            ports.events.write(outputs.events, now_ms)
        if ports.heartbeat and outputs.heartbeat and not self._broken:
            ports.heartbeat.beat()

    def _switch(self, closed: frozenset[Contactor]) -> bool:
        """Write the relays; when that fails, try to switch all of them off, and say so."""
        try:
            self.ports.relays.write(closed)
            return True
        except RelayError:
            self._broken.add(Event.RELAY_FAILED)
        with suppress(RelayError):
            self.ports.relays.write(frozenset())
        return False

    def _send(self, port: CanPort | LinePort | None, what: Any) -> None:
        if port is None or not what:
            return
        try:
            port.send(what)
        except PortError:
            self._broken.add(Event.BUS_FAILED)
