"""CanBus where a bus misbehaves: full queues, lost frames, bus-off, interfaces that go away and come back."""

from __future__ import annotations

import errno
import queue
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any

import can
import pytest

from controller.model.events import Event
from controller.ports import BusError, CanFrame, PortError
from drivers.can_bus import FRAME, PENDING_MAX, STALE_MS, CanBus, CanPlace
from drivers.memory import HandClock, MemoryEvents
from drivers.reopening import RETRY_MS

CAN0 = CanPlace("can", "socketcan", "can0", 500_000)
FULL = OSError(errno.ENOBUFS, "No buffer space available")
DOWN = OSError(errno.ENETDOWN, "Network is down")


class Kernel:
    """A SocketCAN socket: `inbox` is received, an error in it raised; `outbox` holds what it took, `room` frames."""

    def __init__(self) -> None:
        self.inbox: list[bytes | OSError] = []
        self.outbox: list[tuple[int, bytes]] = []
        self.send_error: OSError | None = None
        self.room = 1000
        self.drops = 0
        self.closed = False
        self.socket = self

    def recv(self, size: int, flags: int) -> bytes:
        assert (size, flags) == (16, socket.MSG_DONTWAIT)
        if not self.inbox:
            raise BlockingIOError
        first = self.inbox.pop(0)
        if isinstance(first, OSError):
            raise first
        return first

    def send(self, raw: bytes, flags: int) -> int:
        assert flags == socket.MSG_DONTWAIT
        if self.send_error:
            raise self.send_error
        if len(self.outbox) >= self.room:
            raise FULL
        can_id, length, data = FRAME.unpack(raw)
        self.outbox.append((can_id, data[:length]))
        return len(raw)

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        assert (level, option, size) == (socket.SOL_SOCKET, 55, 36)
        return struct.pack("9I", *[7] * 8, self.drops)

    def shutdown(self) -> None:
        self.closed = True

    def say(self, can_id: int, data: bytes = b"\1") -> None:
        self.inbox.append(FRAME.pack(can_id, len(data), data))


class Rig:
    """A bus whose interface can be taken away; opening happens in the same thread. opened: the arguments of each."""

    def __init__(self, rx: tuple[int, ...] = (), place: CanPlace = CAN0, **more: Any) -> None:
        self.clock, self.events = HandClock(1000), MemoryEvents()
        self.kernel = Kernel()
        self.missing = False
        self.opened: list[dict[str, Any]] = []
        self.bus = CanBus(place, rx, self.clock.now_ms, self.events, opener=self._open, background=at_once, **more)

    def _open(self, channel: str, interface: str, **more: Any) -> Any:
        if self.missing:
            raise OSError(errno.ENODEV, "No such device")
        self.opened.append({"channel": channel, "interface": interface, **more})
        self.kernel = Kernel()
        return self.kernel

    def tick(self, ms: int = 10) -> list[CanFrame]:
        self.clock.ms += ms
        return list(self.bus.receive())

    def told(self) -> list[tuple[Event, str]]:
        return [(notice.id, notice.detail) for _, notice in self.events.seen]


def at_once(job: Callable[[], None]) -> None:
    job()


FRAMES = [CanFrame(0x100, b"\1"), CanFrame(0x200, b"\1"), CanFrame(0x100, b"\2")]


# --- opening ---


def test_only_the_ids_of_interest_pass_the_kernel():
    rig = Rig(rx=(0x132, 0x8000_0000 | 0x1D_F234))
    assert rig.opened == [{
        "channel": "can0", "interface": "socketcan", "ignore_config": True,
        "can_filters": [
            {"can_id": 0x132, "can_mask": 0x7FF, "extended": False},
            {"can_id": 0x1D_F234, "can_mask": 0x1FFF_FFFF, "extended": True},
        ],
    }]  # fmt: skip


def test_python_can_understands_these_filters():
    rig = Rig(rx=(0x132,))
    assert can.Bus("filters", "virtual", ignore_config=True, can_filters=rig.opened[0]["can_filters"]).filters


