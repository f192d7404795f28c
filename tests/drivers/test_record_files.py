"""The record on disk: whatever is cut, torn or full, it is the old one or the new one, or it is known to be lost."""

import errno
import threading
from collections.abc import Iterator
from itertools import chain, combinations, product
from pathlib import Path

import pytest

from controller.ports import Record
from drivers.record_files import (
    COPIES,
    FOLDER,
    Found,
    OsDisk,
    RecordError,
    RecordFiles,
    decode,
    encode,
    find,
    write_copies,
)

OLD = Record(seq=5, latched=("hvil-open",), closings_age_ms=(60_000, 10))
NEW = Record(seq=6, closed=True, precharges_age_ms=((0, 2_000), (9, 100)))
NEWER = Record(seq=7)
Files = dict[str, bytes]


class Shelf:
    """A disk that only remembers what was done to it."""

    def __init__(self, files: Files) -> None:
        self.files = dict(files)
        self.done: list[tuple[str, ...] | tuple[str, str, bytes]] = []

    def read(self, name: str) -> bytes:
        if name not in self.files:
            raise FileNotFoundError
        return self.files[name]

    def write(self, name: str, data: bytes) -> None:
        self.done.append(("write", name, data))
        self.files[name] = data

    def rename(self, name: str, to: str) -> None:
        self.done.append(("rename", name, to))
        self.files[to] = self.files.pop(name)

    def flush(self, name: str) -> None:
        self.done.append(("flush", name))


