"""What every LinePort does: a serial port, played by a pseudo terminal, and the twin. And a port that misbehaves."""

from __future__ import annotations

import fcntl
import os
import select
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from controller.ports import BusError, LinePort, PortError, SerialLine
from drivers.memory import HandClock, MemoryLine
from drivers.reopening import RETRY_MS
from drivers.serial_lines import LinePlace, SerialPort

BYD = SerialLine(9600)


class Wire(NamedTuple):
    """A port and the other end. put: the others say this; got: the next bytes that we said."""

    port: LinePort
    put: Callable[[bytes], None]
    got: Callable[[int], bytes]


def at_once(job: Callable[[], None]) -> None:
    job()


class Terminal:
    """A pseudo terminal under a name that stays, as udev gives it."""

    def __init__(self, name: Path) -> None:
        self.name = name
        self.plug_in()

    def plug_in(self) -> None:
        self.master, self.slave = os.openpty()
        tty.setraw(self.slave)
        os.set_blocking(self.master, False)
        self.name.unlink(missing_ok=True)
        self.name.symlink_to(os.ttyname(self.slave))

    def pull_out(self) -> None:
        os.close(self.master)
        os.close(self.slave)
        self.name.unlink()

    def put(self, data: bytes) -> None:
        """Returns when all of it has come through."""
        there = self._unread() + os.write(self.master, data)
        while self._unread() < there:
            select.select([], [], [], 0.001)

    def got(self, length: int) -> bytes:
        """As soon as it has come through; one byte more is there when it was too much."""
        data = b""
        while len(data) < length and select.select([self.master], [], [], 5)[0]:
            data += os.read(self.master, length - len(data))
        more, _, _ = select.select([self.master], [], [], 0)
        return data + (os.read(self.master, 1) if more else b"")

    def _unread(self) -> int:
        return int.from_bytes(fcntl.ioctl(self.slave, termios.FIONREAD, bytes(4)), sys.byteorder)


class Rig:
    def __init__(self, folder: Path, **more: bool) -> None:
        self.terminal, self.clock = Terminal(folder / "usb-FTDI"), HandClock(1000)
        place = LinePlace("serial", str(self.terminal.name))
        self.port = SerialPort(place, BYD, self.clock.now_ms, background=at_once, **more)


def memory(_: Path) -> Iterator[Wire]:
    line = MemoryLine()

    def put(data: bytes) -> None:
        line.inbox += data

    def got(length: int) -> bytes:
        data, line.outbox = line.outbox[:length], line.outbox[length:]
        return data

    yield Wire(line, put, got)


def serial(folder: Path) -> Iterator[Wire]:
    rig = Rig(folder)
    yield Wire(rig.port, rig.terminal.put, rig.terminal.got)
    rig.port.close()
    rig.terminal.pull_out()


@pytest.fixture(params=[memory, serial])
def wire(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Wire]:
    yield from request.param(tmp_path)


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


# --- every port ---


def test_a_silent_line_gives_nothing_and_does_not_wait(wire: Wire):
    assert wire.port.receive() == b""


def test_what_came_is_received_once(wire: Wire):
    wire.put(b"\x15\x03")
    wire.put(b"\x01\x2c")
    assert wire.port.receive() == b"\x15\x03\x01\x2c"
    assert wire.port.receive() == b""


def test_every_byte_passes_unchanged_both_ways(wire: Wire):
    every = bytes(range(256))
    wire.put(every)
    assert wire.port.receive() == every
    wire.port.send(every)
    assert wire.got(256) == every


# --- a serial port ---


def test_a_port_that_is_not_there_is_one_line_with_section_device_and_what_to_do():
    with pytest.raises(PortError, match=r"^\[serial\] port /dev/none: .*No such file.*; plug it in, .*/by-id"):
        SerialPort(LinePlace("serial", "/dev/none"), BYD, HandClock().now_ms)


def test_a_port_somebody_has_open_is_refused(rig: Rig):
    with pytest.raises(PortError, match=r"usb-FTDI: .*; stop the program that has it open"):
        SerialPort(LinePlace("serial", str(rig.terminal.name)), BYD, rig.clock.now_ms)


