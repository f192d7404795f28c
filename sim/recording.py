"""Recordings of a bus, read as a stream: any size, constant memory, the format told by content and not by suffix.

    recording = open_recording(locate("drive.log"), ids=KNOWN)
    for tick, frames in recording.batches():                    # only the 10 ms ticks that have frames
        ...
    print(recording.frames, recording.rejected, recording.first_rejection)

Stamps are whole µs since the first frame. What cannot be read is counted, the first of it with line number and reason;
no readable frame, or more than a tenth unreadable, ends in a RecordingError. candump is read here and not by
python-can, whose reader passes a torn last line as a shorter frame and takes several times as long.
"""

from __future__ import annotations

import gzip
import logging
import re
import stat
import struct
import zlib
from binascii import unhexlify
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import UTC, datetime
from itertools import islice, pairwise
from pathlib import Path
from typing import BinaryIO, cast

import can
from can.io.blf import BLFParseError

from controller.codec import candump, rtu
from controller.ports import CanFrame

EXTENDED = 0x8000_0000
"""Added to a 29-bit id wherever ids stand as plain numbers (`ids`, `ids_seen`): the flag of DBC files and SocketCAN."""

LOGS = Path(__file__).parent / "logs"
READABLE = "candump, SavvyCAN CSV, ASC, BLF, TRC, python-can CSV, MF4, .rtu"

Line = tuple[int, int, bytes]
"""A frame as recorded: stamp in µs, id (EXTENDED added to a 29-bit one), payload."""

Columns = tuple[list[int], list[int], list[bytes]]
"""Many Lines, turned on their side."""

_BLOCK = 1 << 16
_BOM = b"\xef\xbb\xbf"
_CHUNK = 500
_CLOCK_SET_US = 1_000_000
_GAP_US = 3_600_000_000
_BAD_RECORD = (ValueError, LookupError, TypeError, ArithmeticError, struct.error)
for _name in ("can.io.asc", "can.io.blf", "can.io.trc"):  # what they complain of is counted here, not printed
    logging.getLogger(_name).addHandler(logging.NullHandler())


