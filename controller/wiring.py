"""Config → devices → Ports: opens exactly what the config says, and closes it again however the run ends."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol, TypeVar

from controller.batteries.base import BatteryProtocol
from controller.config import Config
from controller.config_places import RELAYS_OF
from controller.inverters.base import InverterProtocol
from controller.loop import Ports
from controller.ports import ClockPort, EventPort, LinePort, PinPort, RecordPort, RegisterPort, RelayPort, SerialLine
from drivers.can_bus import CanBus, CanPlace
from drivers.exclusive import Exclusive
from drivers.modbus_link import Meter, ModbusLink
from drivers.modbus_relays import ModbusRelays
from drivers.modbus_server import ModbusServer
from drivers.no_relays import NoRelays
from drivers.serial_lines import LinePlace, SerialPort
from statecharts.supervisor import Contactor


class TickClock:
    """The loop's clock. The drivers see the time of the running tick: nothing they stamp is younger than it."""

    def __init__(self, clock: ClockPort) -> None:
        self._clock = clock
        self.tick_ms = clock.now_ms()

    def now_ms(self) -> int:
        self.tick_ms = self._clock.now_ms()
        return self.tick_ms


@contextmanager
def wired(
    config: Config, battery: BatteryProtocol, inverter: InverterProtocol, *, clock: ClockPort, events: EventPort,
    records: RecordPort, listen_only: bool = False, gpio: Callable[[], Any] | None = None,
) -> Iterator[Ports]:  # fmt: skip
    """The world as the config describes it. Raises PortError in one line: section or pin, device, what to do.

    Relays are off before anything else is opened, and off again before anything else is closed. listen_only: nothing is
    transmitted or answered, no relay and no heartbeat is claimed. gpio: opens the chip of the pins.
    """
    values, ticking = config.values, TickClock(clock)
    with ExitStack() as others, ExitStack() as coils:
        open_ = _Opener(config, ticking, clock, events, listen_only, gpio or pi_pins, others, coils)
        relays = open_.relays()
        yield Ports(
            battery_bus=None if battery.line else open_.can("can", battery.ids(config.settings.battery_options)),
            relays=relays,
            clock=ticking,
            events=events,
            records=records,
            inverter_bus=open_.can("inverter_can", inverter.rx, inverter.bitrate) if inverter.bitrate else None,
            registers=open_.registers(inverter) if inverter.line and not listen_only else None,
            battery_line=open_.line("battery_serial", battery.line(config.settings.battery_options))
            if battery.line
            else None,
            pins=open_.pins(),
            link=open_.link() if values["link.source"] == "modbus" and not listen_only else None,
            heartbeat=open_.heartbeat() if values["pins.heartbeat"] and not listen_only else None,
        )


class Closing(Protocol):
    def close(self) -> None: ...


D = TypeVar("D", bound=Closing)


def pi_pins() -> Any:
    """The Pi's GPIO chip. Raises PortError."""
    from drivers.gpio import open_chip  # 5 MB that setups without pins do not need

    return open_chip()


class _Opener:
    """Opens one device after the other, each with a lock of its own; two stacks close them, `coils` first."""

    def __init__(
        self, config: Config, ticking: TickClock, clock: ClockPort, events: EventPort, listen_only: bool,
        gpio: Callable[[], Any], others: ExitStack, coils: ExitStack,
    ) -> None:  # fmt: skip
        self._values, self._wiring = config.values, config.settings.wiring
        self._ticking, self._clock, self._events, self._listen_only = ticking, clock, events, listen_only
        self._open_chip, self._others, self._coils = gpio, others, coils
        self._chip: Any = None
        self._owned = self._keep(Exclusive())

    def _keep(self, device: D) -> D:
        self._others.callback(device.close)
        return device

    def _tick_ms(self) -> int:
        return self._ticking.tick_ms

    # --- buses and lines ---

    def can(self, section: str, rx: Collection[int], bitrate: int = 0) -> CanBus:
        interface, channel, stated, tty_baud = self._said(section, "interface", "channel", "bitrate", "tty_baud")
        self._owned.take(port_name(channel) if channel.startswith("/") else f"CAN bus {channel} ({interface})")
        place = CanPlace(section, interface, channel, stated or bitrate, tty_baud)
        return self._keep(CanBus(place, rx, self._tick_ms, self._events, listen_only=self._listen_only))

    def line(self, section: str, settings: SerialLine) -> SerialPort:
        place = LinePlace(section, self._values[f"{section}.port"], self._values.get(f"{section}.rs485", False))
        self._owned.take(port_name(place.port))
        return self._keep(SerialPort(place, settings, self._tick_ms, listen_only=self._listen_only))

    def registers(self, inverter: InverterProtocol) -> RegisterPort:
        assert inverter.line is not None
        return ModbusServer(self.line("serial", inverter.line), self._clock, inverter.unit, inverter.check_write)

    def link(self) -> ModbusLink:
        meter = Meter(*self._said("link", "unit", "voltage_register", "input_register", "volts_per_count", "update_ms"))
        return ModbusLink(self._modbus("link"), meter, self._tick_ms)

    def _modbus(self, section: str) -> LinePort:
        return self.line(section, SerialLine(self._values[f"{section}.baud"]))

    def _said(self, section: str, *names: str) -> list[Any]:
        return [self._values[f"{section}.{name}"] for name in names]

    # --- relays and pins ---

    def relays(self) -> RelayPort:
        members = [Contactor(coil) for coil in RELAYS_OF.get(self._wiring, ())]
        if not members or self._listen_only:
            return NoRelays()
        numbers = {member: self._values[f"relays.{member}"] for member in members}
        contacts = {member: self._values[f"relays.{member}_feedback"] for member in members}
        contacts = {member: number for member, number in contacts.items() if number is not None}
        closes_open = self._values["relays.feedback_normally_closed"]
        if self._values["relays.kind"] == "gpio":
            return self._gpio_relays(numbers, contacts, closes_open)
        board = ModbusRelays(
            self._modbus("relays"), self._values["relays.unit"], numbers, self._clock.now_ms, inputs=contacts,
            normally_closed=closes_open, name=f"[relays] {self._values['relays.port']}",
        )  # fmt: skip
        self._coils.callback(board.close)
        return board

    def _gpio_relays(
        self, pins: dict[Contactor, int], contacts: dict[Contactor, int], normally_closed: bool
    ) -> RelayPort:
        from drivers.gpio import GpioRelays

        chip, active_high = self._pins(*pins.values(), *contacts.values()), not self._values["relays.active_low"]
        relays = GpioRelays(pins, chip, active_high=active_high, feedback=contacts, normally_closed=normally_closed)
        self._coils.callback(relays.close)
        return relays

    def pins(self) -> PinPort | None:
        estop, interlock = self._said("pins", "estop", "interlock")
        wanted = [pin for pin in (estop, interlock) if pin is not None]
        if not wanted:
            return None
        from drivers.gpio import GpioInputs

        return self._keep(GpioInputs(self._pins(*wanted), estop=estop, interlock=interlock))

    def heartbeat(self) -> Any:
        from drivers.gpio import GpioHeartbeat

        pin = self._values["pins.heartbeat"]
        return self._keep(GpioHeartbeat(pin, self._pins(pin)))

    def _pins(self, *numbers: int) -> Any:
        """The chip, once it is certain that these pins are nobody else's."""
        for number in numbers:
            self._owned.take(f"GPIO {number}")
        if self._chip is None:
            self._chip = self._keep(self._open_chip())
        return self._chip


def port_name(name: str) -> str:
    """The same for every name a port has."""
    return f"serial port {os.path.realpath(name)}"
