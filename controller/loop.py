"""One tick: read ports → core.step → write ports. The same loop lives on the Pi and in the simulator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from controller import core
from controller.core import CoreState
from controller.model.events import Event
from controller.ports import (
    CanPort,
    ClockPort,
    Command,
    EventPort,
    Inputs,
    Outputs,
    PortError,
    RecordPort,
    RegisterPort,
    RelayError,
    RelayPort,
)

TICK_MS = 10


@dataclass
class Ports:
    """The world as the loop sees it. A wiring without an inverter bus or registers leaves them None."""

    battery_bus: CanPort
    relays: RelayPort
    clock: ClockPort
    events: EventPort
    records: RecordPort
    inverter_bus: CanPort | None = None
    registers: RegisterPort | None = None


@dataclass
class Loop:
    """Holds the core's state between ticks; owns no decision.

    commands: wishes to be handed to the next tick. estop_ok, interlock_ok, link_voltage_v: inputs, None when not wired.
    """

    state: CoreState
    ports: Ports
    commands: list[Command] = field(default_factory=list)
    estop_ok: bool | None = None
    interlock_ok: bool | None = None
    link_voltage_v: float | None = None
    _broken: list[Event] = field(default_factory=list)

    def tick(self) -> tuple[Inputs, Outputs]:
        """One tick at the clock's time. Ports that fail become breakdowns of the next tick; outputs go off first."""
        now_ms = self.ports.clock.now_ms()
        inputs = self._inputs()
        self.state, outputs = core.step(self.state, inputs, now_ms)
        self._write(outputs, now_ms)
        return inputs, outputs

    def _inputs(self) -> Inputs:
        ports = self.ports
        writes, polls = ports.registers.requests() if ports.registers else ((), 0)
        commands, self.commands = self.commands, []
        broken, self._broken = self._broken, []
        return Inputs(
            battery_frames=ports.battery_bus.receive(),
            inverter_frames=ports.inverter_bus.receive() if ports.inverter_bus else (),
            register_writes=writes,
            register_polls=polls,
            feedback=ports.relays.feedback(),
            estop_ok=self.estop_ok,
            interlock_ok=self.interlock_ok,
            link_voltage_v=self.link_voltage_v,
            commands=commands,
            breakdowns=broken,
            stored_seq=ports.records.stored_seq(),
        )

    def _write(self, outputs: Outputs, now_ms: int) -> None:
        """Relays first: opening never waits for anything else."""
        ports = self.ports
        try:
            ports.relays.write(outputs.closed)
        except RelayError:
            self._broken.append(Event.RELAY_FAILED)
        self._send(ports.battery_bus, outputs.battery_frames)
        if ports.inverter_bus:
            self._send(ports.inverter_bus, outputs.inverter_frames)
        if ports.registers:
            ports.registers.publish(outputs.registers)
        if outputs.record is not None:
            ports.records.store(outputs.record)
        if outputs.events:
            ports.events.write(outputs.events, now_ms)

    def _send(self, bus: CanPort, frames: Sequence[object]) -> None:
        if not frames:
            return
        try:
            bus.send(frames)  # type: ignore[arg-type]
        except PortError:
            self._broken.append(Event.BUS_FAILED)