def torn(data: bytes) -> list[bytes]:
    """What a file that was not flushed may hold after the power was cut."""
    return [b"", data[:1], data[: len(data) // 2], data[:-1], bytes(len(data)), data]


def after_a_cut(before: Files, done: list) -> Iterator[Files]:
    """Every state the disk may be in when the power goes after `done`: what was not flushed is there, or not, or torn.

    Names that were changed and not flushed: any of the changes may be on disk, in their order.
    """
    contents = [[data] for data in before.values()]
    now = {name: number for number, name in enumerate(before)}
    durable, pending = dict(now), []
    for what, *about in done:
        if what == "write":
            name, data = about
            if name not in now:
                now[name] = len(contents)
                contents.append([])
                pending.append((None, name, now[name]))
            contents[now[name]] += torn(data)
        elif what == "rename":
            name, to = about
            now[to] = now.pop(name)
            pending.append((name, to, now[to]))
        elif about[0] == FOLDER:
            durable, pending = dict(now), []
        else:
            contents[now[about[0]]] = contents[now[about[0]]][-1:]
    for applied in chain.from_iterable(combinations(pending, n) for n in range(len(pending) + 1)):
        names = dict(durable)
        for name, to, number in applied:
            names.pop(name, None)
            names[to] = number
        for chosen in product(*(contents[number] for number in names.values())):
            yield dict(zip(names, chosen, strict=True))


def copies(record: Record | None) -> Files:
    return {} if record is None else dict.fromkeys(COPIES, encode(record))


def cuts(before: Files, record: Record) -> Iterator[tuple[bool, Files]]:
    """(whether all was done, what is left) for a cut after each instruction of storing `record`."""
    shelf = Shelf(before)
    write_copies(shelf, record)
    for cut in range(len(shelf.done) + 1):
        for left in after_a_cut(before, shelf.done[:cut]):
            yield cut == len(shelf.done), left


@pytest.mark.parametrize("old", [None, OLD], ids=["first", "second"])
def test_a_power_cut_at_any_instruction_leaves_the_old_record_or_the_new_one(old: Record | None):
    for done, left in cuts(copies(old), NEW):
        found = find(Shelf(left))
        assert not found.lost
        assert found.record in ((NEW,) if done else (old, NEW))


def test_so_does_a_cut_while_what_an_earlier_cut_left_is_written_over():
    states = {tuple(sorted(left.items())) for _, left in cuts(copies(OLD), NEW)}
    assert len(states) > 10
    for state in states:
        before = find(Shelf(dict(state))).record
        for done, left in cuts(dict(state), NEWER):
            found = find(Shelf(left))
            assert not found.lost
            assert found.record in ((NEWER,) if done else (before, NEWER))


def test_a_record_that_counts_as_stored_survives_the_loss_of_either_copy():
    shelf = Shelf(copies(OLD))
    write_copies(shelf, NEW)
    for name in COPIES:
        damaged = shelf.files | {name: b"\x00" * 300}
        assert find(Shelf(damaged)).record == NEW
        assert name in find(Shelf(damaged)).spoilt


def test_no_copies_are_a_first_start():
    assert find(Shelf({})) == Found()


@pytest.mark.parametrize("rest", [{}, {COPIES[1]: b""}, {COPIES[1]: encode(OLD)[:-2]}], ids=["alone", "empty", "torn"])
def test_no_readable_copy_is_a_lost_record_and_says_why(rest: Files):
    found = find(Shelf({COPIES[0]: encode(OLD).replace(b"5", b"4", 1)} | rest))
    assert found.record is None
    assert "record-a is damaged" in found.lost


@pytest.mark.parametrize("at", range(0, len(encode(NEW)), 7))
def test_no_flipped_bit_goes_unnoticed(at: int):
    data = bytearray(encode(NEW))
    data[at] ^= 0x04
    with pytest.raises(ValueError, match="damaged"):
        decode(bytes(data))


def test_every_field_of_a_record_comes_back():
    full = Record(9, True, True, ("a", "b"), (1, 2), ((3, 4),), 2, (5,))
    assert decode(encode(full)) == full


def test_a_record_of_a_newer_program_is_refused_in_one_sentence(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("drivers.record_files.SCHEMA", 2)
    newer = encode(OLD)
    monkeypatch.undo()
    with pytest.raises(RecordError, match="version 2, this program reads 1: update the program"):
        find(Shelf({COPIES[0]: encode(OLD), COPIES[1]: newer}))


def test_a_record_we_may_not_read_is_no_lost_record():
    class Forbidden(Shelf):
        def read(self, name: str) -> bytes:
            raise PermissionError(errno.EACCES, "Permission denied")

    with pytest.raises(RecordError, match="run as the user it belongs to"):
        find(Forbidden({}))


# --- the writer ---


class Full(Shelf):
    """Fails at one of its instructions, until it is mended."""

    def __init__(self, files: Files, at: int) -> None:
        super().__init__(files)
        self.at = at
        self.failed = threading.Event()

    def _count(self) -> None:
        if len(self.done) >= self.at:
            self.failed.set()
            raise OSError(errno.ENOSPC, "No space left on device")

    def write(self, name: str, data: bytes) -> None:
        self._count()
        super().write(name, data)

    def rename(self, name: str, to: str) -> None:
        self._count()
        super().rename(name, to)

    def flush(self, name: str) -> None:
        self._count()
        super().flush(name)


@pytest.mark.parametrize("at", range(8))
def test_a_record_a_full_disk_did_not_take_is_not_called_stored(at: int):
    disk = Full(copies(OLD), at)
    files = RecordFiles(disk, stored_seq=5)
    files.store(NEW)
    assert disk.failed.wait(30)
    assert not files.close(30)
    assert files.stored_seq() == 5
    assert "No space left" in files.trouble
    assert find(disk).record in (OLD, NEW)


def test_it_is_tried_again_until_the_disk_takes_it():
    disk = Full(copies(OLD), 2)
    files = RecordFiles(disk, stored_seq=5)
    files.store(NEW)
    assert disk.failed.wait(30)
    disk.at = 10_000
    assert files.close(30)
    assert files.stored_seq() == 6
    assert find(disk).record == NEW


class Hung(Shelf):
    """Answers when it is let."""

    def __init__(self) -> None:
        super().__init__({})
        self.asked, self.answers = threading.Event(), threading.Event()

    def write(self, name: str, data: bytes) -> None:
        self.asked.set()
        self.answers.wait(30)
        super().write(name, data)


def test_storing_waits_for_no_disk_and_of_many_records_the_newest_is_kept():
    disk = Hung()
    files = RecordFiles(disk)
    files.store(Record(seq=1))
    assert disk.asked.wait(30)
    for seq in range(2, 7):
        files.store(Record(seq=seq))
    assert files.stored_seq() == 0
    disk.answers.set()
    assert files.close(30)
    assert files.stored_seq() == 6
    assert [what for what, *_ in disk.done].count("write") == 4  # two records, two copies each


def test_a_real_folder_keeps_it(tmp_path: Path):
    files = RecordFiles(OsDisk(tmp_path))
    files.store(NEW)
    assert files.close(30)
    assert find(OsDisk(tmp_path)) == Found(NEW)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(COPIES)


def test_a_folder_that_is_not_there_is_a_first_start_and_takes_no_record(tmp_path: Path):
    disk = OsDisk(tmp_path / "none")
    assert find(disk) == Found()
    files = RecordFiles(disk)
    files.store(NEW)
    assert not files.close(30)
    assert files.stored_seq() == 0
