"""Incident bundles on disk: one zip each, written by a thread of its own, the oldest dropped when there are too many.

    0007-20261101T120003Z-1f0c2a9b-fault.zip      number, UTC as the clock had it, boot, why

A bundle is written beside its place, flushed, and put there by one rename: whatever is cut, it is there whole or not at
all. The oldest is the one with the lowest number, since no clock is trusted.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import shutil
import threading
import zipfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

LIMIT_BYTES: Final = 128 * 1024 * 1024
KEEP_FREE_BYTES: Final = 64 * 1024 * 1024
"""Of the disk: the record of a restart must find room."""
NAME = re.compile(r"(\d{4,})-\d{8}T\d{6}Z-[0-9a-f]{8}-[a-z]+\.zip")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
SYNCHRONISED = Path("/run/systemd/timesync/synchronized")
TIME_ERROR = 5
NICE = 10
WAITING_MAX = 2
MODE, FOLDER_MODE = 0o640, 0o750
"""The gateway is in the group, and offers them for download."""
LEVEL = 4

Contents = Iterator[tuple[str, Iterable[bytes]]]
Fill = Callable[[Mapping[str, Any]], Contents]
"""Given the clock and the machine, makes the files of a bundle: name, and its bytes in pieces."""


def bundles(folder: Path) -> list[Path]:
    """Those that are there, oldest first. Raises OSError."""
    found = [path for path in folder.iterdir() if NAME.fullmatch(path.name)] if folder.exists() else []
    return sorted(found, key=_number)


def _number(path: Path) -> int:
    return int(path.name.partition("-")[0])


class _Wanted(NamedTuple):
    name: str
    fill: Fill
    written_utc: str


class Incidents:
    """trouble: why the last bundle could not be written, empty when it could. newest: the name of the last one."""

    def __init__(self, folder: Path, limit_bytes: int = LIMIT_BYTES, keep_free_bytes: int = KEEP_FREE_BYTES) -> None:
        self.trouble = self.newest = ""
        self._folder, self._limit_bytes, self._keep_free_bytes = folder, limit_bytes, keep_free_bytes
        self._boot_id = _boot_id()
        self._last = 0
        with suppress(OSError):
            for torn in folder.glob(".*.zip.new"):
                torn.unlink()
            for path in bundles(folder)[-1:]:
                self.newest, self._last = path.name, _number(path)
        self._wanted: deque[_Wanted] = deque(maxlen=WAITING_MAX)
        self._closing = False
        self._news = threading.Condition()
        self._writer = threading.Thread(target=self._write_all, name="incidents", daemon=True)
        self._writer.start()

    def store(self, why: str, fill: Fill) -> str:
        """Begin to write one; returns its name at once. Of more than two that wait the oldest gives way."""
        now, self._last = datetime.now(UTC), self._last + 1
        name = f"{self._last:04}-{now:%Y%m%dT%H%M%SZ}-{self._boot_id[:8]}-{why}.zip"
        with self._news:
            self._wanted.append(_Wanted(name, fill, now.isoformat(timespec="milliseconds")))
            self._news.notify()
        return name

    def close(self, within_s: float) -> bool:
        """Write what waits. False when that was not done in time."""
        with self._news:
            self._closing = True
            self._news.notify()
        self._writer.join(within_s)
        return not self._writer.is_alive() and not self.trouble

    def _write_all(self) -> None:
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        while True:
            with self._news:
                self._news.wait_for(lambda: self._wanted or self._closing)
                if not self._wanted:
                    return
                wanted = self._wanted.popleft()
            try:
                self._write(wanted)
                self.newest, self.trouble = wanted.name, ""
            except Exception as error:  # noqa: BLE001 - a bundle that cannot be written is told, the next one is tried
                reason = error.strerror if isinstance(error, OSError) and error.strerror else f"{error}"
                self.trouble = f"{wanted.name} could not be written: {reason}"

    def _write(self, wanted: _Wanted) -> None:
        if not self._folder.is_dir():
            self._folder.mkdir(parents=True)
            self._folder.chmod(FOLDER_MODE)
        self._make_room()
        fresh = self._folder / f".{wanted.name}.new"
        try:
            with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, MODE), "wb") as file:
                with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=LEVEL) as archive:
                    for name, pieces in wanted.fill(self._outside(wanted)):
                        with archive.open(name, "w") as member:
                            for piece in pieces:
                                member.write(piece)
                file.flush()
                os.fchmod(file.fileno(), MODE)  # whatever the unit's UMask
                os.fsync(file.fileno())
            self._drop_oldest(fresh.stat().st_size)
            fresh.rename(self._folder / wanted.name)
        finally:
            fresh.unlink(missing_ok=True)
        handle = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def _make_room(self) -> None:
        """The oldest go while the disk is nearly full; without any left, nothing is written."""
        old = bundles(self._folder)
        while shutil.disk_usage(self._folder).free < self._keep_free_bytes:
            if not old:
                raise OSError(f"less than {self._keep_free_bytes >> 20} MiB are free on the disk")
            old.pop(0).unlink()

    def _drop_oldest(self, size: int) -> None:
        old = bundles(self._folder)
        total = size + sum(path.stat().st_size for path in old)
        while old and total > self._limit_bytes:
            total -= old[0].stat().st_size
            old.pop(0).unlink()

    def _outside(self, wanted: _Wanted) -> dict[str, Any]:
        """What only the machine knows. written_utc belongs to the t_ms of the manifest."""
        return {
            "written_utc": wanted.written_utc, "clock_synchronised": clock_synchronised(), "boot_id": self._boot_id,
            "python": platform.python_version(), "machine": platform.machine(),
        }  # fmt: skip


def _boot_id() -> str:
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return "00000000"


def clock_synchronised() -> bool | None:
    """Does the wall clock follow a time server? A mark of systemd-timesyncd, else adjtimex(2); None: cannot tell."""
    if SYNCHRONISED.exists():
        return True
    with suppress(OSError, AttributeError):
        state = int(ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512)))
        if state >= 0:
            return state != TIME_ERROR
    return None
