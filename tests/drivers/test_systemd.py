"""What systemd hears, over a real notify socket."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from drivers.systemd import Systemd


@pytest.fixture(params=["path", "abstract"])
def ear(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    address = str(tmp_path / "notify") if request.param == "path" else f"@packwarden-test-{id(tmp_path)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(address.replace("@", "\0", 1))
        listening.setblocking(False)
        yield listening, address


def heard(listening: socket.socket) -> list[str]:
    said = []
    while True:
        try:
            said.append(listening.recv(1000).decode())
        except BlockingIOError:
            return said


def test_it_says_ready_status_and_stopping(ear: tuple[socket.socket, str]):
    systemd = Systemd({"NOTIFY_SOCKET": ear[1]})
    systemd.ready()
    systemd.says("RUNNING (pack-closed)")
    systemd.says("RUNNING (pack-closed)")
    systemd.stopping()
    assert heard(ear[0]) == ["READY=1", "STATUS=RUNNING (pack-closed)", "STOPPING=1"]


def test_the_watchdog_is_fed_four_times_a_period(ear: tuple[socket.socket, str]):
    systemd = Systemd({"NOTIFY_SOCKET": ear[1], "WATCHDOG_USEC": "2000000"})
    for now_ms in range(0, 2000, 10):
        systemd.alive(now_ms)
    assert heard(ear[0]) == ["WATCHDOG=1"] * 4


def test_without_a_watchdog_nothing_is_fed(ear: tuple[socket.socket, str]):
    Systemd({"NOTIFY_SOCKET": ear[1]}).alive(0)
    assert heard(ear[0]) == []


def test_without_systemd_nothing_happens():
    systemd = Systemd({})
    systemd.ready()
    systemd.alive(0)
    systemd.says("x")
    systemd.stopping()


def test_a_systemd_that_is_gone_or_does_not_listen_is_not_waited_for(tmp_path: Path):
    Systemd({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind(str(tmp_path / "deaf"))
        systemd = Systemd({"NOTIFY_SOCKET": str(tmp_path / "deaf"), "WATCHDOG_USEC": "40"})
        for now_ms in range(10_000):
            systemd.says(f"line {now_ms}")