def test_other_adapters_are_set_up_with_their_bit_rate():
    slcan = CanPlace("can", "slcan", "/dev/ttyACM0", 250_000, 1_000_000)
    assert Rig(place=slcan, listen_only=True).opened == [{
        "channel": "/dev/ttyACM0", "interface": "slcan", "ignore_config": True, "bitrate": 250_000,
        "tty_baudrate": 1_000_000, "timeout": 0, "listen_only": True,
    }]  # fmt: skip


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (CanPlace("inverter_can", "socketcan", "can7", 500_000), r"\[inverter_can\] channel can7: .*; .*"),
        (
            CanPlace("can", "sockettcan", "can0", 500_000),
            r"\[can\] channel can0: .*sockettcan.*; can\.interface is one of .*slcan, ",
        ),
        (
            CanPlace("can", "slcan", "/dev/none", 500_000),
            r"\[can\] channel /dev/none: .*No such file.*; is the adapter",
        ),
        (CanPlace("can", "pcan", "PCAN_USBBUS1", 500_000), r"\[can\] channel PCAN_USBBUS1: .*; is the adapter"),
    ],
)
def test_a_bus_that_cannot_be_opened_is_one_line_with_section_device_and_what_to_do(place: CanPlace, words: str):
    with pytest.raises(PortError, match=f"^{words}") as caught:
        CanBus(place, (), HandClock().now_ms, MemoryEvents())
    assert "\n" not in str(caught.value)


# --- receiving ---


def test_after_a_stall_frames_are_as_old_as_they_can_be():
    rig = Rig()
    rig.tick()
    rig.kernel.say(0x132)
    assert [frame.at_ms for frame in rig.tick(ms=2000)] == [1011]


def test_what_was_left_for_the_next_look_does_not_look_younger_there():
    rig = Rig()
    rig.tick()
    for _ in range(2500):
        rig.kernel.say(0x132)
    assert {frame.at_ms for frame in rig.tick()} == {1011}
    assert [frame.at_ms for frame in rig.tick()] == [1011] * 500


def test_remote_and_error_frames_are_no_data():
    rig = Rig()
    rig.kernel.say(0x4000_0132)
    rig.kernel.say(0x2000_0080, bytes(8))
    assert rig.tick() == []


def test_frames_that_found_the_queue_full_are_counted_and_told_once_a_second():
    rig = Rig()
    for drops in (3, 5, 5, 9):
        rig.kernel.drops = drops
        rig.tick()
    assert rig.bus.lost == 9
    assert rig.told() == [(Event.FRAMES_LOST, "can0: 3, 3 so far")]
    rig.tick(ms=1000)
    assert rig.told()[1:] == [(Event.FRAMES_LOST, "can0: 6, 9 so far")]


def test_a_full_buffer_of_the_can_chip_counts_as_a_lost_frame():
    rig = Rig()
    rig.kernel.say(0x2000_0004, bytes([0, 1, 0, 0, 0, 0, 0, 0]))
    rig.tick()
    assert rig.bus.lost == 1


def test_a_real_socket_tells_how_many_frames_it_dropped():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    rig = Rig()
    rig.kernel.getsockopt = ours.getsockopt  # type: ignore[method-assign, assignment]
    rig.tick()
    assert (rig.bus.lost, rig.told()) == (0, [])
    ours.close(), theirs.close()


# --- sending ---


def test_a_full_queue_keeps_the_newest_of_each_id_for_the_next_tick():
    rig = Rig()
    rig.kernel.room = 1
    rig.bus.send([CanFrame(0x300, b"")])
    rig.bus.send(FRAMES)
    rig.kernel.room = 1000
    rig.tick()
    assert rig.kernel.outbox == [(0x300, b""), (0x200, b"\1"), (0x100, b"\2")]


def test_a_newer_frame_of_the_same_id_takes_the_place_of_one_that_waits():
    rig = Rig()
    rig.kernel.room = 0
    rig.bus.send([CanFrame(0x100, b"\1")])
    rig.bus.send([CanFrame(0x100, b"\2")])
    rig.kernel.room = 1000
    rig.tick()
    assert rig.kernel.outbox == [(0x100, b"\2")]


