"""What a listener on the bus shows, and what it does not let grow. The ear is a list; the thread is waited for."""

from __future__ import annotations

import queue
from collections.abc import Callable
from pathlib import Path

import pytest

from controller.gateway import bus
from controller.gateway.bus import IDS_MAX, UNSEEN_S, Monitor, Place, captures
from controller.gateway.pages.bus import shown
from controller.ports import CanFrame, PortError

PATIENCE_S = 30.0


class Ear:
    """Gives what is put into it."""

    def __init__(self) -> None:
        self.frames: queue.Queue[tuple[int, CanFrame] | PortError | None] = queue.Queue()
        self.closed = queue.Queue[bool]()
        self._owes = False

    def say(self, *frames: tuple[int, CanFrame] | PortError | None) -> None:
        """And wait until all of it was heard."""
        for frame in frames:
            self.frames.put(frame)
        self.frames.join()

    def hear(self, within_s: float) -> tuple[int, CanFrame] | None:
        self._digested()
        said = self.frames.get(timeout=PATIENCE_S)
        self._owes = True
        if isinstance(said, PortError):
            self._digested()
            raise said
        return said

    def close(self) -> None:
        self._digested()
        self.closed.put(True)

    def _digested(self) -> None:
        if self._owes:
            self._owes = False
            self.frames.task_done()


class Rig:
    def __init__(self, folder: Path) -> None:
        self.now_s, self.ear, self.opened = 0.0, Ear(), 0
        place = Place("can", "virtual", "car/0", lambda frame: ())
        self.monitor = Monitor(place, folder, self._open, lambda: self.now_s)

    def _open(self, interface: str, channel: str) -> Ear:
        self.opened += 1
        return self.ear


def frame(can_id: int, *data: int, at_us: int = 0) -> tuple[int, CanFrame]:
    return at_us, CanFrame(can_id, bytes(data), 0)


def test_each_id_has_its_newest_frame_its_period_and_what_changed(tmp_path: Path):
    rig = Rig(tmp_path)
    rig.monitor.look()
    rig.ear.say(frame(0x132, 1, 2), frame(0x20A, 9), frame(0x132, 1, 7, at_us=10_000), None)
    first, second = rig.monitor.look()
    assert (first.frame.data, first.count, first.period_ms, first.changed) == (b"\x01\x07", 2, 10.0, b"\x00\x05")
    assert (second.frame.id, second.period_ms) == (0x20A, None)
    assert "01 <b>07</b>" in shown([first], [()], rig.now_s)
    rig.ear.say(PortError("car/0: gone"))
    assert rig.ear.closed.get(timeout=PATIENCE_S)


def test_ids_without_end_are_counted_and_not_kept(tmp_path: Path):
    rig = Rig(tmp_path)
    rig.monitor.look()
    rig.ear.say(*(frame(can_id) for can_id in range(IDS_MAX + 5)), None)
    assert (len(rig.monitor.look()), rig.monitor.strangers) == (IDS_MAX, 5)
    rig.ear.say(PortError("over"))


def test_a_bus_nobody_looks_at_is_closed_and_opened_by_the_next_look(tmp_path: Path):
    rig = Rig(tmp_path)
    rig.monitor.look()
    rig.ear.say(frame(1))
    rig.now_s = UNSEEN_S
    rig.ear.frames.put(None)
    assert rig.ear.closed.get(timeout=PATIENCE_S)
    wait_for(lambda: rig.monitor._thread is None)
    assert rig.monitor.look() == []
    wait_for(lambda: rig.opened == 2)
    rig.ear.frames.put(PortError("over"))


def test_a_bus_that_breaks_says_so(tmp_path: Path):
    rig = Rig(tmp_path)
    rig.monitor.look()
    rig.ear.say(PortError("car/0: Network is down"))
    wait_for(lambda: rig.monitor._thread is None)
    assert rig.monitor.trouble == "car/0: Network is down"


def test_a_capture_is_candump_text_and_ends_when_it_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bus, "CAPTURE_MAX_BYTES", 40)
    rig = Rig(tmp_path)
    rig.monitor.look()
    assert rig.monitor.record(10, "20260131T235959Z") == ""
    assert rig.monitor.record(10, "20260131T235958Z") == "one is being made already"
    rig.ear.say(frame(0x132, 0xAB, at_us=1_500_000), frame(0x132, 0xCD), frame(0x132, 0xEF), None)
    assert rig.monitor.capture is not None
    assert (rig.monitor.capture.frames, rig.monitor.capture.why) == (2, "0 MiB are full")
    (path,) = captures(tmp_path)
    assert path.name == "car_0-20260131T235959Z.log"
    rig.ear.say(PortError("over"))
    assert path.read_text() == "(1.500000) car/0 132#AB\n(0.000000) car/0 132#CD\n"


def test_a_capture_ends_with_its_time_though_nobody_looks(tmp_path: Path):
    rig = Rig(tmp_path)
    rig.monitor.record(10, "20260131T235959Z")
    rig.now_s = 9.0
    rig.ear.say(frame(1), None)
    assert rig.monitor.capture is not None
    assert rig.monitor.capture.why == ""
    rig.now_s = 10.0
    rig.ear.frames.put(None)
    assert rig.ear.closed.get(timeout=PATIENCE_S)
    assert rig.monitor.capture.why == "its time is over"


def test_only_the_newest_captures_are_kept(tmp_path: Path):
    rig = Rig(tmp_path)
    for n in range(bus.CAPTURES_KEPT + 3):
        assert rig.monitor.record(10, f"20260131T2359{n:02}Z") == ""
        rig.monitor.stop()
    rig.ear.frames.put(PortError("over"))
    assert len(captures(tmp_path)) == bus.CAPTURES_KEPT
    assert (tmp_path / f"car_0-20260131T2359{n:02}Z.log") in captures(tmp_path)


def wait_for(true: Callable[[], bool]) -> None:
    """What another thread does at once, and no later than PATIENCE_S."""
    done = queue.Queue[bool]()
    for _ in range(int(PATIENCE_S * 100)):
        if true():
            return
        try:
            done.get(timeout=0.01)
        except queue.Empty:
            continue
    raise AssertionError("it never came")
