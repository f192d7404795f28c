"""The controller on an emulated Raspberry Pi 3B: installed as a user would, a pack on vcan0, a Gen24 on its UART.

What is real there: the kernel's SocketCAN, GPIO chip, UART and systemd. The tests are one story, told in order.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sim.gen24 import Gen24
from tests.pi.machine import Pi, card, parts

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "out" / "pi"
PYTHON = "/opt/packwarden/current/bin/python"
ESTOP, HEARTBEAT, INVERTER_RELAY = 5, 6, 17
CONFIG = {
    "can.channel": "vcan0", "serial.port": "/dev/ttyAMA0", "pins.estop": ESTOP, "pins.heartbeat": HEARTBEAT,
    "relays.positive": INVERTER_RELAY,
}  # fmt: skip
PLATFORMS = ("manylinux_2_36_aarch64", "manylinux_2_34_aarch64", "manylinux_2_28_aarch64", "manylinux_2_17_aarch64",
             "manylinux2014_aarch64")  # fmt: skip
MOVE_PIN = """
import mmap, os, sys
pin, high = int(sys.argv[1]), sys.argv[2] == 'high'
memory = mmap.mmap(os.open('/dev/mem', os.O_RDWR | os.O_SYNC), 4096, offset=0x3f200000)
at = 0x1c if high else 0x28
memory[at:at + 4] = (1 << pin).to_bytes(4, 'little')
"""

pytestmark = pytest.mark.pi


class Inverter:
    """A Gen24 on the machine's UART, in real time, in a thread of its own."""

    def __init__(self, pi: Pi) -> None:
        self.gen24, self.pi = Gen24(), pi
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._live, daemon=True)
        self.thread.start()

    def _live(self) -> None:
        begun_s, heard = time.monotonic(), b""
        while not self.over.is_set():
            now_ms = int((time.monotonic() - begun_s) * 100) * 10
            try:
                self.pi.rs485.settimeout(0.01)
                heard = self.pi.rs485.recv(4096)
            except TimeoutError:
                heard = b""
            except OSError:
                return
            status = self.gen24.status
            volts = 360.0 if status == 3 else 0.0
            if sent := self.gen24.step(now_ms, heard, volts, 0.0):
                self.pi.rs485.sendall(sent)

    def stop(self) -> None:
        self.over.set()
        self.thread.join()