def test_a_port_without_a_switched_transmitter_says_which_key_is_wrong(tmp_path: Path):
    terminal = Terminal(tmp_path / "pty")
    with pytest.raises(PortError, match=r"RS485 mode.*; this port cannot do it; set serial\.rs485 = false"):
        SerialPort(LinePlace("serial", str(terminal.name), rs485=True), BYD, HandClock().now_ms)


def test_an_adapter_that_is_pulled_out_while_it_is_opened_is_told_like_any_other(monkeypatch: pytest.MonkeyPatch):
    def dies(*_: object, **__: object) -> None:
        raise termios.error(5, "Input/output error")

    monkeypatch.setattr("drivers.serial_lines.serial.Serial", dies)
    with pytest.raises(PortError, match="port /dev/ttyUSB0: Input/output error; plug it in"):
        SerialPort(LinePlace("serial", "/dev/ttyUSB0"), BYD, HandClock().now_ms)


def test_an_adapter_that_is_pulled_out_raises_nothing_while_receiving(rig: Rig):
    rig.terminal.pull_out()
    assert rig.port.receive() == b""
    with pytest.raises(BusError, match="usb-FTDI: "):
        rig.port.send(b"answer")
    rig.clock.ms += RETRY_MS
    assert rig.port.receive() == b""


def test_an_adapter_that_comes_back_is_used_again_by_its_name(rig: Rig):
    rig.terminal.pull_out()
    rig.port.receive()
    rig.terminal.plug_in()
    rig.clock.ms += RETRY_MS
    rig.port.receive()
    rig.terminal.put(b"poll")
    assert rig.port.receive() == b"poll"
    rig.port.send(b"answer")
    assert rig.terminal.got(6) == b"answer"


def test_a_missing_adapter_is_looked_for_at_intervals_only(rig: Rig):
    rig.terminal.pull_out()
    rig.port.receive()
    rig.terminal.plug_in()
    rig.clock.ms += RETRY_MS - 1
    rig.port.receive()
    with pytest.raises(BusError):
        rig.port.send(b"answer")


def test_sending_never_waits_and_says_when_nothing_is_taken_any_more(rig: Rig):
    for _ in range(100):
        rig.port.send(bytes(1000))
    rig.port.receive()
    with pytest.raises(BusError, match="usb-FTDI: it takes no more data"):
        rig.port.send(b"answer")


def test_what_the_kernel_did_not_take_goes_out_in_the_next_tick_or_never(rig: Rig):
    sent = 0
    while not rig.port._rest:
        rig.port.send(bytes(1000))
        sent += 1000
    rest = len(rig.port._rest)
    rig.terminal.got(sent - rest)
    rig.port.receive()
    rig.port.send(b"answer")
    assert rig.terminal.got(rest + 6) == bytes(rest) + b"answer"


def test_what_the_kernel_refuses_twice_is_never_sent(rig: Rig):
    sent = 0
    while not rig.port._rest:
        rig.port.send(bytes(1000))
        sent += 1000
    taken = sent - len(rig.port._rest)
    rig.port.receive()
    rig.terminal.got(taken)
    rig.port.receive()
    with pytest.raises(BusError, match="it takes no more data"):
        rig.port.send(b"answer")
    assert rig.terminal.got(6) == b"answer"


def test_what_an_adapter_did_not_take_before_it_was_pulled_out_is_never_sent(rig: Rig):
    while not rig.port._rest:
        rig.port.send(bytes(1000))
    rig.terminal.pull_out()
    rig.port.receive()
    rig.terminal.plug_in()
    rig.clock.ms += RETRY_MS
    rig.port.receive()
    rig.port.receive()
    rig.port.send(b"answer")
    assert rig.terminal.got(6) == b"answer"


def test_nothing_is_sent_while_listening_only(tmp_path: Path):
    rig = Rig(tmp_path, listen_only=True)
    with pytest.raises(BusError, match="listening only"):
        rig.port.send(b"answer")
    rig.terminal.put(b"poll")
    assert rig.port.receive() == b"poll"
    assert rig.terminal.got(0) == b""
