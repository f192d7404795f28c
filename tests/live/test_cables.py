"""`controller run` as it is installed, on a CAN bus and a serial line, with a pack and an inverter at the far ends."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import can
import pytest

from tests.live.service import ROOT, TERM, Service
from tests.live.world import CONFIG

pytestmark = pytest.mark.slow
INTERFACE = "udp_multicast"
CHANNEL = f"239.74.163.{os.getpid() % 250 + 2}"


def multicast_works() -> bool:
    try:
        with can.Bus(CHANNEL, INTERFACE, ignore_config=True) as one, can.Bus(CHANNEL, INTERFACE) as other:
            one.send(can.Message(arbitration_id=1, is_extended_id=False))
            return other.recv(5.0) is not None
    except (can.CanError, OSError, ImportError):
        return False


@contextmanager
def cables() -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The serial port, and the process at the far ends."""
    command = [sys.executable, "-m", "tests.live.cables", INTERFACE, CHANNEL]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ, cwd=ROOT
    ) as far:
        assert far.stdout is not None
        yield far.stdout.readline().strip(), far
        far.kill()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    run = [sys.executable, "-m", "controller", "run", "--no-gateway"]
    service = Service(tmp_path, lambda config, control: [*run, "--config", str(config), "--socket", str(control)])
    yield service
    service.close()


@pytest.mark.skipif(not multicast_works(), reason="this machine passes no multicast to itself")
def test_a_pack_is_closed_used_lost_and_opened(service: Service):
    with cables() as (port, far):
        places = f'[can]\ninterface = "{INTERFACE}"\nchannel = "{CHANNEL}"\n[serial]\nport = "{port}"\n'
        service.config.write_text(CONFIG + places)
        service.start()
        assert service.controller("enable").returncode == 0
        service.until_state("RUNNING")
        status = service.until(lambda status: status["limits"]["charge_w"] > 1000)
        assert (status["state"], status["closed"]) == ("RUNNING", ["pack"])
        assert status["inverter"]["go"] is True
        assert status["inverter"]["heard_s"] < 30
        assert service.controller("run", "--config", str(service.config)).returncode == 2  # the bus has its owner
        far.kill()
        status = service.until(lambda status: status["closed"] == [])
        assert "pack-data-lost" in [event["id"] for event in status["events"]]
        assert status["signals"]["pack_voltage_v"] is None
    assert service.signal(TERM).ended() == 0
