"""The record of a restart on disk: two checksummed copies, written one after the other by a thread of its own.

    record-a, record-b:   <sha256 of the second line, hex>
                          {"schema": 1, "seq": 12, "closed": true, …}

Each copy is written beside its place, flushed, put there by one rename, and the folder is flushed: whatever is cut, a
copy is the old record or the new one. A record counts as stored when both copies are on disk.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, Protocol

from controller.ports import PortError, Record

SCHEMA = 1
COPIES = ("record-a", "record-b")
FOLDER = "."
QUEUE_MAX = 8
RETRY_S = 1.0
SIZE_MAX = 1_000_000


class RecordError(PortError):
    """The record must not be judged by this program: written by a newer one, or forbidden to us."""


class Disk(Protocol):
    """One folder. Every method raises OSError."""

    def read(self, name: str) -> bytes: ...

    def write(self, name: str, data: bytes) -> None:
        """The whole file, not yet flushed."""

    def rename(self, name: str, to: str) -> None:
        """Replaces `to`."""

    def flush(self, name: str) -> None:
        """Until it is on disk; FOLDER for the names."""


class OsDisk:
    """A real folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, name: str) -> bytes:
        with (self.folder / name).open("rb") as file:
            return file.read(SIZE_MAX)

    def write(self, name: str, data: bytes) -> None:
        with (self.folder / name).open("wb") as file:
            file.write(data)

    def rename(self, name: str, to: str) -> None:
        (self.folder / name).replace(self.folder / to)

    def flush(self, name: str) -> None:
        handle = os.open(self.folder / name, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


class Found(NamedTuple):
    """What the disk held. record: the newest readable copy, None on a first start, or when `lost`.

    lost: there are copies and none is readable; spoilt: one is not. Both say why, and are empty otherwise.
    """

    record: Record | None = None
    lost: str = ""
    spoilt: str = ""


def find(disk: Disk) -> Found:
    """Read both copies. Raises RecordError."""
    records: list[Record] = []
    missing: list[str] = []
    wrong: list[str] = []
    for name in COPIES:
        try:
            records.append(decode(disk.read(name)))
        except FileNotFoundError:
            missing.append(f"{name} is missing")
        except PermissionError as error:
            raise RecordError(f"{name} may not be read ({error.strerror}): run as the user it belongs to") from None
        except OSError as error:
            wrong.append(f"{name} cannot be read ({error.strerror})")
        except ValueError as error:
            wrong.append(f"{name} {error}")
    if records:
        newest = max(records, key=lambda record: record.seq)
        return Found(newest, spoilt=", ".join((*wrong, *missing)))
    return Found(lost=", ".join((*wrong, *missing)) if wrong else "")


def encode(record: Record) -> bytes:
    body = json.dumps({"schema": SCHEMA, **_fields(record)}).encode()
    return hashlib.sha256(body).hexdigest().encode() + b"\n" + body + b"\n"


def decode(data: bytes) -> Record:
    """Raises ValueError for what is not whole, RecordError for what a newer program wrote."""
    checksum, _, body = data.partition(b"\n")
    if not body.endswith(b"\n") or hashlib.sha256(body[:-1]).hexdigest().encode() != checksum:
        raise ValueError("is damaged (its checksum is wrong)")
    stored = json.loads(body)
    if stored["schema"] > SCHEMA:
        raise RecordError(f"the record has version {stored['schema']}, this program reads {SCHEMA}: update the program")
    return _record(stored)


def _fields(record: Record) -> dict[str, Any]:
    return {name: getattr(record, name) for name in Record.__dataclass_fields__}


def _record(stored: Mapping[str, Any]) -> Record:
    """Lists become the tuples they were."""
    known = {name: value for name, value in stored.items() if name in Record.__dataclass_fields__}
    if missing := Record.__dataclass_fields__.keys() - known.keys():
        raise ValueError(f"lacks {', '.join(sorted(missing))}")
    return Record(**{name: _frozen(value) for name, value in known.items()})


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


def write_copies(disk: Disk, record: Record) -> None:
    """Both copies, one after the other. Raises OSError; then at least one copy is as it was."""
    data = encode(record)
    for name in COPIES:
        fresh = f"{name}.new"
        disk.write(fresh, data)
        disk.flush(fresh)
        disk.rename(fresh, name)
        disk.flush(FOLDER)


class RecordFiles:
    """Stores the newest record it is given, and tries again each second until it is stored.

    trouble: why the last try failed, empty when it did not.
    """

    def __init__(self, disk: Disk, stored_seq: int = 0) -> None:
        self.trouble = ""
        self._disk, self._stored_seq = disk, stored_seq
        self._queue: SimpleQueue[Record | None] = SimpleQueue()
        self._writer = threading.Thread(target=self._write_all, name="records", daemon=True)
        self._writer.start()

    def store(self, record: Record) -> None:
        """A record that finds the queue full is dropped: the core hands it out again until it is stored."""
        if self._queue.qsize() < QUEUE_MAX:
            self._queue.put(record)

    def stored_seq(self) -> int:
        return self._stored_seq

    def close(self, within_s: float) -> bool:
        """Write what waits. False when that was not done in time."""
        self._queue.put(None)
        self._writer.join(within_s)
        return not self._writer.is_alive() and not self.trouble

    def _write_all(self) -> None:
        wanted: Record | None = None
        closing = False
        while not closing:
            try:
                given = [self._queue.get(timeout=RETRY_S if wanted else None)]
                given += [self._queue.get_nowait() for _ in range(self._queue.qsize())]
            except Empty:
                given = []
            closing = None in given
            wanted = max((wanted, *given), key=lambda record: -1 if record is None else record.seq)
            if wanted is not None and self._written(wanted):
                wanted = None

    def _written(self, record: Record) -> bool:
        try:
            write_copies(self._disk, record)
        except OSError as error:
            self.trouble = f"the record cannot be stored: {error.strerror or error}"
            return False
        self._stored_seq, self.trouble = record.seq, ""
        return True
