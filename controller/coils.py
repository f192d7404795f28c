"""Every relay of ours off, whatever a controller that died has left on: `controller outputs-off`, and first at a start.

The kernels of Raspberry Pi OS go on driving a pin whose program has ended, and a Modbus board keeps its coils.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Final, NamedTuple

from controller.config import Config
from controller.config_places import RELAYS_OF
from controller.ports import PortError, SerialLine
from controller.wiring import pi_pins, port_name
from drivers.exclusive import Exclusive
from drivers.modbus_relays import ModbusRelays
from drivers.monotonic import MonotonicClock
from drivers.serial_lines import LinePlace, SerialPort
from statecharts.supervisor import Contactor

FILE: Final = "coils.json"


class Coils(NamedTuple):
    """The relays of ours. numbers: GPIO or relay number of each, empty where there is none. port: a Modbus board's."""

    numbers: Mapping[Contactor, int]
    active_low: bool = False
    port: str = ""
    baud: int = 0
    unit: int = 0


def coils_of(config: Config) -> Coils:
    values = config.values
    numbers = {Contactor(coil): values[f"relays.{coil}"] for coil in RELAYS_OF.get(config.settings.wiring, ())}
    if values["relays.kind"] == "modbus":
        return Coils(numbers, port=values["relays.port"], baud=values["relays.baud"], unit=values["relays.unit"])
    return Coils(numbers, values["relays.active_low"])


def keep(coils: Coils, folder: Path) -> None:
    """For the day the config cannot be read. Raises OSError."""
    (folder / FILE).write_text(json.dumps(coils._asdict()), encoding="utf-8")


def kept(folder: Path) -> Coils | None:
    """Those of the last start; None when there is no readable file."""
    try:
        said = Coils(**json.loads((folder / FILE).read_text(encoding="utf-8")))
        return said._replace(numbers={Contactor(coil): int(number) for coil, number in said.numbers.items()})
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def switch_off(coils: Coils, gpio: Callable[[], Any] | None = None) -> str:
    """What was switched off, in words. Raises PortError, with nothing touched while another controller has one of them.

    A coil that fails keeps no other one from going off. gpio: opens the chip of the pins.
    """
    if not coils.numbers:
        return "no relay is ours in this wiring: nothing to switch off"
    with closing(Exclusive()) as owned:
        if coils.port:
            owned.take(port_name(coils.port))
            return _board_off(coils)
        for number in coils.numbers.values():
            owned.take(f"GPIO {number}")
        with closing((gpio or pi_pins)()) as chip:
            if failed := list(_pins_off(coils, chip)):
                raise PortError("; ".join(failed))
    return "off: " + ", ".join(f"{coil} (GPIO {number})" for coil, number in coils.numbers.items())


def _pins_off(coils: Coils, chip: Any) -> Iterator[str]:
    """What failed. A pin is driven to its off level, then let go: a kernel that keeps driving keeps it off."""
    from drivers.gpio import GpioRelays

    for coil, number in coils.numbers.items():
        try:
            GpioRelays({coil: number}, chip, active_high=not coils.active_low).close()
        except PortError as error:
            yield str(error)


def _board_off(coils: Coils) -> str:
    """A board's constructor returns when the board has said that everything is off."""
    clock = MonotonicClock()
    with ExitStack() as stack:
        line = SerialPort(LinePlace("relays", coils.port), SerialLine(coils.baud), clock.now_ms)
        stack.callback(line.close)
        board = ModbusRelays(line, coils.unit, coils.numbers, clock.now_ms, name=f"[relays] {coils.port}")
        stack.callback(board.close)
    relays = ", ".join(f"{coil} (relay {number})" for coil, number in coils.numbers.items())
    return f"off: {relays} of {coils.port}, unit {coils.unit}"
