"""What every CanPort does: SocketCAN (its socket is one of a pair of unix sockets), an adapter, the twin."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Callable, Iterator
from typing import NamedTuple

import can
import pytest

from controller.ports import CanFrame, CanPort
from drivers.can_bus import FRAME, CanBus, CanPlace
from drivers.memory import HandClock, MemoryCan, MemoryEvents

CHANNELS = itertools.count()


class Wire(NamedTuple):
    """A port and the other end of its bus. put: the others say this; got: what we said since the last call."""

    port: CanPort
    clock: HandClock
    put: Callable[..., None]
    got: Callable[[], list[CanFrame]]


def memory() -> Iterator[Wire]:
    bus, clock = MemoryCan(), HandClock(1000)

    def put(*frames: CanFrame) -> None:
        bus.inbox.extend(frame._replace(at_ms=clock.now_ms()) for frame in frames)

    def got() -> list[CanFrame]:
        frames, bus.outbox = bus.outbox, []
        return frames

    yield Wire(bus, clock, put, got)


class FakeSocketcan:
    """Stands for python-can's SocketcanBus: the wire's other end is `peer`."""

    def __init__(self) -> None:
        self.socket, self.peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.peer.setblocking(False)

    def shutdown(self) -> None:
        self.socket.close()


def socketcan() -> Iterator[Wire]:
    bus, clock = FakeSocketcan(), HandClock(1000)
    port = CanBus(CanPlace("can", "socketcan", "can0", 500_000), (), clock.now_ms, MemoryEvents(),
                  opener=lambda *_, **__: bus)  # type: ignore[arg-type, return-value]  # fmt: skip

    def put(*frames: CanFrame) -> None:
        for frame in frames:
            bus.peer.send(FRAME.pack(frame.id | 0x8000_0000 * frame.extended, len(frame.data), frame.data))

    def got() -> list[CanFrame]:
        frames = []
        while True:
            try:
                can_id, length, data = FRAME.unpack(bus.peer.recv(16))
            except BlockingIOError:
                return frames
            frames.append(CanFrame(can_id & 0x1FFF_FFFF, data[:length], 0, bool(can_id & 0x8000_0000)))

    yield Wire(port, clock, put, got)
    port.close()
    bus.peer.close()


def adapter() -> Iterator[Wire]:
    channel, clock = f"contract-{next(CHANNELS)}", HandClock(1000)
    port = CanBus(CanPlace("can", "virtual", channel, 500_000), (), clock.now_ms, MemoryEvents(),
                  sending=lambda job: job())  # fmt: skip
    other = can.Bus(channel, "virtual", ignore_config=True)

    def put(*frames: CanFrame) -> None:
        for frame in frames:
            other.send(can.Message(arbitration_id=frame.id, is_extended_id=frame.extended, data=frame.data))

    def got() -> list[CanFrame]:
        heard = iter(lambda: other.recv(0), None)
        return [CanFrame(m.arbitration_id, bytes(m.data), 0, m.is_extended_id) for m in heard if m is not None]

    yield Wire(port, clock, put, got)
    port.close()
    other.shutdown()


@pytest.fixture(params=[memory, socketcan, adapter])
def wire(request: pytest.FixtureRequest) -> Iterator[Wire]:
    yield from request.param()


def test_a_silent_bus_gives_nothing_and_does_not_wait(wire: Wire):
    assert list(wire.port.receive()) == []


def test_everything_that_came_is_received_once_and_in_its_order(wire: Wire):
    said = [CanFrame(0x100 + n, bytes(range(n % 9))) for n in range(100)]
    wire.put(*said)
    assert [(frame.id, frame.data) for frame in wire.port.receive()] == [(frame.id, frame.data) for frame in said]
    assert list(wire.port.receive()) == []


def test_an_id_of_29_bits_is_told_from_the_same_number_in_11(wire: Wire):
    wire.put(CanFrame(0x123, b"\1"), CanFrame(0x123, b"\2", extended=True))
    assert [(frame.id, frame.extended) for frame in wire.port.receive()] == [(0x123, False), (0x123, True)]


def test_a_frame_is_never_younger_than_it_is(wire: Wire):
    wire.port.receive()
    wire.clock.ms += 10
    wire.put(CanFrame(0x123, b"\1"))
    (frame,) = wire.port.receive()
    assert 1000 < frame.at_ms <= 1010


def test_what_is_sent_reaches_the_bus_in_its_order(wire: Wire):
    said = [CanFrame(0x321, b"\1\2\3"), CanFrame(0x321, b""), CanFrame(0x1234_5678, bytes(8), extended=True)]
    wire.port.send(said)
    assert wire.got() == said


def test_what_was_sent_is_not_received(wire: Wire):
    wire.port.send([CanFrame(0x321, b"\1")])
    assert list(wire.port.receive()) == []