class RecordingError(Exception):
    """The file cannot be used as a recording. One line that names the file, and the place in it where there is one."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split("\n")))


class _Unreadable(ValueError):
    """This line is no frame. The message is the reason."""


class _Skipped(Exception):
    """This line is well formed but no classic data frame: remote, error, CAN FD."""


# ---- one line of each text format -----------------------------------------------------------------------------------

_CANDUMP_LINES = re.compile(
    r"^\((\d{1,12}+)\.(\d{6})\) [^\n #]++ ([0-9A-Fa-f]++)#([0-9A-Fa-f]{0,16}+)(?: [RT])?\r?\n", re.MULTILINE | re.ASCII
)
_CANDUMP = re.compile(r"\s*\((\d{1,12})\.(\d{1,9})\)\s+\S+\s+([0-9A-Fa-f]+)#(\S*)(?:\s+[RT])?\s*$", re.ASCII)
_PRINTED = re.compile(
    r"\s*\((?:(\d{1,12})|(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d))\.(\d{1,9})\)\s+\S+\s+(?:[RT]X\s+\S+\s+\S+\s+)?"
    r"([0-9A-Fa-f]{3,8})\s+\[(\d+)\]\s*(.*?)\s*$",
    re.ASCII,
)
_RTU = re.compile(r"\s*\((\d{1,12})\.(\d{1,9})\)\s+(?:rs485|tty|serial)\S*\s+([0-9A-Fa-f]+)\s*$", re.ASCII)
_NOTHING = re.compile(r"\s*($|[#;]|//|time stamp,)", re.IGNORECASE)
_REMOTE_OR_FD = re.compile(r"[Rr]\d?$|#[0-9A-Fa-f](?:[0-9A-Fa-f]{2}){0,64}$", re.ASCII)


def _ident(number: int, extended: bool) -> int:
    if not 0 <= number <= (0x1FFF_FFFF if extended else 0x7FF):
        raise _Unreadable(f"the id {number:X} is too large")
    return number + EXTENDED if extended else number


class _Ids(dict[str, int]):
    """Hex id → number, remembered. Three digits are 11-bit, eight are 29-bit."""

    def __missing__(self, text: str) -> int:
        if len(text) not in (3, 8):
            raise _Unreadable(f"an id has 3 or 8 hex digits, not {len(text)}")
        number = int(text, 16)
        if len(text) == 8 and 0x2000_0000 <= number < 0x4000_0000:
            raise _Skipped("error frame")
        self[text] = _ident(number, len(text) == 8)
        return self[text]


def _micros(seconds: str, fraction: str) -> int:
    return int(seconds) * 1_000_000 + int((fraction + "00000")[:6])


def _payload(digits: str) -> bytes:
    if len(digits) > 16:
        raise _Unreadable("more than 8 bytes of data")
    if len(digits) % 2:
        raise _Unreadable("an odd number of hex digits")
    try:
        return unhexlify(digits)
    except ValueError:
        raise _Unreadable("the data is not hexadecimal") from None


def _candump_line(text: str, ids: _Ids) -> Line:
    """`(1700000000.010000) can0 132#7D83D5FFE23FFF0F`."""
    found = _CANDUMP.match(text)
    if found is None:
        raise _Unreadable("not a line of candump")
    seconds, fraction, ident, data = found.groups()
    number = ids[ident]
    if _REMOTE_OR_FD.match(data):
        raise _Skipped("remote or CAN FD frame")
    return _micros(seconds, fraction), number, _payload(data)


def _printed_line(text: str, ids: _Ids) -> Line:
    """` (001.234567)  can0  132   [8]  7D 83 D5 FF E2 3F FF 0F   '}.....?.'`, as candump -ta, -tA and -tz print it."""
    found = _PRINTED.match(text)
    if found is None:
        raise _Unreadable("not a line of candump")
    seconds, date, fraction, ident, length, rest = found.groups()
    if date:
        seconds = str(int(datetime.fromisoformat(date).replace(tzinfo=UTC).timestamp()))
    number = ids[ident]
    if len(length) > 1 or rest.startswith("remote"):
        raise _Skipped("remote or CAN FD frame")
    data = rest.partition("'")[0].split()
    if len(data) != int(length) or any(len(byte) != 2 for byte in data):
        raise _Unreadable(f"the data is not the {length} bytes it says")
    return _micros(seconds, fraction), number, _payload("".join(data))


def _delta_line() -> Callable[[str, _Ids], Line]:
    """candump -td: each stamp counts from the frame before."""
    now_us = 0

    def parse(text: str, ids: _Ids) -> Line:
        nonlocal now_us
        after_us, number, data = _printed_line(text, ids)
        now_us += after_us
        return now_us, number, data

    return parse


def _savvycan_line(header: str) -> Callable[[str, _Ids], Line]:
    """SavvyCAN's CSV, columns found by name: stamps in µs, ids and data in hex."""
    names = [name.strip().lower() for name in header.split(",")]
    stamp, ident, extended, length, first = map(names.index, ("time stamp", "id", "extended", "len", "d1"))

    def parse(text: str, _: _Ids) -> Line:
        cells = [cell.strip() for cell in text.split(",")]
        if len(cells) < first or not (cells[stamp].isdecimal() and cells[length].isdecimal()):
            raise _Unreadable("not a line of SavvyCAN")
        size = int(cells[length][:4])
        data = cells[first : first + size]
        if len(data) != size or not all(1 <= len(byte) <= 2 for byte in data):
            raise _Unreadable("the data is not the bytes it says")
        if size in (12, 16, 20, 24, 32, 48, 64):
            raise _Skipped("CAN FD frame")
        if not re.fullmatch("[0-9A-Fa-f]+", cells[ident]):
            raise _Unreadable("the id is not hexadecimal")
        number = _ident(int(cells[ident], 16), cells[extended].lower() in ("true", "1"))
        return int(cells[stamp]), number, _payload("".join(byte.rjust(2, "0") for byte in data))

    return parse


def _rtu_line(text: str, _: _Ids) -> Line:
    """`(1643225378.000000) rs485 1503012C001886E1`: bytes of a serial line, the id is 0."""
    found = _RTU.match(text)
    if found is None:
        raise _Unreadable("not a line of a serial recording")
    seconds, fraction, data = found.groups()
    if len(data) % 2:
        raise _Unreadable("an odd number of hex digits")
    return _micros(seconds, fraction), 0, unhexlify(data)


# ---- telling the format ---------------------------------------------------------------------------------------------

