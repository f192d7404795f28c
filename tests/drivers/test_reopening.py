"""A device that goes away and comes back."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from controller.ports import PortError
from drivers.memory import HandClock
from drivers.reopening import RETRY_MS, Reopening


class Device:
    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True


class Rig:
    """jobs: what was given to the background and has not run yet."""

    def __init__(self) -> None:
        self.clock = HandClock(1000)
        self.jobs: list[Callable[[], None]] = []
        self.there = True
        self.opened: list[Device] = []
        self.device = Reopening(self.open, self.clock.now_ms, self.jobs.append)

    def open(self) -> Device:
        if not self.there:
            raise PortError("it is not there")
        self.opened.append(Device())
        return self.opened[-1]

    def work(self) -> None:
        while self.jobs:
            self.jobs.pop()()


def test_a_device_that_is_not_there_at_the_start_is_an_error():
    def missing() -> Device:
        raise PortError("it is not there")

    with pytest.raises(PortError, match="it is not there"):
        Reopening(missing, HandClock().now_ms)


def test_a_lost_device_is_opened_in_the_background_once_at_a_time():
    rig = Rig()
    rig.device.lost("pulled")
    assert rig.device.get() is None
    assert rig.jobs == []
    for _ in range(3):
        rig.clock.ms += RETRY_MS
        assert rig.device.get() is None
    assert len(rig.jobs) == 1
    rig.work()
    assert rig.device.get() is rig.opened[1]
    assert rig.opened[0].closed


def test_it_is_tried_again_until_it_is_there():
    rig = Rig()
    rig.device.lost("pulled")
    rig.there = False
    for _ in range(3):
        rig.clock.ms += RETRY_MS
        assert rig.device.get() is None
        rig.work()
    assert rig.device.why == "it is not there"
    rig.there = True
    rig.clock.ms += RETRY_MS
    rig.device.get()
    rig.work()
    assert rig.device.get() is not None


def test_one_that_comes_back_after_the_end_is_closed_at_once():
    rig = Rig()
    rig.device.lost("pulled")
    rig.clock.ms += RETRY_MS
    rig.device.get()
    rig.device.close()
    rig.work()
    assert all(device.closed for device in rig.opened)
    assert len(rig.opened) == 2


def test_a_device_that_breaks_in_a_way_nobody_foresaw_is_looked_for_again():
    rig = Rig()
    rig.device.lost("pulled")
    rig.opened[0].close = lambda: 1 // 0  # type: ignore[method-assign]
    for _ in range(2):
        rig.clock.ms += RETRY_MS
        rig.device.get()
        rig.work()
    assert rig.device.get() is rig.opened[1]


def test_no_thread_is_begun_after_the_start(monkeypatch: pytest.MonkeyPatch):
    clock, done, opened = HandClock(1000), threading.Event(), []

    def opener() -> Device:
        opened.append(Device())
        if len(opened) == 2:
            done.set()
        return opened[-1]

    def refused(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    device = Reopening(opener, clock.now_ms)
    monkeypatch.setattr(threading.Thread, "start", refused)
    device.lost("pulled")
    clock.ms += RETRY_MS
    assert device.get() is None
    assert done.wait(10)


def test_by_default_it_is_opened_in_a_thread_beside_the_tick():
    clock, opened_in = HandClock(1000), []
    done = threading.Event()

    def opener() -> Device:
        opened_in.append(threading.current_thread())
        if len(opened_in) == 2:
            done.set()
        return Device()

    device = Reopening(opener, clock.now_ms)
    device.lost("pulled")
    clock.ms += RETRY_MS
    device.get()
    assert done.wait(10)
    assert opened_in[0] is threading.current_thread() is not opened_in[1]
