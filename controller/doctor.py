"""`controller doctor`: looks at the machine the controller is to run on, and says how to mend what it finds.

Every check looks through a Machine, so that each finding can be planted in a test.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from controller.batteries.base import BatteryProtocol
from controller.config import Config
from controller.inverters.base import InverterProtocol

USER: Final = "packwarden"
UNIT: Final = "packwarden-control.service"
STATE_FOLDER: Final = "/var/lib/packwarden"
FREE_MIN_BYTES: Final = 100 * 1024 * 1024
UART_PINS: Final = frozenset({14, 15})
SPI_PINS: Final = frozenset({7, 8, 9, 10, 11})
PERSISTING: Final = tuple(f"/sys/module/pinctrl_{chip}/parameters/persist_gpio_outputs" for chip in ("bcm2835", "rp1"))
"""Whether this Pi's kernel goes on driving an output whose program has ended (raspberrypi/linux, pull request 6150)."""
UARTS: Final = ("/dev/ttyAMA0", "/dev/serial0", "/dev/ttyS0")


class Reading(NamedTuple):
    """One thing looked at. mend: what to do about it, empty when nothing is wrong."""

    name: str
    what: str
    mend: str = ""


class Machine(Protocol):
    """What a check may ask of the machine."""

    def output(self, *command: str) -> str | None:
        """What a program prints; None when it is missing or fails."""

    def text(self, path: str) -> str | None:
        """A file's text; None when it cannot be read."""

    def exists(self, path: str) -> bool: ...

    def usable(self, path: str) -> bool:
        """Whether the service's user, or whoever asks where that does not exist, may read and write it."""

    def free_bytes(self, path: str) -> int | None:
        """Room on the disk of this folder; None when it is not there."""

    def word_bits(self) -> int: ...


class Here:
    """The machine this runs on."""

    def output(self, *command: str) -> str | None:
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout

    def text(self, path: str) -> str | None:
        try:
            return Path(path).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None

    def exists(self, path: str) -> bool:
        return os.path.exists(path)

    def usable(self, path: str) -> bool:
        try:
            user, found = pwd.getpwnam(USER), os.stat(path)
            groups = os.getgrouplist(USER, user.pw_gid)
        except (KeyError, OSError):
            return os.access(path, os.R_OK | os.W_OK)
        both = 0o600 if found.st_uid == user.pw_uid else 0o060 if found.st_gid in groups else 0o006
        return stat.S_IMODE(found.st_mode) & both == both

    def free_bytes(self, path: str) -> int | None:
        try:
            return shutil.disk_usage(path).free
        except OSError:
            return None

    def word_bits(self) -> int:
        return int(os.sysconf("SC_LONG_BIT"))


class Setup(NamedTuple):
    """What the config asks of the machine."""

    config: Config
    battery: BatteryProtocol
    inverter: InverterProtocol

    def value(self, path: str) -> Any:
        return self.config.values.get(path)

    @property
    def buses(self) -> tuple[str, ...]:
        """Config sections of the CAN buses in use."""
        pack = () if self.battery.line else ("can",)
        return (*pack, "inverter_can") if self.inverter.bitrate else pack

    @property
    def ports(self) -> Iterator[tuple[str, str]]:
        """(config key, path) of each serial port in use."""
        used = {
            "battery_serial.port": bool(self.battery.line),
            "serial.port": bool(self.inverter.line),
            "relays.port": self.value("relays.kind") == "modbus",
            "link.port": self.value("link.source") == "modbus",
        }
        yield from ((key, self.value(key)) for key, wanted in used.items() if wanted)
        for bus in self.buses:
            if self.value(f"{bus}.interface") == "slcan":
                yield f"{bus}.channel", self.value(f"{bus}.channel")

    @property
    def pins(self) -> dict[int, str]:
        """GPIO number → config key, of every pin in use."""
        sections = ("relays", "pins") if self.value("relays.kind") == "gpio" else ("pins",)
        return {
            self.config.values[key.path]: key.path
            for key in self.config.keys
            if key.section in sections and key.kind is int and key.default is None and self.value(key.path) is not None
        }


def examine(machine: Machine, setup: Setup | None) -> Iterator[Reading]:
    """Everything looked at, in order. Without a setup only what every machine needs."""
    for check in (_word_size, _clock, _watchdog, _power, _records, _unit):
        yield from check(machine)
    if setup is not None:
        for look in (_buses, _serial_ports, _gpio, _safety_inputs):
            yield from look(machine, setup)


