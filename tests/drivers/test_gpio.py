"""The Pi's pins with gpiozero's mock pins: relays, inputs and heartbeat, and what happens when a pin fails."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import ClassVar

import gpiozero
import pytest
from gpiozero.pins.mock import MockFactory, MockPin

from controller.ports import PinPort, Pins, PortError, RelayError
from drivers.gpio import GpioHeartbeat, GpioInputs, GpioRelays, open_chip
from drivers.memory import MemoryHeartbeat, MemoryPins
from statecharts.supervisor import Contactor

NEGATIVE, PRECHARGE, POSITIVE = Contactor.NEGATIVE, Contactor.PRECHARGE, Contactor.POSITIVE
PINS = {NEGATIVE: 17, PRECHARGE: 27, POSITIVE: 22}
OWN = frozenset(PINS)


class FailingPin(MockPin):
    """Its level can neither be set nor read once `failing` holds its number."""

    failing: ClassVar[set[int]] = set()

    def _set_state(self, value: bool) -> None:
        if self.info.name in {f"GPIO{number}" for number in self.failing}:
            raise OSError("GPIO busy")
        super()._set_state(value)

    def _get_state(self) -> bool:
        if self.info.name in {f"GPIO{number}" for number in self.failing}:
            raise OSError("GPIO busy")
        return super()._get_state()  # type: ignore[no-any-return]


@pytest.fixture
def failing() -> set[int]:
    FailingPin.failing = set()
    return FailingPin.failing


# --- relays ---


@pytest.mark.parametrize("active_high", [True, False])
def test_no_relay_pin_is_driven_to_its_energising_level_before_it_is_told_so(active_high: bool):
    driven: list[bool] = []

    class Noting(MockPin):
        def _change_state(self, value: bool) -> bool:
            if self.function == "output":
                driven.append(value)
            return super()._change_state(value)  # type: ignore[no-any-return]

    pins = MockFactory(pin_class=Noting)
    for number in PINS.values():
        pins.pin(number).drive_high() if active_high else pins.pin(number).drive_low()
    port = GpioRelays(PINS, pins, active_high=active_high)
    port.write(frozenset())
    assert driven
    assert active_high not in driven
    port.write(frozenset({POSITIVE}))
    assert active_high in driven


def test_what_opens_opens_before_anything_closes():
    order: list[tuple[str, bool]] = []

    class Noting(MockPin):
        def _set_state(self, value: bool) -> None:
            order.append((self.info.name, value))
            super()._set_state(value)

    port = GpioRelays(PINS, MockFactory(pin_class=Noting))
    port.write(frozenset({POSITIVE}))
    order.clear()
    port.write(frozenset({NEGATIVE, PRECHARGE}))
    assert order[0] == ("GPIO22", False)


def test_a_pin_that_fails_is_named_and_keeps_no_other_from_opening(failing: set[int]):
    pins = MockFactory(pin_class=FailingPin)
    port = GpioRelays(PINS, pins)
    port.write(OWN)
    failing.add(17)
    with pytest.raises(RelayError, match=r"^GPIO 17 \(negative relay\): GPIO busy$"):
        port.write(frozenset())
    assert not pins.pin(22).state
    assert not pins.pin(27).state


def test_nothing_closes_when_something_could_not_be_opened(failing: set[int]):
    pins = MockFactory(pin_class=FailingPin)
    port = GpioRelays(PINS, pins)
    port.write(frozenset({PRECHARGE}))
    failing.add(27)
    with pytest.raises(RelayError, match="GPIO 27"):
        port.write(frozenset({NEGATIVE, POSITIVE}))
    assert not pins.pin(17).state
    assert not pins.pin(22).state


def test_a_contact_that_cannot_be_read_is_unknown(failing: set[int]):
    pins = MockFactory(pin_class=FailingPin)
    port = GpioRelays(PINS, pins, feedback={NEGATIVE: 5, POSITIVE: 13})
    pins.pin(5).drive_low()
    failing.add(13)
    assert port.feedback() == {NEGATIVE: True, POSITIVE: None}


def test_a_broken_wire_of_a_mirror_contact_reads_closed_and_of_any_other_open():
    """Each contradicts a command: a wire that breaks does not go unnoticed for ever."""
    assert GpioRelays(PINS, MockFactory(), feedback={NEGATIVE: 5}).feedback() == {NEGATIVE: False}
    mirror = GpioRelays(PINS, MockFactory(), feedback={NEGATIVE: 5}, normally_closed=True)
    assert mirror.feedback() == {NEGATIVE: True}


def test_closing_the_port_switches_off_and_then_lets_the_pins_float():
    seen: list[tuple[str, bool]] = []

    class Noting(MockPin):
        def _set_function(self, value: str) -> None:
            if value == "input" and self.function == "output":
                seen.append((self.info.name, self.state))
            super()._set_function(value)

    pins = MockFactory(pin_class=Noting)
    port = GpioRelays(PINS, pins)
    port.write(OWN)
    port.close()
    assert sorted(seen) == [("GPIO17", False), ("GPIO22", False), ("GPIO27", False)]


def test_a_pin_that_is_taken_is_named_and_the_others_are_let_go():
    pins = MockFactory()
    taken = gpiozero.OutputDevice(22, pin_factory=pins)
    with pytest.raises(PortError, match=r"^GPIO 22 \(positive relay\): .*; is another program using it\?"):
        GpioRelays(PINS, pins)
    assert pins.pin(17).function == pins.pin(27).function == "input"
    taken.close()


# --- inputs: contract, then the pins ---


def gpio_inputs() -> PinPort:
    pins = MockFactory()
    port = GpioInputs(pins, estop=24)
    pins.pin(24).drive_low()
    return port


@pytest.mark.parametrize("port", [gpio_inputs(), MemoryPins(Pins(estop_ok=True))], ids=["gpio", "twin"])
def test_what_is_wired_is_told_and_what_is_not_is_unknown(port: PinPort):
    assert port.read() == Pins(estop_ok=True, interlock_ok=None)


def test_a_closed_contact_pulls_the_pin_to_ground_and_a_broken_wire_reads_open():
    pins = MockFactory()
    port = GpioInputs(pins, estop=24, interlock=16)
    assert port.read() == Pins(False, False)
    pins.pin(24).drive_low()
    assert port.read() == Pins(True, False)
    pins.pin(16).drive_low()
    pins.pin(24).drive_high()
    assert port.read() == Pins(False, True)


def test_an_input_that_cannot_be_read_is_open_and_raises_nothing(failing: set[int]):
    pins = MockFactory(pin_class=FailingPin)
    port = GpioInputs(pins, estop=24, interlock=16)
    pins.pin(24).drive_low()
    pins.pin(16).drive_low()
    failing.add(24)
    assert port.read() == Pins(False, True)


def test_an_input_that_cannot_be_read_at_the_start_is_refused(failing: set[int]):
    failing.add(24)
    with pytest.raises(PortError, match="GPIO 24"):
        GpioInputs(MockFactory(pin_class=FailingPin), estop=24)


# --- heartbeat ---


def test_each_beat_is_one_edge_and_nothing_else_moves_it():
    pins, twin = MockFactory(), MemoryHeartbeat()
    heartbeat = GpioHeartbeat(12, pins)
    pins.pin(12).clear_states()
    for port in (heartbeat, twin):
        for _ in range(5):
            port.beat()
    assert [state.state for state in pins.pin(12).states] == [False, True, False, True, False, True]
    assert twin.beats == 5


def test_a_heartbeat_that_cannot_be_written_raises_nothing(failing: set[int]):
    heartbeat = GpioHeartbeat(12, MockFactory(pin_class=FailingPin))
    failing.add(12)
    heartbeat.beat()


# --- the chip ---


@pytest.mark.skipif(Path("/dev/gpiochip0").exists(), reason="there is a GPIO chip here")
def test_a_machine_without_gpio_is_one_line_with_what_to_check(tmp_path: Path):
    with contextlib.chdir(tmp_path), pytest.raises(PortError, match=r"^GPIO: ") as caught:
        open_chip()
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == []
