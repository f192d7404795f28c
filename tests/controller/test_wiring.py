"""Config → devices → Ports: what is opened, what is refused with which words, and how it ends."""

from __future__ import annotations

import os
import tty
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import can
import pytest
from gpiozero.pins.mock import MockFactory

from controller import config as configs
from controller import core, wiring
from controller.batteries.registry import BATTERIES
from controller.config import Catalogue, Config
from controller.inverters.registry import INVERTERS
from controller.loop import Loop, Ports
from controller.ports import BusError, CanFrame, Pins, PortError, RelayError
from controller.wiring import wired
from drivers.exclusive import Exclusive
from drivers.gpio import GpioRelays
from drivers.memory import HandClock, MemoryEvents, MemoryRecords
from statecharts.supervisor import Contactor, State
from tests.drivers.board import checksum

CATALOGUE = Catalogue(BATTERIES, INVERTERS)
POSITIVE, PACK = Contactor.POSITIVE, Contactor.PACK
NUMBERS = count()

TESLA = """\
schema = 1
[battery]
name = "tesla_model3"
chemistry = "nca"
cells = 96
[inverter]
name = "byd_modbus"
[wiring]
kind = "{wiring}"
[limits]
max_charge_a = 20
max_discharge_a = 20
max_power_w = 5000
[can]
interface = "virtual"
channel = "{channel}"
[serial]
port = "{port}"
"""
WATCHDOG = "[pins]\nheartbeat = {}\n"
RELAY = '[relays]\nkind = "gpio"\npositive = 22\npositive_feedback = 13\n'
PINS = "[pins]\nestop = 24\nheartbeat = 12\n"


class Garage:
    """A pseudo terminal, a virtual bus and mock pins, as a config names them."""

    def __init__(self) -> None:
        self.pins, self.clock, self.events = MockFactory(), HandClock(1000), MemoryEvents()
        self.stack = ExitStack()
        self.new_bus()
        self.new_port()

    def new_bus(self) -> None:
        self.channel = f"wiring-{next(NUMBERS)}"

    def new_port(self) -> None:
        self.master, slave = os.openpty()
        tty.setraw(slave)
        self.port = os.ttyname(slave)
        self.stack.callback(os.close, self.master)
        self.stack.callback(os.close, slave)

    def config(self, more: str = "", wiring: str = "pack") -> Config:
        text = TESLA.format(wiring=wiring, channel=self.channel, port=self.port) + more
        return configs.parse(text, "controller.toml", CATALOGUE)

    def wired(self, config: Config, **more: Any) -> Any:
        battery, inverter = BATTERIES[config.settings.battery], INVERTERS[config.settings.inverter]
        return wired(
            config, battery, inverter, clock=self.clock, events=self.events, records=MemoryRecords(),
            gpio=lambda: self.pins, **more,
        )  # fmt: skip

    def open(self, more: str = "", wiring: str = "pack", **options: Any) -> Ports:
        ports: Ports = self.stack.enter_context(self.wired(self.config(more, wiring), **options))
        return ports

    def other_end(self) -> can.BusABC:
        return self.stack.enter_context(can.Bus(self.channel, "virtual", ignore_config=True))


@pytest.fixture
def garage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Garage]:
    """Its locks are those of this process: other tests may run beside it."""
    monkeypatch.setattr(wiring, "Exclusive", partial(Exclusive, f"test {os.getpid()}"))
    garage = Garage()
    with garage.stack:
        yield garage


# --- what is opened ---


def test_a_pack_that_switches_itself_has_a_bus_an_inverter_and_no_relay_or_pin_of_ours(garage: Garage):
    ports = garage.open()
    assert ports.battery_bus is not None
    assert ports.registers is not None
    assert (ports.inverter_bus, ports.battery_line, ports.pins, ports.link, ports.heartbeat) == (None,) * 5
    ports.relays.write(frozenset({PACK}))
    with pytest.raises(RelayError):
        ports.relays.write(frozenset({PACK, POSITIVE}))


