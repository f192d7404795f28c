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
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from sim.gen24 import Gen24
from tests.pi.machine import Pi, PiError, card, parts

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "out" / "pi"
PYTHON = "/opt/packwarden/current/bin/python"
ESTOP, HEARTBEAT, INVERTER_RELAY = 5, 6, 17
TOML = "/etc/packwarden/controller.toml"
PINS = "/sys/kernel/debug/pinctrl/3f200000.gpio-pinctrl-bcm2835/pins"
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

ASK = """
import socket, sys
link = socket.socket(socket.AF_UNIX)
link.connect(sys.argv[1])
link.sendall(b'{"version": 1, "do": "status"}\\n')
told = b""
while not told.endswith(b"\\n"):
    piece = link.recv(65536)
    if not piece:
        sys.exit(2)
    told += piece
print(told.decode())
"""
"""`controller status --json` for next to nothing: its imports cost an emulated processor seconds."""
STATUS = "python3 -SE /root/ask.py /run/packwarden/control.sock"

pytestmark = pytest.mark.pi


class Inverter:
    """A Gen24 on the machine's UART, by the machine's clock, in a thread of its own."""

    def __init__(self, pi: Pi) -> None:
        self.gen24, self.pi = Gen24(), pi
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._live, daemon=True)
        self.thread.start()

    def _live(self) -> None:
        begun_ms, heard = self.pi.now_ms, b""
        while not self.over.is_set():
            now_ms = (self.pi.now_ms - begun_ms) // 10 * 10
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
    project = FOLDER / "project"
    try:
        base = parts(FOLDER / "base")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"the image cannot be made here: {error}")
    shutil.rmtree(project, ignore_errors=True)
    project.mkdir()
    for name in ("install.sh", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, project / name)
    shutil.copy(ROOT / "tests/pi/pack_on_bus.py", project / "pack_on_bus.py")
    image = FOLDER / "sd.img"
    card(base, image, {"/root/packwarden": project, "/root/wheels": wheels(FOLDER / "wheels")})
    with Pi(base, image, FOLDER / "qemu.log") as machine:
        yield machine
        with suppress(PiError):
            (FOLDER / "journal.txt").write_text(
                machine.run("journalctl -u packwarden-control -u pack -n 100 -o short-monotonic --no-pager")[1]
            )


@pytest.fixture(scope="module")
def inverter(pi: Pi) -> Iterator[Inverter]:
    partner = Inverter(pi)
    yield partner
    partner.stop()


def until_state(pi: Pi, *states: str, timeout_s: float = 180) -> dict[str, object]:
    """Ask until it is in one of these states; the status that said so."""
    told: dict[str, object] = json.loads(pi.until(STATUS, f'"state": "({"|".join(states)})"', timeout_s))["status"]
    return told


def pin(pi: Pi, number: int) -> str:
    """What the kernel itself says of a pin: `function gpio_out in hi`."""
    return pi.check(f"grep -w 'pin {number} ' {PINS}")


def drops(pi: Pi, number: int, timeout_s: float = 60) -> None:
    """Wait until nobody drives the pin high any more."""
    pi.until(f"grep -w 'pin {number} ' {PINS}", "gpio_out in lo|gpio_in", timeout_s)


def buses_up(pi: Pi) -> None:
    pi.check("modprobe vcan; ip link add dev vcan0 type vcan; ip link set up vcan0")
    move(pi, ESTOP, "low")


def move(pi: Pi, pin: int, level: str) -> None:
    """Set an input's level from outside: QEMU's GPIO has no input lines, its level registers can be written."""
    pi.check(f"python3 -SE /root/move_pin.py {pin} {level}")


def running(pi: Pi) -> dict[str, object]:
    """Enabled and closed; the story closes more often than six times an hour, which is to be acknowledged."""
    if "closings" in pi.check("controller enable"):
        pi.check("controller acknowledge closings-spent")
    return until_state(pi, "RUNNING")


def causes(told: dict[str, object]) -> set[str]:
    """The ids of the faults in a status."""
    return {fault["id"] for fault in told["faults"]}  # type: ignore[attr-defined]


def test_it_is_installed_by_the_one_documented_command_and_says_that_its_bus_is_missing(pi: Pi):
    pi.check(f"cat > /root/move_pin.py <<'EOF'\n{MOVE_PIN}\nEOF")
    pi.check(f"cat > /root/ask.py <<'EOF'\n{ASK}\nEOF")
    said = pi.check("/root/packwarden/install.sh --wheels /root/wheels", timeout_s=600)
    assert "installed, but the service does not start yet" in said
    assert "packwarden" in pi.check("controller --version")
    assert "channel can0" in pi.check("journalctl -u packwarden-control -o cat --no-pager")