def test_a_frame_never_goes_out_later_than_in_the_next_tick():
    rig = Rig()
    rig.kernel.room = 0
    rig.bus.send(FRAMES)
    rig.tick()
    rig.kernel.room = 1000
    rig.tick()
    assert rig.kernel.outbox == []
    assert rig.bus.unsent == 2


def test_a_queue_that_stays_full_is_told_to_the_sender():
    rig = Rig()
    rig.kernel.room = 0
    rig.bus.send(FRAMES)
    rig.tick()
    with pytest.raises(BusError, match="can0: the transmit queue is full"):
        rig.bus.send(FRAMES)


def test_nothing_is_transmitted_while_listening_only():
    rig = Rig(listen_only=True)
    with pytest.raises(BusError, match="can0: listening only"):
        rig.bus.send(FRAMES)
    rig.tick()
    assert rig.kernel.outbox == []


class Slow(can.BusABC):
    """An adapter of python-can. sent: the data it was given; error: raised instead."""

    def __init__(self) -> None:
        self._is_shutdown = True
        self.sent: list[bytes] = []
        self.error: Exception | None = None

    def recv(self, timeout: float | None = None) -> can.Message | None:
        return None

    def send(self, msg: can.Message, timeout: float | None = None) -> None:
        if self.error:
            raise self.error
        self.sent.append(bytes(msg.data))


class SlowRig:
    """jobs: what is to be sent and has not been yet."""

    def __init__(self) -> None:
        self.clock, self.events, self.adapters = HandClock(1000), MemoryEvents(), [Slow()]
        self.jobs: list[Callable[[], None]] = []
        self.bus = CanBus(
            CanPlace("can", "slcan", "/dev/ttyACM0", 500_000), (), self.clock.now_ms, self.events,
            opener=lambda *_, **__: self.adapters[-1], background=at_once, sending=self.jobs.append,
        )  # fmt: skip

    def work(self) -> None:
        while self.jobs:
            self.jobs.pop(0)()


def test_an_adapter_is_waited_for_beside_the_tick():
    rig = SlowRig()
    rig.bus.send(FRAMES)
    assert rig.adapters[0].sent == []
    rig.work()
    assert rig.adapters[0].sent == [b"\1", b"\1", b"\2"]


def test_what_waited_too_long_for_an_adapter_is_never_sent():
    rig = SlowRig()
    rig.bus.send(FRAMES[:1])
    rig.clock.ms += STALE_MS
    rig.bus.send(FRAMES[2:])
    rig.clock.ms += 1
    rig.work()
    assert rig.adapters[0].sent == [b"\2"]


def test_an_adapter_that_takes_nothing_any_more_is_told_to_the_sender():
    rig = SlowRig()
    for _ in range(PENDING_MAX + 1):
        rig.bus.send(FRAMES[:1])
    rig.bus.receive()
    with pytest.raises(BusError, match="/dev/ttyACM0: the transmit queue is full"):
        rig.bus.send(FRAMES[:1])
    assert len(rig.jobs) == PENDING_MAX


@pytest.mark.parametrize("error", [can.CanOperationError("it is gone"), AttributeError("it is gone")])
def test_an_adapter_that_fails_while_it_sends_is_told_and_opened_anew(error: Exception):
    rig = SlowRig()
    rig.adapters[0].error = error
    rig.bus.send(FRAMES)
    rig.work()
    rig.bus.receive()
    assert [notice.detail for _, notice in rig.events.seen] == ["/dev/ttyACM0: it is gone"]
    rig.adapters.append(Slow())
    rig.clock.ms += RETRY_MS
    rig.bus.receive()
    rig.bus.send(FRAMES[:1])
    rig.work()
    assert rig.adapters[1].sent == [b"\1"]


def test_an_adapter_is_sent_to_in_a_thread_of_its_own():
    in_thread: queue.SimpleQueue[threading.Thread] = queue.SimpleQueue()
    slow = Slow()
    slow.send = lambda *_, **__: in_thread.put(threading.current_thread())  # type: ignore[method-assign]
    place = CanPlace("can", "slcan", "/dev/ttyACM0", 500_000)
    bus = CanBus(place, (), HandClock().now_ms, MemoryEvents(), opener=lambda *_, **__: slow)
    bus.send(FRAMES[:1])
    assert in_thread.get(timeout=10) is not threading.current_thread()