def test_the_bus_gives_the_ids_of_the_battery_and_takes_ours(garage: Garage):
    ports, other = garage.open(), garage.other_end()
    assert ports.battery_bus
    for can_id in (0x7FF, 0x132):
        other.send(can.Message(arbitration_id=can_id, is_extended_id=False, data=bytes(8)))
    assert [frame.id for frame in ports.battery_bus.receive()] == [0x132]
    ports.battery_bus.send([CanFrame(0x221, bytes(8))])
    heard = other.recv(1)
    assert heard is not None
    assert heard.arbitration_id == 0x221


def test_no_frame_is_younger_than_the_tick_that_takes_it_in(garage: Garage):
    ports, other = garage.open(), garage.other_end()
    assert ports.battery_bus
    ports.clock.now_ms()
    garage.clock.ms += 3
    other.send(can.Message(arbitration_id=0x132, is_extended_id=False, data=bytes(8)))
    assert [frame.at_ms for frame in ports.battery_bus.receive()] == [1000]


def test_relay_feedback_emergency_stop_and_heartbeat_are_on_their_pins(garage: Garage):
    ports = garage.open(RELAY + PINS, wiring="pack+inverter")
    ports.relays.write(frozenset({PACK, POSITIVE}))
    assert garage.pins.pin(22).state
    assert ports.relays.feedback() == {POSITIVE: False}
    garage.pins.pin(13).drive_low()
    garage.pins.pin(24).drive_low()
    assert ports.relays.feedback() == {POSITIVE: True}
    assert ports.pins
    assert ports.pins.read() == Pins(estop_ok=True)
    assert ports.heartbeat
    ports.heartbeat.beat()
    assert garage.pins.pin(12).state


def test_the_inverter_is_answered_on_the_serial_line(garage: Garage):
    ports = garage.open()
    assert ports.registers
    ports.registers.publish({301: (3, 0, 128)})
    poll = bytes.fromhex("1503012C0003")
    os.write(garage.master, poll + checksum(poll))
    polls = 0
    while not polls:
        polls = ports.registers.requests()[1]
    answer = bytes.fromhex("150306000300000080")
    heard = b""
    while len(heard) < 11:
        heard += os.read(garage.master, 11)
    assert heard == answer + checksum(answer)


def test_a_loop_over_real_drivers_reaches_a_state_and_closes_nothing(garage: Garage):
    config = garage.config()
    with garage.wired(config) as ports:
        state = core.start(config.settings, BATTERIES["tesla_model3"], INVERTERS["byd_modbus"], now_ms=1000)
        loop = Loop(state, ports)
        for _ in range(200):
            garage.clock.ms += 10
            assert not loop.tick().closed
        assert loop.error is None
        assert loop.state.supervisor.state is State.STARTING


# --- listening only ---


def test_listening_only_claims_no_relay_and_no_heartbeat_and_transmits_nothing(garage: Garage):
    ports, other = garage.open(RELAY + PINS, wiring="pack+inverter", listen_only=True), garage.other_end()
    assert (ports.registers, ports.heartbeat, ports.link) == (None, None, None)
    assert garage.pins.pin(22).function == garage.pins.pin(12).function == "input"
    assert ports.battery_bus
    with pytest.raises(BusError, match="listening only"):
        ports.battery_bus.send([CanFrame(0x221, bytes(8))])
    with pytest.raises(RelayError):
        ports.relays.write(frozenset({POSITIVE}))
    assert other.recv(0) is None
    other.send(can.Message(arbitration_id=0x132, is_extended_id=False, data=bytes(8)))
    assert [frame.id for frame in ports.battery_bus.receive()] == [0x132]


# --- how it ends ---


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_whatever_ends_the_run_the_relays_are_off_and_the_pins_are_inputs_again(
    garage: Garage, error: type[BaseException]
):
    def run() -> None:
        with garage.wired(garage.config(RELAY + PINS, wiring="pack+inverter")) as ports:
            ports.relays.write(frozenset({POSITIVE}))
            raise error

    with pytest.raises(error):
        run()
    assert not garage.pins.pin(22).state
    assert garage.pins.pin(22).function == garage.pins.pin(12).function == "input"


