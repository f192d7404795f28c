"""A device that goes away and comes back under its name: a USB adapter, a bus that was switched off."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, Protocol, TypeVar

from controller.ports import PortError

RETRY_MS = 500


class Closing(Protocol):
    def close(self) -> None: ...


D = TypeVar("D", bound=Closing)
Background = Callable[[Callable[[], None]], None]
"""Runs a job beside the tick: opening and closing a device may take seconds. Never waits, never raises."""


class Worker:
    """A Background: one thread, begun now, so that no tick has to begin one. It ends with the program."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        threading.Thread(target=self._work, daemon=True).start()

    def __call__(self, job: Callable[[], None]) -> None:
        self._jobs.put(job)

    def _work(self) -> None:
        while True:
            self._jobs.get()()


class Reopening(Generic[D]):
    """The first opening happens at construction and may raise PortError; later ones happen in the background.

    why: what the device said last, for messages.
    """

    def __init__(self, opener: Callable[[], D], now: Callable[[], int], background: Background | None = None) -> None:
        self._opener, self._now = opener, now
        self._device: D | None = opener()
        self._background = background or Worker()
        self._spent: D | None = None
        self._opening = self._closed = False
        self._tried_ms = 0
        self.why = ""

    def get(self) -> D | None:
        """The device, or None while it is away. Never waits, never raises."""
        if self._device is None and not self._opening and self._now() - self._tried_ms >= RETRY_MS:
            self._opening, self._tried_ms = True, self._now()
            self._background(self._reopen)
        return self._device

    def lost(self, why: str) -> None:
        """It failed: it is not used again, and looked for from now on."""
        self.why, self._tried_ms = why, self._now()
        self._spent, self._device = self._device, None

    def close(self) -> None:
        self._closed = True
        for device in (self._device, self._spent):
            _close(device)
        self._device = self._spent = None

    def _reopen(self) -> None:
        try:
            spent, self._spent = self._spent, None
            _close(spent)
            device = self._opener()
            if self._closed:
                device.close()
            else:
                self._device = device
        except Exception as error:  # noqa: BLE001 - a device that breaks in a way nobody foresaw is looked for again
            self.why = str(error)
        finally:
            self._opening = False


def _close(device: Closing | None) -> None:
    """Closed as far as a device that has failed can be."""
    if device is not None:
        with suppress(OSError, PortError):
            device.close()