def _word_size(machine: Machine) -> Iterator[Reading]:
    bits = machine.word_bits()
    mend = "" if bits == 64 else "write the 64-bit Raspberry Pi OS to the card; 32-bit is not supported"
    yield Reading("system", f"{bits}-bit", mend)


def _clock(machine: Machine) -> Iterator[Reading]:
    said = machine.output("timedatectl", "show", "-p", "NTPSynchronized", "--value")
    if said is None:
        yield Reading("clock", "cannot be asked (timedatectl)", "install systemd-timesyncd: times in history need it")
    elif said.strip() == "yes":
        yield Reading("clock", "synchronised")
    else:
        mend = "connect to a network once, or fit a clock module: control does not need it, history does"
        yield Reading("clock", "not synchronised", mend)


def _watchdog(machine: Machine) -> Iterator[Reading]:
    if not machine.exists("/dev/watchdog"):
        yield Reading("watchdog", "no /dev/watchdog", "add dtparam=watchdog=on to /boot/firmware/config.txt")
        return
    said = (machine.output("systemctl", "show", "-p", "RuntimeWatchdogUSec", "--value") or "").strip()
    if said in ("", "0", "infinity"):
        mend = "set RuntimeWatchdogSec=15 in /etc/systemd/system.conf: a hung kernel then restarts the Pi"
        yield Reading("watchdog", "there, not used by systemd", mend)
    else:
        yield Reading("watchdog", f"fed by systemd ({said})")


def _power(machine: Machine) -> Iterator[Reading]:
    said = machine.output("vcgencmd", "get_throttled")
    if said is None:
        return
    found = re.search(r"0x([0-9a-fA-F]+)", said)
    bits = int(found[1], 16) if found else 0
    if bits & 0x1_0001:
        yield Reading("power", "the supply has dropped below 4.63 V", "use a better supply or a shorter cable")
    else:
        yield Reading("power", "supply voltage was good since boot")


def _records(machine: Machine) -> Iterator[Reading]:
    free = machine.free_bytes(STATE_FOLDER)
    if free is None:
        yield Reading("records", f"no {STATE_FOLDER}", "run sudo ./install.sh: without its record nothing is closed")
    elif not machine.usable(STATE_FOLDER):
        mend = f"sudo chown {USER}: {STATE_FOLDER}; is the disk mounted read-only? (findmnt /)"
        yield Reading("records", f"{STATE_FOLDER} cannot be written by {USER}", mend)
    elif free < FREE_MIN_BYTES:
        yield Reading("records", f"{free // 1024 // 1024} MiB free", "make room: sudo journalctl --vacuum-size=100M")
    else:
        yield Reading("records", f"{STATE_FOLDER} writable, {free // 1024 // 1024} MiB free")


def _unit(machine: Machine) -> Iterator[Reading]:
    enabled = (machine.output("systemctl", "is-enabled", UNIT) or "").strip()
    active = (machine.output("systemctl", "show", "-p", "ActiveState", "--value", UNIT) or "").strip()
    if enabled != "enabled":
        yield Reading(
            "service", f"{UNIT} does not start at boot", f"sudo ./install.sh, or sudo systemctl enable {UNIT}"
        )
    elif active == "failed":
        yield Reading("service", f"{UNIT} has failed", f"journalctl -u {UNIT} -n 50 says why")
    else:
        yield Reading("service", f"{UNIT} is {active or 'unknown'}, starts at boot")


def _buses(machine: Machine, setup: Setup) -> Iterator[Reading]:
    for bus in setup.buses:
        name, interface = setup.value(f"{bus}.channel"), setup.value(f"{bus}.interface")
        if interface == "socketcan":
            bitrate = setup.inverter.bitrate if bus == "inverter_can" else setup.value(f"{bus}.bitrate")
            yield _socketcan(machine, f"{bus}.channel", name, bitrate)