def test_relays_go_off_before_anything_else_is_closed(garage: Garage, monkeypatch: pytest.MonkeyPatch):
    heard = []
    close = GpioRelays.close

    def noting(relays: GpioRelays) -> None:
        assert ports.battery_bus
        ports.battery_bus.send([CanFrame(0x221, b"")])
        heard.append(relays)
        close(relays)

    monkeypatch.setattr(GpioRelays, "close", noting)
    with garage.wired(garage.config(RELAY + PINS, wiring="pack+inverter")) as ports:
        pass
    assert heard


def test_everything_can_be_opened_again_after_it_was_closed(garage: Garage):
    for _ in range(2):
        with garage.wired(garage.config(RELAY + PINS, wiring="pack+inverter")):
            pass


# --- what is refused ---


def test_a_second_instance_on_the_same_bus_is_refused_in_a_sentence(garage: Garage):
    garage.open()
    with pytest.raises(PortError, match=rf"^CAN bus {garage.channel} \(virtual\) is in use by another controller"):
        garage.open()


@pytest.mark.parametrize(
    ("ours", "theirs", "words"),
    [
        ({}, {}, r"^serial port /dev/pts/\d+ is in use by another controller \(process \d+\); stop that one first$"),
        (
            {"more": RELAY + WATCHDOG.format(12), "wiring": "pack+inverter"},
            {"more": RELAY + WATCHDOG.format(16), "wiring": "pack+inverter"},
            "^GPIO 22 is in use",
        ),
        ({"more": PINS}, {"more": "[pins]\ninterlock = 24\n"}, "^GPIO 24 is in use"),
    ],
)
def test_a_second_instance_on_the_same_port_or_pin_is_refused(
    garage: Garage, ours: dict[str, str], theirs: dict[str, str], words: str
):
    garage.open(**ours)
    garage.new_bus()
    if "serial" not in words:
        garage.new_port()
    with pytest.raises(PortError, match=words):
        garage.open(**theirs)


def test_two_names_of_one_port_are_one_port(garage: Garage, tmp_path: Path):
    garage.open()
    other_name = tmp_path / "usb-FTDI"
    other_name.symlink_to(garage.port)
    garage.new_bus()
    garage.port = str(other_name)
    with pytest.raises(PortError, match="is in use by another controller"):
        garage.open()


def test_when_the_last_device_cannot_be_opened_everything_before_it_is_let_go(garage: Garage):
    garage.port, port = "/dev/none", garage.port
    with pytest.raises(PortError, match=r"^\[serial\] port /dev/none: "):
        garage.open(RELAY + PINS, wiring="pack+inverter")
    assert garage.pins.pin(22).function == "input"
    garage.port = port
    garage.open(RELAY + PINS, wiring="pack+inverter")


def test_a_relay_board_that_does_not_answer_is_told_with_its_section_and_port(garage: Garage):
    port = garage.port
    garage.new_port()
    board = f'[relays]\nkind = "modbus"\npositive = 1\nport = "{port}"\n{PINS}'
    with pytest.raises(PortError, match=rf"^\[relays\] {port}: no answer from Modbus unit 1; check"):
        garage.open(board, wiring="pack+inverter")


def test_a_pin_factory_that_cannot_be_opened_is_told_as_it_is(garage: Garage):
    def no_chip() -> Any:
        raise PortError("GPIO: no chip")

    config = garage.config(PINS)
    with pytest.raises(PortError, match="GPIO: no chip"):
        garage.stack.enter_context(
            wired(config, BATTERIES["tesla_model3"], INVERTERS["byd_modbus"], clock=garage.clock,
                  events=garage.events, records=MemoryRecords(), gpio=no_chip)
        )  # fmt: skip