def test_the_doctor_finds_each_planted_fault_and_says_how_to_mend_it(pi: Pi):
    pi.check("systemctl stop packwarden-control")
    buses_up(pi)
    pi.check(f"rm {TOML}; controller config init --wiring pack+inverter -o {TOML}")
    for key, value in CONFIG.items():
        pi.check(f"controller config set {key} {value} --config {TOML}")
    pi.check(f"sed 's/vcan0/vcan1/; s/^estop = .*/estop = 14/' {TOML} > /root/faulty.toml")
    pi.check("ip link add dev vcan1 type vcan; chmod 600 /dev/ttyAMA0; chown root /var/lib/packwarden; "
             "systemctl disable packwarden-control")  # fmt: skip
    status, told = pi.run("controller doctor --config /root/faulty.toml --json")
    found = {reading["name"]: reading for reading in json.loads(told)["readings"] if reading["mend"]}
    assert status == 1
    for name, what in (("can.channel", "vcan1 is down"), ("serial.port", "may not be used by packwarden"),
                       ("pins.estop", "GPIO 14 belongs to the serial port"), ("records", "cannot be written"),
                       ("service", "does not start at boot"), ("clock", "not synchronised")):  # fmt: skip
        assert what in found.pop(name)["what"]
    assert set(found) <= {"watchdog"}

    pi.check("ip link del vcan1; chmod 660 /dev/ttyAMA0; chown packwarden /var/lib/packwarden; "
             "systemctl enable packwarden-control; chmod 600 /dev/gpiochip0; "
             "sed -i 's/AMA0/AMA9/' /root/faulty.toml")  # fmt: skip
    _, told = pi.run("controller doctor --config /root/faulty.toml --json")
    found = {reading["name"]: reading for reading in json.loads(told)["readings"] if reading["mend"]}
    assert "/dev/gpiochip0 may not be used" in found["pins"]["what"]
    assert "there is no /dev/ttyAMA9" in found["serial.port"]["what"]
    assert "there is no vcan1" in found["can.channel"]["what"]
    pi.check("chmod 660 /dev/gpiochip0")
    _, told = pi.run("controller doctor --json")
    assert {r["name"] for r in json.loads(told)["readings"] if r["mend"]} <= {"clock", "watchdog"}


def test_started_it_waits_with_nothing_energised(pi: Pi, inverter: Inverter):
    pi.check("systemctl start packwarden-control", timeout_s=180)
    told = until_state(pi, "STARTING", "STANDBY")
    assert told["closed"] == []
    assert "gpio_out in lo" in pin(pi, INVERTER_RELAY)
    began = pi.check("journalctl -u packwarden-control -o cat --no-pager | grep ^started:")
    assert "a first start" in began
    assert "without" not in began  # real-time priority and locked memory were permitted in its sandbox


def test_cold_start_to_running(pi: Pi, inverter: Inverter):
    pi.check("systemd-run --unit=pack -p CPUSchedulingPolicy=rr -p CPUSchedulingPriority=15 "  # the world does not wait
             f"{PYTHON} /root/packwarden/pack_on_bus.py")  # fmt: skip
    until_state(pi, "STANDBY")
    told = running(pi)
    assert told["closed"] == ["pack", "positive"]
    assert "gpio_out in hi" in pin(pi, INVERTER_RELAY)
    levels = {pin(pi, HEARTBEAT).split("function")[1] for _ in range(30)}
    assert len(levels) == 2  # the heartbeat beats
    assert inverter.gen24.refusals == 0


def test_the_emergency_stop_opens_and_its_incident_is_replayed_tick_by_tick(pi: Pi, inverter: Inverter):
    move(pi, ESTOP, "high")
    drops(pi, INVERTER_RELAY)
    told = until_state(pi, "VERIFYING_OPEN", "FAULT")
    assert told["cause"] == "e-stop-open"
    assert causes(told) == {"e-stop-open"}
    move(pi, ESTOP, "low")
    pi.until("controller incident list --json", "e-stop-open")
    said = pi.check("controller sim --replay $(ls -t /var/lib/packwarden/incidents/*-fault.zip | head -1)")
    assert "the live trace is reproduced" in said
    pi.until("controller acknowledge e-stop-open", "acknowledged", timeout_s=60)
    until_state(pi, "RUNNING")  # it was enabled all the time


