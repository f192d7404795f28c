"""What travels on the CAN buses, heard by sockets of the gateway's own while somebody looks; and captures of it.

The control process takes no part in it and is not asked. A bus is opened by the first who looks, and closed a few
seconds after the last one. Nothing here grows: IDS_MAX ids are shown, a capture has an end in time and bytes, and
CAPTURES_KEPT of them are kept.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol, TextIO

from controller.codec import candump
from controller.gateway.shelf import kept, trim
from controller.ports import CanFrame, PortError

IDS_MAX: Final = 400
CAPTURE_MAX_S, CAPTURE_MAX_BYTES, CAPTURES_KEPT = 600, 32 * 2**20, 8
CAPTURE: Final = re.compile(r"[A-Za-z0-9_.-]{1,32}-\d{8}T\d{6}Z\.log")
UNSEEN_S: Final = 5.0
"""A bus nobody has looked at for so long is closed."""
HEAR_S: Final = 0.25
AVERAGED: Final = 0.1
Readings = Sequence[tuple[str, Mapping[str, Any]]]
Explain = Callable[[CanFrame], Readings]


class Ear(Protocol):
    """See drivers.can_ear.CanEar."""

    def hear(self, within_s: float) -> tuple[int, CanFrame] | None: ...
    def close(self) -> None: ...


class Place(NamedTuple):
    """A bus: its section of the config, where it is, and who knows its frames."""

    section: str
    interface: str
    channel: str
    explain: Explain


@dataclass(slots=True)
class Row:
    """The newest frame of an id. stamp_us: of the Unix time. at_s: monotonic, when it was heard.

    changed: the bits that were another in the one before. period_ms: averaged; None after one frame.
    """

    frame: CanFrame
    stamp_us: int
    at_s: float
    count: int = 1
    changed: bytes = b""
    period_ms: float | None = None

    def take(self, stamp_us: int, frame: CanFrame, at_s: float) -> None:
        before, gap_ms = self.frame.data, (stamp_us - self.stamp_us) / 1000
        self.changed = bytes(a ^ b for a, b in zip(before, frame.data, strict=False)) + frame.data[len(before) :]
        self.period_ms = gap_ms if self.period_ms is None else self.period_ms + AVERAGED * (gap_ms - self.period_ms)
        self.frame, self.stamp_us, self.at_s, self.count = frame, stamp_us, at_s, self.count + 1


@dataclass
class Capture:
    """A recording that is being made. ends_s: monotonic. why: how it ended, empty while it goes on."""

    path: Path
    ends_s: float
    frames: int = 0
    bytes: int = 0
    why: str = ""
    _file: TextIO | None = field(default=None, repr=False)

    def open(self) -> None:
        """Raises OSError."""
        self._file = self.path.open("x", encoding="ascii", newline="\n")

    def take(self, stamp_us: int, frame: CanFrame, channel: str) -> None:
        """Raises OSError."""
        if self._file is None:
            return
        line = candump.line(stamp_us, frame.id, frame.extended, frame.data, channel) + "\n"
        self.bytes += self._file.write(line)
        self.frames += 1
        if self.bytes >= CAPTURE_MAX_BYTES:
            self.end(f"{CAPTURE_MAX_BYTES // 2**20} MiB are full")

    def end(self, why: str) -> None:
        self.why = self.why or why
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
            self._file = None


class Monitor:
    """One bus. trouble: why nothing is heard, empty when it is. strangers: frames of ids there was no room for.

    A thread of its own hears; what is shown is read under its lock.
    """

    def __init__(
        self, place: Place, folder: Path, open_ear: Callable[[str, str], Ear],
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.place, self.trouble, self.strangers = place, "", 0
        self.capture: Capture | None = None
        self._folder, self._open_ear, self._now_s = folder, open_ear, now_s
        self._rows: dict[tuple[int, bool], Row] = {}
        self._lock = threading.Lock()
        self._looked_s = float("-inf")
        self._thread: threading.Thread | None = None

    # --- the page's side ---

    def look(self) -> list[Row]:
        """The newest frame of each id, by id; hearing begins with the first look."""
        with self._lock:
            self._looked_s = self._now_s()
            self._hear()
            return [replace(row) for _, row in sorted(self._rows.items())]

    def record(self, seconds: float, stamp: str) -> str:
        """Begin a capture; why it cannot begin, empty when it has. stamp: of its name, as 20260131T235959Z."""
        with self._lock:
            if self.capture is not None and not self.capture.why:
                return "one is being made already"
            name = re.sub(r"[^A-Za-z0-9_.-]", "_", self.place.channel)[:32]
            fresh = Capture(self._folder / f"{name}-{stamp}.log", self._now_s() + min(seconds, CAPTURE_MAX_S))
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                trim(self._folder, CAPTURES_KEPT - 1, CAPTURE)
                fresh.open()
            except OSError as error:
                return f"{fresh.path} cannot be written ({error.strerror})"
            self.capture = fresh
            self._hear()
            return ""

    def stop(self) -> None:
        """End the capture now."""
        with self._lock:
            if self.capture is not None:
                self.capture.end("stopped")

    # --- the thread ---

    def _hear(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._listen, name=f"hears {self.place.channel}", daemon=True)
            self._thread.start()

    def _listen(self) -> None:
        try:
            ear = self._open_ear(self.place.interface, self.place.channel)
        except PortError as error:
            self._over(str(error))
            return
        trouble = ""
        try:
            while self._wanted():
                if (heard := ear.hear(HEAR_S)) is not None:
                    self._take(*heard)
        except PortError as error:
            trouble = str(error)
        finally:
            self._over(trouble)
            ear.close()

    def _wanted(self) -> bool:
        with self._lock:
            now_s, capture = self._now_s(), self.capture
            if capture is not None and not capture.why and now_s >= capture.ends_s:
                capture.end("its time is over")
            return now_s - self._looked_s < UNSEEN_S or (capture is not None and not capture.why)

    def _take(self, stamp_us: int, frame: CanFrame) -> None:
        key = frame.id, frame.extended
        with self._lock:
            self.trouble = ""
            if (row := self._rows.get(key)) is not None:
                row.take(stamp_us, frame, self._now_s())
            elif len(self._rows) < IDS_MAX:
                self._rows[key] = Row(frame, stamp_us, self._now_s())
            else:
                self.strangers += 1
            if self.capture is not None and not self.capture.why:
                try:
                    self.capture.take(stamp_us, frame, self.place.channel)
                except OSError as error:
                    self.capture.end(f"it cannot be written ({error.strerror})")

    def _over(self, trouble: str) -> None:
        with self._lock:
            self.trouble, self._thread = trouble, None
            self._rows.clear()
            self.strangers = 0
            if self.capture is not None:
                self.capture.end(trouble or "stopped")


def captures(folder: Path) -> list[Path]:
    """Newest first. Raises OSError."""
    return kept(folder, CAPTURE)