_MAGIC = {b"LOGG": "blf", b"MDF     ": "mf4", b"UnFinMF ": "mf4"}
_SIGNS = {
    "candump": re.compile(r"\s*\(\d+\.\d+\)\s+\S+\s+[0-9A-Fa-f]{3,8}#", re.ASCII),
    "printed": _PRINTED,
    "rtu": _RTU,
    "savvycan": re.compile(r"time stamp,id,extended,.*\blen,d1\b", re.IGNORECASE),
    "csv": re.compile(r"timestamp,arbitration_id,extended,remote,error,dlc,data\s*$"),
    "asc": re.compile(
        r"date\s+\w{3}\s+\w+|base\s+(hex|dec)\b|begin\s+triggerblock\b|(no\s+)?internal\s+events\s+logged"
        r"|\s*\d+\.\d+\s+\d+\s+[0-9a-f]+x?\s+[rt]x\s+[dr]\b",
        re.IGNORECASE | re.ASCII,
    ),
    "trc": re.compile(r";\$FILEVERSION=|\s*\d+\)\s+\d+(\.\d+)?\s", re.ASCII),
}


def _sniff(head: bytes) -> tuple[str, str]:
    """The format of a file that begins so and the line that told; or "" and a hint, when there is one."""
    for magic, name in _MAGIC.items():
        if head.startswith(magic):
            return name, ""
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "", "it is text in UTF-16, store it as UTF-8"
    lines = head.decode("latin-1").split("\n")
    for line in lines:
        for name, sign in _SIGNS.items():
            if sign.match(line):
                return ("delta" if name == "printed" and _counts_from_the_last(lines) else name), line
    if any(re.match(r"\s+\S+\s+[0-9A-F]{3,8}\s+\[\d\]", line) for line in lines[:20]):
        return "", "it has no time stamps, record with candump -l"
    return "", ""


def _counts_from_the_last(lines: list[str]) -> bool:
    """True when the stamps that candump printed are differences (-td): short, and now smaller, now larger."""
    found = [match for line in lines if (match := _PRINTED.match(line)) and len(match[1] or "") == 3]
    stamps = [_micros(match[1], match[3]) for match in found]
    falls = sum(later < earlier for earlier, later in pairwise(stamps))
    steady = len(stamps) > 2 and stamps[1] > 0 and len(set(stamps[1:])) == 1
    return steady or falls * 10 > len(stamps)


# ---- the file -------------------------------------------------------------------------------------------------------


class _Tally:
    """What was counted while reading. See Recording for the words."""

    def __init__(self) -> None:
        self.frames = self.rejected = self.skipped = self.stepped_back = self.stepped_forward = self.duration_us = 0
        self.first_rejection: tuple[int, str] | None = None
        self.ids_seen: Counter[int] = Counter()

    def reject(self, line: int, reason: str) -> None:
        self.rejected += 1
        if self.first_rejection is None:
            self.first_rejection = (line, reason)


class _Source:
    """The open file: its bytes with gzip undone, or its text in blocks of whole lines."""

    def __init__(self, path: Path, tally: _Tally) -> None:
        self.path, self.tally, self.size, self.line = path, tally, path.stat().st_size, 0
        self.raw = path.open("rb")
        self.zipped = self.raw.read(2) == b"\x1f\x8b"
        self.raw.seek(0)
        self.stream: BinaryIO = gzip.GzipFile(fileobj=self.raw) if self.zipped else self.raw  # type: ignore[assignment]
        self._read: Callable[[int], bytes] = self.stream.read1 if self.zipped else self.raw.read  # type: ignore[attr-defined]

    def broken(self, reason: str) -> None:
        """The rest cannot be read. Counted as one rejection; a RecordingError when it is more than a tenth."""
        if (self.size - self.raw.tell()) * 10 > self.size:
            raise RecordingError(f"{self.path}: damaged at byte {self.raw.tell()} of {self.size}: {reason}")
        self.tally.reject(self.line + 1 if self.line else 0, reason)

    def head(self) -> bytes:
        """The first 64 KiB, or what of it can be read."""
        head = b""
        try:
            while len(head) < 1 << 16 and (piece := self._read(1 << 16)):
                head += piece
        except (EOFError, zlib.error, gzip.BadGzipFile):
            pass
        return head.removeprefix(_BOM)

    def _pieces(self) -> Iterator[bytes]:
        try:
            while piece := self._read(_BLOCK):
                yield piece
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            self.broken(f"the gzip data is damaged: {error}")

    def blocks(self) -> Iterator[str]:
        """Text, whole lines; the last block is one line without its end if the file ends so. `line`: lines before it.

        A line longer than a block is rejected and left out.
        """
        tail, endless = b"", False
        for piece in self._pieces():
            if not self.line and not tail:
                piece = piece.removeprefix(_BOM)
            if endless:
                _, found, piece = piece.partition(b"\n")
                endless = not found
                self.line += bool(found)
            text = tail + piece
            cut = text.rfind(b"\n") + 1
            if not cut and len(text) > _BLOCK:
                self.tally.reject(self.line + 1, "the line has no end")
                text, endless = b"", True
            tail = text[cut:]
            if cut:
                yield text[:cut].decode("latin-1")
                self.line += text.count(b"\n", 0, cut)
        if tail:
            yield tail.decode("latin-1")

    def lines(self) -> Iterator[tuple[int, str]]:
        """Numbered lines for python-can. Blank ones are left out, binary ones and a torn last one rejected."""
        for block in self.blocks():
            ended = block.endswith("\n")
            for number, line in enumerate(block.removesuffix("\n").split("\n"), self.line + 1):
                if re.search(r"[\x00-\x08\x0e-\x1f]", line):
                    self.tally.reject(number, "binary data")
                elif not ended and line.lstrip()[:1].isdigit():
                    self.tally.reject(number, "the last line has no end and may be torn")
                elif line.strip():
                    yield number, line + "\n"