def test_killed_while_closed_its_relay_drops_and_it_comes_back_knowing(pi: Pi, inverter: Inverter):
    pi.check("systemctl kill -s KILL --kill-whom=main packwarden-control")
    drops(pi, INVERTER_RELAY)
    told = until_state(pi, "STARTING", "VERIFYING_OPEN", "FAULT", "STANDBY")
    assert told["enabled"] is False
    assert told["closed"] == []
    assert "unclean-restart" in pi.check("journalctl -u packwarden-control -o cat --no-pager")
    until_state(pi, "STANDBY", timeout_s=240)


def test_hung_while_closed_it_is_ended_by_the_watchdog(pi: Pi, inverter: Inverter):
    running(pi)
    pi.check("systemctl kill -s STOP --kill-whom=main packwarden-control")
    drops(pi, INVERTER_RELAY)
    assert "watchdog" in pi.check("journalctl -u packwarden-control -o cat --no-pager -n 40").lower()
    until_state(pi, "STANDBY", timeout_s=240)


def test_a_pack_that_falls_silent_is_opened(pi: Pi, inverter: Inverter):
    running(pi)
    pi.check("touch /run/pack-silent")
    drops(pi, INVERTER_RELAY)
    until_state(pi, "VERIFYING_OPEN", "FAULT", "STANDBY")
    pi.check("rm /run/pack-silent")
    until_state(pi, "RUNNING", timeout_s=240)


def test_a_bus_that_goes_down_is_opened_and_comes_back(pi: Pi, inverter: Inverter):
    pi.check("ip link set vcan0 down")
    drops(pi, INVERTER_RELAY)
    until_state(pi, "VERIFYING_OPEN", "FAULT", "STANDBY")
    pi.check("ip link set vcan0 up")
    until_state(pi, "RUNNING", timeout_s=240)


def test_an_upgrade_is_refused_while_closed_and_a_stop_opens_gracefully(pi: Pi, inverter: Inverter):
    running(pi)
    status, said = pi.run("/root/packwarden/install.sh --wheels /root/wheels 2>&1")
    assert (status, "controller stop, then again" in said) == (2, True)
    pi.check("systemctl stop packwarden-control")
    assert "gpio_out in hi" not in pin(pi, INVERTER_RELAY)
    assert pi.check("systemctl show -p Result --value packwarden-control").strip() == "success"
    assert "RUNNING → UNLOADING" in pi.check("journalctl -u packwarden-control -o cat --no-pager -n 30")


def test_a_recording_played_by_canplayer_is_followed_without_a_frame_of_ours(pi: Pi):
    pi.check("ip link add dev vcan1 type vcan; ip link set up vcan1")
    pi.check(f"sed 's/vcan0/vcan1/' {TOML} > /root/listen.toml")
    log = pi.check(f"{PYTHON} -c 'import sim; print(list(sim.__path__)[0])'").strip() + "/logs/m3-michael.log"
    pi.check(f"systemd-run --unit=played canplayer -l i vcan1=can0 -I {log}; "
             "systemd-run --unit=listening -E STATE_DIRECTORY=/root/listened controller run --listen-only --no-gateway "
             "--config /root/listen.toml --socket /root/listen.sock")  # fmt: skip
    pi.until(
        STATUS.replace("/run/packwarden/control.sock", "/root/listen.sock"), r'"listen_only": true.*"soc_pct": \{?[^n]'
    )
    pi.check("systemctl stop played; cat /sys/class/net/vcan1/statistics/tx_packets > /root/before; sleep 3; "
             "cmp /root/before /sys/class/net/vcan1/statistics/tx_packets; systemctl stop listening")  # fmt: skip


def test_after_a_power_cut_while_closed_it_stays_open_until_a_person_has_looked(pi: Pi, inverter: Inverter):
    pi.check("systemctl start packwarden-control")
    until_state(pi, "STANDBY")
    running(pi)
    assert "closings-spent" in pi.check("journalctl -u packwarden-control -o cat --no-pager")  # more than six this hour
    pi.check("sync")
    inverter.stop()
    pi.cut_power()
    pi.start()
    assert "gpio_out in hi" not in pin(pi, INVERTER_RELAY)
    buses_up(pi)
    told = until_state(pi, "STARTING", "VERIFYING_OPEN", "FAULT", "STANDBY", timeout_s=240)
    assert told["enabled"] is False
    assert told["closed"] == []
    pi.until(STATUS, "unclean-restarts-spent")  # the third of this day
