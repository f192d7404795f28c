"""A replay on a virtual bus: the same frames, at their times, and never to a real pack."""

import can
import pytest

from controller.ports import BusError, CanFrame
from sim import vcan
from sim.vcan import VirtualBus, play

FRAMES = [
    (0, CanFrame(0x132, bytes.fromhex("7D83D5FFE23FFF0F"))),
    (10_500, CanFrame(0x18FF50E5, b"\x01\x02", 10, True)),
    (10_500, CanFrame(0x7FF, b"", 10)),
    (60_000_000, CanFrame(0x132, b"\x01", 60_000)),
]


class Clock:
    """Time that passes only by sleeping, and by 1 ms for each look at it."""

    def __init__(self) -> None:
        self.now_s = 500.0

    def __call__(self) -> float:
        self.now_s += 0.001
        return self.now_s

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now_s += seconds


def heard(listener: can.BusABC) -> list[CanFrame]:
    found = []
    while (message := listener.recv(0)) is not None:
        assert (message.is_fd, message.is_remote_frame, message.is_error_frame) == (False, False, False)
        found.append(CanFrame(message.arbitration_id, bytes(message.data), 0, message.is_extended_id))
    return found


def test_frames_arrive_as_recorded_each_not_before_its_time():
    clock, sent_at = Clock(), []
    with can.Bus(channel="heard", interface="virtual") as listener, VirtualBus("heard", "virtual") as bus:

        def watched():
            for stamp_us, frame in FRAMES:
                yield stamp_us, frame
                sent_at.append(clock.now_s)

        assert play(watched(), bus, clock, clock.sleep) == len(FRAMES)
        assert heard(listener) == [frame._replace(at_ms=0) for _, frame in FRAMES]
    for (stamp_us, _), at_s in zip(FRAMES, sent_at, strict=True):
        assert -1e-6 <= at_s - 500.001 - stamp_us / 1e6 < 0.003


def test_frames_of_a_tick_can_be_sent_at_once():
    with can.Bus(channel="tick", interface="virtual") as listener, VirtualBus("tick", "virtual") as bus:
        bus.send(frame for _, frame in FRAMES)
        assert len(heard(listener)) == len(FRAMES)


@pytest.mark.parametrize("channel", ["can0", "slcan0", "eth0", ""])
def test_a_real_bus_is_refused(channel):
    with pytest.raises(BusError, match="never played to a real pack"):
        VirtualBus(channel)


def test_a_real_bus_that_is_named_like_a_virtual_one_is_refused(tmp_path, monkeypatch):
    (tmp_path / "vcan0" / "device").mkdir(parents=True)
    monkeypatch.setattr(vcan, "NETWORK", tmp_path)
    with pytest.raises(BusError, match="never played to a real pack"):
        VirtualBus("vcan0")


def test_a_bus_that_is_not_there_says_how_to_make_one():
    with pytest.raises(BusError, match="sudo ip link add dev vcan987 type vcan") as caught:
        VirtualBus("vcan987")
    assert "\n" not in str(caught.value)


def test_a_bus_that_fails_while_sending_is_named():
    with VirtualBus("closed", "virtual") as bus:
        pass
    with pytest.raises(BusError, match="cannot send on CAN bus closed"):
        bus.send([FRAMES[0][1]])
