"""The doctor: each fault is planted once, found, and told how to mend."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from controller import config as configs
from controller.batteries.registry import BATTERIES
from controller.config import Catalogue
from controller.doctor import STATE_FOLDER, UNIT, Reading, Setup, examine
from controller.inverters.registry import INVERTERS

CATALOGUE = Catalogue(BATTERIES, INVERTERS)


def can_link(**changes: object) -> str:
    data = {"state": "ERROR-ACTIVE", "bittiming": {"bitrate": 500_000}, "restart_ms": 100} | changes
    return json.dumps([{"flags": ["UP"], "linkinfo": {"info_kind": "can", "info_data": data}}])


IP = ("ip", "-json", "-details", "link", "show", "dev", "can0")


@dataclass
class SaidMachine:
    """A healthy Pi; a test spoils one thing of it."""

    outputs: dict[tuple[str, ...], str | None] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=lambda: {"/proc/cmdline": "console=tty1 root=/dev/mmcblk0p2"})
    there: set[str] = field(
        default_factory=lambda: {"/dev/watchdog", "/dev/ttyUSB0", "/dev/gpiochip0", "/dev/ttyAMA0"}
    )  # fmt: skip
    unusable: set[str] = field(default_factory=set)
    free: int | None = 5_000_000_000
    bits: int = 64

    def __post_init__(self) -> None:
        healthy = {
            ("timedatectl", "show", "-p", "NTPSynchronized", "--value"): "yes\n",
            ("systemctl", "show", "-p", "RuntimeWatchdogUSec", "--value"): "15s\n",
            ("vcgencmd", "get_throttled"): "throttled=0x0\n",
            ("systemctl", "is-enabled", UNIT): "enabled\n",
            ("systemctl", "show", "-p", "ActiveState", "--value", UNIT): "active\n",
            IP: can_link(),
        }
        self.outputs = healthy | self.outputs

    def output(self, *command: str) -> str | None:
        return self.outputs.get(command)

    def text(self, path: str) -> str | None:
        return self.texts.get(path)

    def exists(self, path: str) -> bool:
        return path in self.there

    def usable(self, path: str) -> bool:
        return path not in self.unusable

    def free_bytes(self, path: str) -> int | None:
        return self.free

    def word_bits(self) -> int:
        return self.bits


def setup(extra: str = "", wiring: str = "pack") -> Setup:
    text = configs.template(CATALOGUE, "tesla_model3", "byd_modbus", wiring)
    values = {"pins.estop": 5, "pins.heartbeat": 6} if not extra else {}
    config = configs.parse(text, "test", CATALOGUE)
    object.__setattr__(config, "values", {**config.values, **values, **_parsed(extra)})
    return Setup(config, BATTERIES["tesla_model3"], INVERTERS["byd_modbus"])


def _parsed(extra: str) -> dict[str, object]:
    pairs = (pair.split("=") for pair in extra.split())
    return {key: int(value) if value.isdigit() else value for key, value in pairs}


def findings(machine: SaidMachine, about: Setup | None = None) -> list[Reading]:
    return [reading for reading in examine(machine, about or setup()) if reading.mend]


def test_a_healthy_machine_has_no_findings_and_every_part_was_looked_at():
    readings = list(examine(SaidMachine(), setup()))
    assert [r for r in readings if r.mend] == []
    assert {r.name for r in readings} >= {
        "system", "clock", "watchdog", "power", "records", "service", "can.channel", "serial.port", "pins",
    }  # fmt: skip


def spoilt(**changes: object) -> Callable[[], SaidMachine]:
    return lambda: SaidMachine(**changes)  # type: ignore[arg-type]


def link(text: str | None) -> Callable[[], SaidMachine]:
    return spoilt(outputs={IP: text})


PLANTED = {
    "32 bit": (spoilt(bits=32), "system", "64-bit"),
    "clock not synchronised": (
        spoilt(outputs={("timedatectl", "show", "-p", "NTPSynchronized", "--value"): "no\n"}), "clock", "network",
    ),
    "clock cannot be asked": (
        spoilt(outputs={("timedatectl", "show", "-p", "NTPSynchronized", "--value"): None}), "clock", "timesyncd",
    ),
    "no watchdog": (spoilt(there={"/dev/ttyUSB0", "/dev/gpiochip0"}), "watchdog", "dtparam"),
    "watchdog not fed": (
        spoilt(outputs={("systemctl", "show", "-p", "RuntimeWatchdogUSec", "--value"): "0\n"}), "watchdog",
        "RuntimeWatchdogSec",
    ),
    "weak supply": (spoilt(outputs={("vcgencmd", "get_throttled"): "throttled=0x50005\n"}), "power", "supply"),
    "no state folder": (spoilt(free=None), "records", "install"),
    "state folder read-only": (spoilt(unusable={STATE_FOLDER}), "records", "chown"),
    "disk full": (spoilt(free=1000), "records", "room"),
    "unit not enabled": (spoilt(outputs={("systemctl", "is-enabled", UNIT): "disabled\n"}), "service", "enable"),
    "unit failed": (
        spoilt(outputs={("systemctl", "show", "-p", "ActiveState", "--value", UNIT): "failed\n"}), "service",
        "journalctl",
    ),
    "no can0": (link(None), "can.channel", "ip link"),
    "can0 down": (link(json.dumps([{"flags": []}])), "can.channel", "up type can bitrate 500000"),
    "wrong bit rate": (link(can_link(bittiming={"bitrate": 250_000})), "can.channel", "500000"),
    "bus-off": (link(can_link(state="BUS-OFF")), "can.channel", "terminators"),
    "error-passive": (link(can_link(state="ERROR-PASSIVE")), "can.channel", "wired"),
    "no restart": (link(can_link(restart_ms=0)), "can.channel", "restart-ms"),
    "no serial port": (spoilt(there={"/dev/watchdog", "/dev/gpiochip0"}), "serial.port", "adapter"),
    "serial port not ours": (spoilt(unusable={"/dev/ttyUSB0"}), "serial.port", "dialout"),
    "no gpio chip": (spoilt(there={"/dev/watchdog", "/dev/ttyUSB0"}), "pins", "Raspberry"),
    "gpio not ours": (spoilt(unusable={"/dev/gpiochip0"}), "pins", "gpio"),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_found_and_told_how_to_mend(name: str):
    make, where, mend = PLANTED[name]
    found = findings(make())
    assert [reading.name for reading in found] == [where]
    assert mend in found[0].mend


def test_the_uart_that_is_the_kernels_console_is_found():
    machine = SaidMachine(texts={"/proc/cmdline": "console=ttyAMA0,115200"})
    found = findings(machine, setup("serial.port=/dev/ttyAMA0 pins.estop=5"))
    assert [(reading.name, "raspi-config" in reading.mend) for reading in found] == [("serial.port", True)]


def test_a_pin_of_the_uart_is_found():
    found = findings(SaidMachine(), setup("serial.port=/dev/ttyAMA0 pins.estop=14"))
    assert [reading.name for reading in found] == ["pins.estop"]


def test_an_emergency_stop_that_is_not_wired_is_found():
    assert [reading.name for reading in findings(SaidMachine(), setup("pins.heartbeat=6"))] == ["pins.estop"]


@pytest.mark.parametrize("chip", ["bcm2835", "rp1"])
def test_a_kernel_that_keeps_the_relays_of_a_killed_controller_on_is_found(chip: str):
    machine = SaidMachine(texts={f"/sys/module/pinctrl_{chip}/parameters/persist_gpio_outputs": "Y\n"})
    found = findings(machine, setup("pins.estop=5", wiring="pack+inverter"))
    assert [(reading.name, "dtparam=strict_gpiod" in reading.mend) for reading in found] == [("pins", True)]
    assert findings(machine, setup("pins.estop=5")) == []  # the pack switches itself
    machine.texts = dict.fromkeys(machine.texts, "N\n")
    assert findings(machine, setup("pins.estop=5", wiring="pack+inverter")) == []


def test_a_virtual_bus_says_so():
    machine = SaidMachine(outputs={IP: json.dumps([{"flags": ["UP"], "linkinfo": {"info_kind": "vcan"}}])})
    assert any("virtual" in reading.what for reading in examine(machine, setup()))


def test_without_a_config_the_machine_alone_is_looked_at():
    assert {reading.name for reading in examine(SaidMachine(), None)} == {
        "system", "clock", "watchdog", "power", "records", "service",
    }  # fmt: skip