# ---- the formats: each yields what the file holds as Columns --------------------------------------------------------


def _columns(lines: Iterable[Line]) -> Columns:
    stamps, idents, payloads = [], [], []
    for stamp, ident, data in lines:
        stamps.append(stamp)
        idents.append(ident)
        payloads.append(data)
    return stamps, idents, payloads


def _parsed(source: _Source, block: str, parse: Callable[[str, _Ids], Line], ids: _Ids) -> Iterator[Line]:
    """The frames of a block, line by line; all else is counted. Blank lines, comments and the header are nothing."""
    for number, line in enumerate(block.removesuffix("\n").split("\n"), source.line + 1):
        if _NOTHING.match(line):
            continue
        try:
            yield parse(line, ids)
        except _Skipped:
            source.tally.skipped += 1
        except ValueError as error:
            source.tally.reject(number, str(error) if isinstance(error, _Unreadable) else "not a number")


def _candump(source: _Source) -> Iterator[Columns]:
    """A block of flawless lines goes through one regular expression; any other is read line by line."""
    ids, recent = _Ids(), deque[Columns](maxlen=2)
    for block in source.blocks():
        rows = _CANDUMP_LINES.findall(block)
        try:
            if len(rows) != block.count("\n") or not rows:
                raise ValueError
            columns = (
                [int(seconds + micros) for seconds, micros, _, _ in rows],
                [ids[ident] for _, _, ident, _ in rows],
                [unhexlify(data) for _, _, _, data in rows],
            )
        except (ValueError, _Skipped):
            columns = _columns(_parsed(source, block, _candump_line, ids))
        if not block.endswith("\n") and columns[0] and not _whole(columns[1][0], columns[2][0], recent):
            source.tally.reject(source.line + 1, "the last line has no end and may be torn")
            columns = _columns(())
        recent.append(columns)
        yield columns


def _whole(ident: int, data: bytes, recent: Iterable[Columns]) -> bool:
    """True when a line without its end holds as much data as the frame of this id before it, or as a frame can."""
    lengths = [len(d) for _, idents, payloads in recent for i, d in zip(idents, payloads, strict=True) if i == ident]
    return len(data) >= (lengths[-1] if lengths else 8)


def _line_by_line(parse: Callable[[str, _Ids], Line], source: _Source, tail: str = "") -> Iterator[Columns]:
    """tail: what a last line without its end must match."""
    ids = _Ids()
    for block in source.blocks():
        if block.endswith("\n") or re.search(tail, block):
            yield _columns(_parsed(source, block, parse, ids))
        else:
            source.tally.reject(source.line + 1, "the last line has no end and may be torn")


def _from_message(message: can.Message) -> Line:
    """A classic data frame of python-can. Raises _Skipped, _Unreadable."""
    if message.is_error_frame or message.is_remote_frame or message.is_fd:
        raise _Skipped("remote, error or CAN FD frame")
    if len(message.data) != message.dlc:
        raise _Unreadable(f"the data is not the {message.dlc} bytes it says")
    if not 0 <= message.timestamp < 1e12:
        raise _Unreadable("the time stamp is out of range")
    number = _ident(message.arbitration_id, message.is_extended_id)
    return round(message.timestamp * 1e6), number, bytes(message.data)