# --- going and coming ---


def test_an_interface_that_goes_down_raises_nothing_while_receiving_and_is_told():
    rig = Rig()
    rig.kernel.say(0x132)
    rig.kernel.inbox.append(DOWN)
    assert [frame.id for frame in rig.tick()] == [0x132]
    assert rig.tick() == []
    assert rig.bus.received == 1
    assert rig.told() == [(Event.BUS_FAILED, "can0: [Errno 100] Network is down")]


def test_sending_on_an_interface_that_is_down_names_it():
    rig = Rig()
    rig.kernel.send_error = DOWN
    for _ in range(2):
        with pytest.raises(BusError, match=r"^can0: .*Network is down"):
            rig.bus.send(FRAMES)


def test_an_interface_that_comes_back_is_used_again_by_itself():
    rig = Rig()
    rig.kernel.inbox.append(OSError(errno.ENODEV, "No such device"))
    rig.missing = True
    rig.tick()
    rig.tick(ms=RETRY_MS)
    assert len(rig.opened) == 1
    rig.missing = False
    rig.tick(ms=RETRY_MS)
    rig.kernel.say(0x132)
    assert [frame.id for frame in rig.tick()] == [0x132]
    rig.bus.send(FRAMES[:1])
    assert rig.kernel.outbox == [(0x100, b"\1")]


def test_a_dead_socket_is_closed_before_a_new_one_is_opened():
    rig = Rig()
    first = rig.kernel
    first.inbox.append(DOWN)
    rig.tick()
    rig.tick(ms=RETRY_MS)
    assert first.closed
    assert not rig.kernel.closed


def test_what_waited_for_a_bus_that_went_away_is_never_sent():
    rig = Rig()
    rig.kernel.room = 0
    rig.bus.send(FRAMES)
    rig.kernel.inbox.append(DOWN)
    rig.kernel.send_error = DOWN
    rig.tick()
    rig.tick(ms=RETRY_MS)
    assert rig.kernel.outbox == []


def test_bus_off_is_told_once_and_refuses_to_send_until_the_bus_is_on_again():
    rig = Rig()
    rig.kernel.say(0x2000_0040, bytes(8))
    rig.kernel.say(0x2000_0040, bytes(8))
    rig.tick()
    assert rig.told() == [(Event.BUS_FAILED, "can0: bus off")]
    with pytest.raises(BusError, match="can0: bus off"):
        rig.bus.send(FRAMES)
    rig.kernel.say(0x2000_0100, bytes(8))
    rig.tick()
    rig.bus.send(FRAMES)


def test_an_adapter_that_sends_rubbish_is_opened_anew():
    class Rubbish(can.BusABC):
        def __init__(self) -> None:
            self._is_shutdown = True

        def recv(self, timeout: float | None = None) -> can.Message:
            raise ValueError("invalid literal for int() with base 16: 'zz'")

        def send(self, msg: can.Message, timeout: float | None = None) -> None: ...

    events, clock, opened = MemoryEvents(), HandClock(), []

    def opener(*_: Any, **__: Any) -> can.BusABC:
        opened.append(1)
        return Rubbish()

    place = CanPlace("can", "slcan", "/dev/ttyACM0", 500_000)
    bus = CanBus(place, (), clock.now_ms, events, opener=opener, background=at_once)
    assert list(bus.receive()) == []
    clock.ms += RETRY_MS
    assert list(bus.receive()) == []
    assert len(opened) == 2


def test_a_foreign_frame_does_not_end_the_look_at_an_adapter():
    clock = HandClock()
    bus = CanBus(CanPlace("can", "virtual", "foreign", 0), (0x132,), clock.now_ms, MemoryEvents())
    with can.Bus("foreign", "virtual", ignore_config=True) as other:
        for can_id in (0x7FF, 0x132, 0x7FF, 0x132):
            other.send(can.Message(arbitration_id=can_id, is_extended_id=False))
        assert [frame.id for frame in bus.receive()] == [0x132, 0x132]
    bus.close()