def _socketcan(machine: Machine, key: str, name: str, bitrate: int | None) -> Reading:
    said = machine.output("ip", "-json", "-details", "link", "show", "dev", name)
    links = json.loads(said) if said else []
    if not links:
        mend = f"set {key} to what `ip link` shows, or load its driver: docs/wiring.md has the line for your HAT"
        return Reading(key, f"there is no {name}", mend)
    info = links[0].get("linkinfo", {})
    data = info.get("info_data", {})
    up = f"sudo ip link set {name} up type can bitrate {bitrate} restart-ms 100"
    if "UP" not in links[0].get("flags", []):
        return Reading(key, f"{name} is down", f"{up}; for every boot: /etc/systemd/network/80-packwarden-can.network")
    if info.get("info_kind") == "vcan":
        return Reading(key, f"{name} is up (virtual: no pack is on it)")
    actual, state = data.get("bittiming", {}).get("bitrate"), data.get("state", "")
    if actual != bitrate:
        return Reading(key, f"{name} runs at {actual} bit/s, not {bitrate}", f"sudo ip link set {name} down; {up}")
    if state == "BUS-OFF":
        return Reading(key, f"{name} is bus-off", "check bit rate, wiring and terminators (60 Ω between H and L)")
    if state == "ERROR-PASSIVE":
        return Reading(key, f"{name} is error-passive", "nobody acknowledges: is the other end powered and wired?")
    if not data.get("restart_ms"):
        return Reading(key, f"{name} does not recover from bus-off", f"sudo ip link set {name} down; {up}")
    return Reading(key, f"{name} is up, {actual} bit/s, {state}")


def _serial_ports(machine: Machine, setup: Setup) -> Iterator[Reading]:
    console = machine.text("/proc/cmdline") or ""
    for key, path in setup.ports:
        if not machine.exists(path):
            by_id = (machine.output("ls", "/dev/serial/by-id") or "").split()
            mend = f"set {key} to one of /dev/serial/by-id/: {', '.join(by_id)}" if by_id else "plug the adapter in"
            yield Reading(key, f"there is no {path}", mend)
        elif not machine.usable(path):
            yield Reading(key, f"{path} may not be used by {USER}", f"sudo usermod -aG dialout {USER}")
        elif path in UARTS and re.search(r"console=(ttyAMA0|serial0|ttyS0)", console):
            mend = "sudo raspi-config: serial port on, login shell over serial off"
            yield Reading(key, f"{path} is also the kernel's console", mend)
        else:
            yield Reading(key, f"{path} is there")


def _gpio(machine: Machine, setup: Setup) -> Iterator[Reading]:
    if not setup.pins:
        return
    if not machine.exists("/dev/gpiochip0"):
        yield Reading("pins", "there is no /dev/gpiochip0", "this is no Raspberry Pi, or its kernel is too old")
        return
    if not machine.usable("/dev/gpiochip0"):
        yield Reading("pins", f"/dev/gpiochip0 may not be used by {USER}", f"sudo usermod -aG gpio {USER}")
        return
    if setup.value("relays.kind") == "gpio" and any((machine.text(path) or "").strip() == "Y" for path in PERSISTING):
        mend = "add dtparam=strict_gpiod to /boot/firmware/config.txt and restart: a killed controller leaves relays on"
        yield Reading("pins", "the kernel goes on driving outputs of a program that was killed", mend)
    taken: dict[int, str] = {}
    if any(path in UARTS for _, path in setup.ports):
        taken |= dict.fromkeys(UART_PINS, "the serial port")
    if any(setup.value(f"{bus}.interface") == "socketcan" for bus in setup.buses):
        spi = machine.exists("/dev/spidev0.0") or "spi" in (machine.output("ls", "-l", "/sys/class/net") or "")
        taken |= dict.fromkeys(SPI_PINS, "SPI") if spi else {}
    clashes = [(key, pin) for pin, key in setup.pins.items() if pin in taken]
    for key, pin in clashes:
        yield Reading(key, f"GPIO {pin} belongs to {taken[pin]}", "take another pin: docs/wiring.md shows free ones")
    if not clashes:
        yield Reading("pins", f"{len(setup.pins)} pins, none taken by something else")


def _safety_inputs(machine: Machine, setup: Setup) -> Iterator[Reading]:
    """What the safety concept expects outside the software (docs/wiring.md) and the config does not insist on."""
    if setup.value("wiring.kind") == "none":
        return
    estop = setup.value("pins.estop")
    mend = "wire the second contact of the emergency stop: docs/wiring.md" if estop is None else ""
    yield Reading("pins.estop", "not wired" if estop is None else f"GPIO {estop}", mend)