class _Feed:
    """The lines of a text file as python-can's readers take them: an iterator that can be closed.

    A reader that raises is lost, the rest of the file is not: `rewind` hands the next reader the header again and
    goes on after the line that the last one failed at.
    """

    def __init__(self, lines: Iterator[tuple[int, str]], epilogue: list[str]) -> None:
        self.number, self.given = 0, 0
        self.header: list[str] = []
        self._lines = lines
        self._first: tuple[int, str] | None = None
        self._replay: list[str] = []
        for number, line in lines:
            if line.lstrip()[:1].isdigit() or len(self.header) > 1000:
                self._first = (number, line)
                break
            self.header.append(line)
        self.header += epilogue

    def rewind(self) -> None:
        self._replay = self.header[::-1]

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self._replay:
            return self._replay.pop()
        self.number, line = self._first or next(self._lines)
        self._first = None
        self.given += 1
        return line

    def close(self) -> None:
        """Whoever opened the file closes it."""


def _messages(reader: Iterable[can.Message], source: _Source, line: Callable[[], int]) -> Iterator[Line]:
    for message in reader:
        try:
            yield _from_message(message)
        except _Skipped:
            source.tally.skipped += 1
        except _Unreadable as error:
            source.tally.reject(line(), str(error))


def _text_of_python_can(
    reader: Callable[..., Iterable[can.Message]], source: _Source, *epilogue: str
) -> Iterator[Line]:
    """ASC, TRC and python-can's CSV. epilogue: lines that end the header if nothing else does."""
    feed, tally = _Feed(source.lines(), list(epilogue)), source.tally
    if re.search(r"^base\s+\w+\s+timestamps\s+relative", "".join(feed.header), re.IGNORECASE | re.MULTILINE):
        raise RecordingError(f"{source.path}: its time stamps count from event to event, export it with absolute ones")
    while True:
        given = feed.given
        feed.rewind()
        try:
            yield from _messages(reader(feed), source, lambda: feed.number)
            return
        except _BAD_RECORD as error:
            if feed.given == given:
                return
            tally.reject(feed.number, f"not a frame: {error}")


def _blf(source: _Source) -> Iterator[Line]:
    try:
        reader = can.BLFReader(source.stream)
        yield from _messages(reader, source, lambda: 0)
        if reader.file_size > source.size and not source.zipped:
            source.tally.reject(0, "the file is shorter than its header says")
    except (BLFParseError, zlib.error, EOFError, gzip.BadGzipFile, *_BAD_RECORD) as error:
        source.broken(str(error) or "not an object of BLF")


def _mf4(source: _Source) -> Iterator[Line]:
    """On a damaged file asammdf fails in many ways (with errors of its own, of zlib, struct, numpy): all refuse it."""
    try:
        yield from _messages(can.MF4Reader(source.path), source, lambda: 0)
    except NotImplementedError:
        raise RecordingError(f"{source.path}: MF4 needs the extra mf4: pip install 'packwarden[mf4]'") from None
    except Exception as error:
        raise RecordingError(f"{source.path}: damaged MF4: {error}") from error


def _by_chunks(lines: Iterator[Line]) -> Iterator[Columns]:
    while (columns := _columns(islice(lines, _CHUNK)))[0]:
        yield columns


def _read(format: str, told_by: str, source: _Source) -> Iterator[Columns]:
    """The reader of a format. told_by: the line that told the format."""
    match format:
        case "candump":
            return _candump(source)
        case "printed":
            return _line_by_line(_printed_line, source)
        case "delta":
            return _line_by_line(_delta_line(), source)
        case "savvycan":
            return _line_by_line(_savvycan_line(told_by), source, tail=r"(,|[0-9A-Fa-f]{2})\s*$")
        case "rtu":
            return _line_by_line(_rtu_line, source, tail=r"(?!)")
        case "asc":
            return _by_chunks(_text_of_python_can(can.ASCReader, source, "no internal events logged\n"))
        case "trc":
            return _by_chunks(_text_of_python_can(can.TRCReader, source))
        case "csv":
            return _by_chunks(_text_of_python_can(can.CSVReader, source))
        case "blf":
            return _by_chunks(_blf(source))
        case "mf4":
            return _by_chunks(_mf4(source))
    raise RecordingError(f"{source.path}: no reader for {format}")


