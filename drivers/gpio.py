"""The Pi's pins with gpiozero on lgpio: contactor relays, hard-wired inputs, heartbeat. Pins have BCM numbers.

Levels are read when asked: no callbacks, no software PWM. A pin that is let go becomes an input that floats, so relay
inputs need pull-downs of their own; but the kernels of Raspberry Pi OS go on driving an output, also that of a process
that was killed, unless dtparam=strict_gpiod is set (raspberrypi/linux, pull requests 6117 and 6150). Then only
`controller outputs-off` and the external relay watchdog switch a relay off.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import chdir, suppress
from typing import Any

import gpiozero

from controller.ports import Pins, PortError, RelayError
from statecharts.supervisor import Contactor

Factory = Any
"""A pin factory of gpiozero; it has no types."""


def open_chip() -> Factory:
    """The Pi's GPIO chip. Raises PortError."""
    here = os.environ.pop("LG_WD", None)  # lgpio leaves a pipe in its folder when imported, and needs it only then
    try:
        with tempfile.TemporaryDirectory() as folder, chdir(folder):
            from gpiozero.pins.lgpio import LGPIOFactory
        return LGPIOFactory()
    except ImportError as error:
        raise PortError(f"GPIO: {error}; `pip install lgpio`, or `apt install python3-lgpio`") from None
    except Exception as error:  # noqa: BLE001 - lgpio's errors share no class with anything
        raise PortError(f"GPIO: {error}; is this a Raspberry Pi, and the user in the group gpio?") from None
    finally:
        if here is not None:
            os.environ["LG_WD"] = here


def _claim(what: str, kind: Callable[..., Any], pin: int, **options: Any) -> Any:
    try:
        return kind(pin, **options)
    except Exception as error:  # noqa: BLE001 - as above
        raise PortError(f"GPIO {pin} ({what}): {error or type(error).__name__}; is another program using it?") from None


def _contact(what: str, pin: int, factory: Factory) -> Any:
    """A contact from the pin to ground, pulled up here: a broken wire reads open."""
    return _claim(what, gpiozero.InputDevice, pin, pull_up=True, pin_factory=factory)


def _closed(contact: Any) -> bool | None:
    """Whether it is closed; None when it cannot be read."""
    if contact is None:
        return None
    try:
        return bool(contact.is_active)
    except Exception:  # noqa: BLE001 - as above
        return None


class GpioRelays:
    """RelayPort: one pin for each coil, off from construction on.

    active_high: the level that energises. feedback: the auxiliary contacts; normally_closed: they open when their
    contactor closes (mirror contacts).
    """

    def __init__(
        self, pins: Mapping[Contactor, int], factory: Factory, *, active_high: bool = True,
        feedback: Mapping[Contactor, int] | None = None, normally_closed: bool = False,
    ) -> None:  # fmt: skip
        """Raises PortError."""
        self._pins, self._normally_closed = dict(pins), normally_closed
        self._coils: dict[Contactor, Any] = {}
        self._contacts: dict[Contactor, Any] = {}
        try:
            for member, pin in pins.items():
                off = {"active_high": active_high, "initial_value": False, "pin_factory": factory}
                self._coils[member] = _claim(f"{member} relay", gpiozero.OutputDevice, pin, **off)
            for member, pin in (feedback or {}).items():
                self._contacts[member] = _contact(f"{member} feedback", pin, factory)
        except PortError:
            self.close()
            raise

    def write(self, closed: frozenset[Contactor]) -> None:
        """Opens first, then closes; a pin that fails keeps no other one from opening."""
        foreign = sorted(closed - self._coils.keys() - {Contactor.PACK})
        failed = [f"no relay is wired for {member}" for member in foreign]
        for member in sorted(self._coils, key=lambda member: member in closed):
            if member in closed and failed:
                break
            try:
                self._coils[member].value = member in closed
            except Exception as error:  # noqa: BLE001 - as above
                failed.append(f"GPIO {self._pins[member]} ({member} relay): {error or type(error).__name__}")
        if failed:
            raise RelayError("; ".join(failed))

    def feedback(self) -> Mapping[Contactor, bool | None]:
        read = {member: _closed(contact) for member, contact in self._contacts.items()}
        return {member: None if at is None else at is not self._normally_closed for member, at in read.items()}

    def close(self) -> None:
        """Everything off, then every pin let go."""
        with suppress(RelayError):
            self.write(frozenset())
        for device in (*self._coils.values(), *self._contacts.values()):
            with suppress(Exception):
                device.close()


class GpioInputs:
    """PinPort: emergency stop and interlock, normally closed contacts to ground; None where not wired.

    One that cannot be read counts as open: what stops everything must not be taken for "not wired".
    """

    def __init__(self, factory: Factory, *, estop: int | None = None, interlock: int | None = None) -> None:
        """Raises PortError, also when one of them cannot be read."""
        self._estop = None if estop is None else _contact("emergency stop", estop, factory)
        self._interlock = None if interlock is None else _contact("interlock", interlock, factory)
        for pin, contact in ((estop, self._estop), (interlock, self._interlock)):
            if contact is not None and _closed(contact) is None:
                raise PortError(f"GPIO {pin}: it cannot be read")

    def read(self) -> Pins:
        return Pins(*(None if at is None else bool(_closed(at)) for at in (self._estop, self._interlock)))

    def close(self) -> None:
        for contact in (self._estop, self._interlock):
            if contact is not None:
                contact.close()


class GpioHeartbeat:
    """HeartbeatPort: a level that changes with each beat, for a retriggerable monostable."""

    def __init__(self, pin: int, factory: Factory) -> None:
        """Raises PortError."""
        self._pin = _claim("heartbeat", gpiozero.OutputDevice, pin, pin_factory=factory)
        self._level = False

    def beat(self) -> None:
        self._level = not self._level
        with suppress(Exception):  # no edge is what drops the coils
            self._pin.value = self._level

    def close(self) -> None:
        self._pin.close()