def wheels(folder: Path) -> Path:
    """Everything `install.sh --wheels` needs on the guest."""
    shutil.rmtree(folder, ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "-q", "--no-deps", "-w", str(folder), str(ROOT)], check=True)
    platforms = [part for platform in PLATFORMS for part in ("--platform", platform)]
    subprocess.run(
        [*pip, "download", "-q", "--only-binary=:all:", "--python-version", "3.11", "--implementation", "cp",
         *platforms, "-d", str(folder), "--find-links", str(folder), "packwarden[pi]"],
        check=True,
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def pi() -> Iterator[Pi]:
    if shutil.which("qemu-system-aarch64") is None or shutil.which("mmdebstrap") is None or os.getuid() != 0:
        pytest.skip("needs root, qemu-system-arm and mmdebstrap: tests/pi/README.md")
    FOLDER.mkdir(parents=True, exist_ok=True)
    base, project = parts(FOLDER / "base"), FOLDER / "project"
    shutil.rmtree(project, ignore_errors=True)
    project.mkdir()
    for name in ("install.sh", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, project / name)
    shutil.copy(ROOT / "tests/pi/pack_on_bus.py", project / "pack_on_bus.py")
    image = FOLDER / "sd.img"
    card(base, image, {"/root/packwarden": project, "/root/wheels": wheels(FOLDER / "wheels")})
    with Pi(base, image, FOLDER / "qemu.log") as machine:
        yield machine


@pytest.fixture(scope="module")
def inverter(pi: Pi) -> Iterator[Inverter]:
    partner = Inverter(pi)
    yield partner
    partner.stop()


def status(pi: Pi) -> dict[str, object]:
    told: dict[str, object] = json.loads(pi.check("controller status --json"))
    return told


def until_state(pi: Pi, *states: str, timeout_s: float = 180) -> dict[str, object]:
    """Ask until it is in one of these states."""
    pi.until("controller status --json", f'"state": "({"|".join(states)})"', timeout_s)
    return status(pi)


def pins(pi: Pi, pin: int) -> str:
    """What the kernel itself says of a pin: `function gpio_out in hi`."""
    where = "/sys/kernel/debug/pinctrl/3f200000.gpio-pinctrl-bcm2835/pins"
    return pi.check(f"grep -w 'pin {pin} ' {where}")


def buses_up(pi: Pi) -> None:
    pi.check("modprobe vcan; ip link add dev vcan0 type vcan; ip link set up vcan0")
    move(pi, ESTOP, "low")


def move(pi: Pi, pin: int, level: str) -> None:
    """Set an input's level from outside: QEMU's GPIO has no input lines, its level registers can be written."""
    pi.check(f"{PYTHON} /root/move_pin.py {pin} {level}")


def running(pi: Pi) -> dict[str, object]:
    """Enabled and closed, whatever was before."""
    pi.check("controller enable")
    return until_state(pi, "RUNNING")


def test_it_is_installed_by_the_one_documented_command_and_is_not_started_before_its_config_is_right(pi: Pi):
    pi.check(f"cat > /root/move_pin.py <<'EOF'\n{MOVE_PIN}\nEOF")
    said = pi.check("/root/packwarden/install.sh --wheels /root/wheels", timeout_s=600)
    assert "installed" in said
    assert "packwarden" in pi.check("controller --version")


def test_configured_and_started_it_waits_with_nothing_energised(pi: Pi, inverter: Inverter):
    buses_up(pi)
    pi.check("rm /etc/packwarden/controller.toml")
    pi.check("controller config init --wiring pack+inverter -o /etc/packwarden/controller.toml")
    for key, value in CONFIG.items():
        pi.check(f"controller config set {key} {value} --config /etc/packwarden/controller.toml", timeout_s=60)
    pi.check("systemctl restart packwarden-control", timeout_s=180)
    told = until_state(pi, "STARTING", "STANDBY")
    assert told["closed"] == []
    assert "gpio_out in lo" in pins(pi, INVERTER_RELAY)


def test_cold_start_to_running(pi: Pi, inverter: Inverter):
    pi.check(f"systemd-run --unit=pack {PYTHON} /root/packwarden/pack_on_bus.py")
    until_state(pi, "STANDBY")
    told = running(pi)
    assert told["closed"] == ["pack", "positive"]
    assert "gpio_out in hi" in pins(pi, INVERTER_RELAY)
    assert inverter.gen24.refusals == 0


def test_the_emergency_stop_opens_and_is_acknowledged_by_name(pi: Pi, inverter: Inverter):
    move(pi, ESTOP, "high")
    until_state(pi, "VERIFYING_OPEN", "FAULT")
    assert "gpio_out in lo" in pins(pi, INVERTER_RELAY)
    move(pi, ESTOP, "low")
    until_state(pi, "FAULT")
    pi.until("controller acknowledge e-stop-open", "acknowledged", timeout_s=60)
    until_state(pi, "STANDBY")
    running(pi)


def test_a_pack_that_falls_silent_is_opened(pi: Pi, inverter: Inverter):
    pi.check("touch /run/pack-silent")
    until_state(pi, "VERIFYING_OPEN", "FAULT", "STANDBY", "LOCKED_OUT")
    assert "gpio_out in lo" in pins(pi, INVERTER_RELAY)
    pi.check("rm /run/pack-silent")
    until_state(pi, "STANDBY", "RUNNING", timeout_s=240)
    running(pi)


def test_a_bus_that_goes_down_is_opened_and_comes_back(pi: Pi, inverter: Inverter):
    pi.check("ip link set vcan0 down")
    until_state(pi, "VERIFYING_OPEN", "FAULT", "STANDBY", "LOCKED_OUT")
    assert "gpio_out in lo" in pins(pi, INVERTER_RELAY)
    pi.check("ip link set vcan0 up")
    until_state(pi, "STANDBY", "RUNNING", timeout_s=240)
    running(pi)


def test_killed_its_pins_are_inputs_again_and_it_comes_back_knowing(pi: Pi, inverter: Inverter):
    pi.check("systemctl kill -s KILL --kill-whom=main packwarden-control")
    assert "gpio_in" in pi.until(f"grep -w 'pin {INVERTER_RELAY} ' "
                                 "/sys/kernel/debug/pinctrl/3f200000.gpio-pinctrl-bcm2835/pins; systemctl is-active "
                                 "packwarden-control", "gpio_in", timeout_s=30)  # fmt: skip
    told = until_state(pi, "FAULT", "STANDBY", timeout_s=240)
    assert any(fault["id"] == "unclean-restart" for fault in told["faults"]) or told["state"] == "STANDBY"  # type: ignore[attr-defined]


def test_hung_it_is_ended_by_the_watchdog(pi: Pi, inverter: Inverter):
    before = pi.check("systemctl show -p MainPID --value packwarden-control").strip()
    pi.check(f"kill -STOP {before}")
    pi.until("systemctl show -p NRestarts,Result --value packwarden-control; journalctl -u packwarden-control "
             "--no-pager -n 30", "atchdog", timeout_s=120)  # fmt: skip
    until_state(pi, "STARTING", "STANDBY", "FAULT", timeout_s=240)


def test_stopped_it_opens_gracefully_and_ends_well(pi: Pi, inverter: Inverter):
    until_state(pi, "STANDBY", "FAULT", timeout_s=240)
    pi.run("controller acknowledge unclean-restarts-spent")
    pi.run("controller acknowledge closings-spent")
    until_state(pi, "STANDBY", timeout_s=240)
    running(pi)
    pi.check("systemctl stop packwarden-control", timeout_s=120)
    assert pi.check("systemctl show -p Result --value packwarden-control").strip() == "success"
    assert "gpio_out in hi" not in pins(pi, INVERTER_RELAY)


def test_after_a_power_cut_while_closed_it_stays_open_until_a_person_enables_it(pi: Pi, inverter: Inverter):
    pi.check("systemctl start packwarden-control", timeout_s=120)
    running(pi)
    pi.check("sync")
    inverter.stop()
    pi.cut_power()
    pi.start()
    assert "gpio_out in hi" not in pins(pi, INVERTER_RELAY)
    buses_up(pi)
    told = until_state(pi, "STARTING", "VERIFYING_OPEN", "FAULT", "STANDBY", timeout_s=240)
    assert told["enabled"] is False
    assert told["closed"] == []