# ---- what others use ------------------------------------------------------------------------------------------------


class Recording(_Tally):
    """One recording. Each iteration reads the file from its beginning, and the counters tell of the newest one.

    format: "candump" (-l), "printed" (-ta), "delta" (-td), "savvycan", "asc", "blf", "trc", "csv", "mf4", "rtu".
    ids: frames of other ids are counted but not handed out; None hands out all. frames: readable data frames, of any
    id. rejected: what cannot be read; first_rejection: (line, reason) of the first, line 0 in a binary file. skipped:
    remote, error and CAN FD frames. stepped_back: stamps earlier than the one before; such a frame gets the stamp of
    the one before, and after a step of more than 1 s (a clock was set) time goes on from there. stepped_forward: stamps
    more than an hour after the one before; time goes on from there as well. ids_seen: frames of
    each id, in order of first sight. duration_us: stamp of the last frame. size: of the file, in bytes.
    """

    def __init__(self, path: Path, format: str, told_by: str = "", ids: Collection[int] | None = None) -> None:
        super().__init__()
        self.path, self.format, self.size = path, format, path.stat().st_size
        self.ids = None if ids is None else frozenset(ids)
        self._told_by = told_by
        self._source: _Source | None = None
        self._shift_us: int | None = None

    def position(self) -> int:
        """Bytes of the file read so far (compressed ones, for gzip)."""
        return 0 if self._source is None else self.size if self._source.raw.closed else self._source.raw.tell()

    def __iter__(self) -> Iterator[tuple[int, CanFrame]]:
        """(stamp in µs since the first frame, frame). Raises RecordingError, on the whole only at the end."""
        for stamps, frames in self._frames():
            yield from zip(stamps, frames, strict=True)

    def batches(self, tick_us: int = 10_000) -> Iterator[tuple[int, list[CanFrame]]]:
        """(k, frames) for each tick that has frames: those with (k - 1) * tick_us < stamp <= k * tick_us."""
        tick, end_us = 0, 0
        batch: list[CanFrame] = []
        for stamps, frames in self._frames():
            for stamp, frame in zip(stamps, frames, strict=True):
                if stamp > end_us:
                    if batch:
                        yield tick, batch
                    tick = -(-stamp // tick_us)
                    end_us = tick * tick_us
                    batch = []
                batch.append(frame)
        if batch:
            yield tick, batch

    def first_ids(self, until_us: int, most: int) -> dict[int, int]:
        """Frames of each id seen up to about `until_us` or `most` frames, in order of first sight."""
        for stamps, _, _ in self._placed():
            if stamps[-1] > until_us or self.frames > most:
                break
        return dict(self.ids_seen)

    def chunks(self) -> Iterator[tuple[int, bytes]]:
        """(stamp in µs since the first chunk, bytes) of a recording of a serial line, format "rtu"."""
        if self.format != "rtu":
            raise RecordingError(f"{self.path}: a recording of a CAN bus, not of a serial line")
        for stamps, _, payloads in self._placed():
            yield from zip(stamps, payloads, strict=True)

    def modbus(self) -> Iterator[tuple[int, rtu.Frame | bytes]]:
        """(stamp of the chunk it ends in, frame of either side, or bytes that are none), format "rtu"."""
        heard, heard_us = b"", 0
        for stamp, chunk in self.chunks():
            if heard and stamp - heard_us >= 1000 * rtu.QUIET_MS:
                yield from ((heard_us, piece) for piece in rtu.split(heard, quiet=True)[0])
                heard = b""
            pieces, heard = rtu.split(heard + chunk, quiet=False)
            heard_us = stamp
            yield from ((stamp, piece) for piece in pieces)
        yield from ((heard_us, piece) for piece in rtu.split(heard, quiet=True)[0])

    def _frames(self) -> Iterator[tuple[list[int], list[CanFrame]]]:
        if self.format == "rtu":
            raise RecordingError(f"{self.path}: a recording of a serial line (Modbus RTU), it has no CAN frames")
        known, new = self.ids, tuple.__new__
        for columns in self._placed():
            stamps, lines = columns[0], cast(Iterable[Line], zip(*columns, strict=True))
            if known is not None:
                lines = [(us, ident, data) for us, ident, data in lines if ident in known]
                stamps = [line[0] for line in lines]
            yield stamps, [new(CanFrame, (i & 0x1FFF_FFFF, data, us // 1000, i >= EXTENDED)) for us, i, data in lines]

    def _placed(self) -> Iterator[Columns]:
        """All that the file holds, counted, with stamps from the first frame on."""
        super().__init__()
        self._shift_us = None
        self._source = source = _Source(self.path, self)
        try:
            for stamps, idents, payloads in _read(self.format, self._told_by, source):
                self.frames += len(stamps)
                self.ids_seen.update(idents)
                if stamps:
                    yield self._place(stamps), idents, payloads
        except OSError as error:
            raise RecordingError(f"{self.path}: {error.strerror or error}") from None
        finally:
            source.raw.close()
        self._judge()

    def _place(self, stamps: list[int]) -> list[int]:
        if self._shift_us is None:
            self._shift_us = -stamps[0]
        shift, newest = self._shift_us, self.duration_us
        smooth = stamps[0] + shift >= newest and stamps[-1] + shift - newest <= _GAP_US
        if smooth and stamps == sorted(stamps):
            placed = [stamp + shift for stamp in stamps]
        else:
            placed = []
            for stamp in stamps:
                if stamp + shift < newest:
                    self.stepped_back += 1
                    if newest - (stamp + shift) > _CLOCK_SET_US:
                        shift = newest - stamp
                elif stamp + shift - newest > _GAP_US:
                    self.stepped_forward += 1
                    shift = newest - stamp
                newest = max(newest, stamp + shift)
                placed.append(newest)
        self._shift_us, self.duration_us = shift, placed[-1]
        return placed

    def reject(self, line: int, reason: str) -> None:
        super().reject(line, reason)
        if self.rejected == 501 and 0 < line <= 1000:
            raise RecordingError(f"{self.path}: {self.rejected} of {line} lines cannot be read{self._first()}")

    def _first(self) -> str:
        line, reason = self.first_rejection or (0, "")
        return f"; line {line}: {reason}" if line else f"; {reason}" if reason else ""

    def _judge(self) -> None:
        if not self.frames:
            others = f" ({self.skipped} remote, error or CAN FD frames)" if self.skipped else ""
            raise RecordingError(f"{self.path}: no readable frame{others}{self._first()}")
        total = self.frames + self.skipped + self.rejected
        if self.rejected * 10 > total:
            raise RecordingError(f"{self.path}: {self.rejected} of {total} lines cannot be read{self._first()}")


def open_recording(path: str | Path, ids: Collection[int] | None = None) -> Recording:
    """Look at the beginning of a file and tell its format. Nothing is read until the recording is iterated.

    ids: hand out only frames of these ids (add EXTENDED to 29-bit ones). Raises RecordingError when there is no such
    file, or when it is empty or no recording.
    """
    path = Path(path)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise RecordingError(f"{path}: not a file" + (", a folder" if path.is_dir() else ""))
        source = _Source(path, _Tally())
        with source.raw:
            head = source.head()
    except OSError as error:
        raise RecordingError(f"{path}: {error.strerror or error}") from None
    if not head.strip():
        raise RecordingError(f"{path}: the file is empty")
    kind, told_by = _sniff(head)
    if not kind:
        raise RecordingError(f"{path}: {told_by or f'not a recording of a kind known here ({READABLE})'}")
    return Recording(path, kind, told_by, ids)


def shipped(name: str | Path) -> Path | None:
    """The recording of this plain file name in `sim/logs/`; None when there is none."""
    path = LOGS / name
    return path if path.parent == LOGS and path.is_file() else None


def locate(name: str | Path) -> Path:
    """The file of this name, else the shipped recording, else the name as it is (opening it says what is wrong)."""
    return Path(name) if Path(name).exists() else shipped(name) or Path(name)


def write_candump(
    path: str | Path,
    frames: Iterable[tuple[int, CanFrame]],
    start_us: int = 1_700_000_000_000_000,
    channel: str = "can0",
) -> int:
    """Write (stamp in µs, frame) as `candump -l` does, `start_us` added to each stamp; how many. Raises OSError."""
    count = 0
    with Path(path).open("w", encoding="ascii", newline="\n") as file:
        for stamp_us, frame in frames:
            line = candump.line(start_us + stamp_us, frame.id, frame.extended, frame.data, channel)
            file.write(line + "\n")
            count += 1
    return count
