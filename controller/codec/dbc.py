"""A protocol's .dbc files as tables: the newest frame of each page becomes values, None where nothing is known.

A page is a message without multiplexer, or one multiplexer value of a message. A raw value that a `VAL_` row names
"SNA" is None. Attributes we add to the format: `RoundMs`, the time in which every page comes once (default:
GenMsgCycleTime); `UnlistedPages`, whether multiplexer values without a row are known to exist ("ignored") or cannot
("refused"); `ExactLength`, the frame's length tells the layout. One id may have several layouts, a file each: a frame
is kept for every layout it fits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, Self

import cantools
from cantools.database.can import Database, Message, Signal

Value = float | None
Values = Mapping[str, Value]
Frame = tuple[int, bytes, int, bool]
"""Id, data, receive stamp in ms, whether the id has 29 bits: what a CanFrame is made of."""
Check = Callable[[bytes, bytes | None], bool]
"""Is this frame to be believed? Gets its bytes, and those of the last accepted frame of the same page.

None for those where nothing of this page came for more than 1.5 cycles: a counter says nothing over a gap.
"""


NOISE = 1e-6
"""A value this part of a count below the next count is that count, as in `registers`."""


class TableError(Exception):
    """A .dbc file cannot be believed. Everything that is wrong with it, one line each."""


class Row(NamedTuple):
    """How one signal is cut out of the frame's integer.

    sign: its top bit, 0 for unsigned. factor: None for a plain integer. needs: the bytes it reaches to.
    sna: raw values that mean "not available".
    """

    name: str
    shift: int
    mask: int
    sign: int
    factor: float | None
    offset: float
    needs: int
    sna: tuple[int, ...]

    def count(self, value: float) -> int:
        """The raw bits for `value`, cut towards zero as one cuts decimals; clamped, never wrapped. NaN: ValueError."""
        low, high = (-self.sign, self.sign - 1) if self.sign else (0, self.mask)
        exact = min(max(value if self.factor is None else (value - self.offset) / self.factor, low), high)
        nearest = round(exact)
        return (nearest if abs(exact - nearest) <= NOISE else int(exact)) & self.mask


class Rows(NamedTuple):
    """The rows of one byte order, sorted by how much work they are.

    plain: integers (name, shift, mask). scaled: unsigned, never SNA. other: the rest. needs: bytes for all of them.
    """

    all: tuple[Row, ...]
    plain: tuple[tuple[str, int, int], ...]
    scaled: tuple[tuple[str, int, int, float, float], ...]
    other: tuple[Row, ...]
    needs: int

    @classmethod
    def of(cls, rows: Iterable[Row]) -> Rows:
        rows = tuple(rows)
        easy = [row for row in rows if not row.sign and not row.sna]
        return cls(
            all=rows,
            plain=tuple((row.name, row.shift, row.mask) for row in easy if row.factor is None),
            scaled=tuple((r.name, r.shift, r.mask, r.factor, r.offset) for r in easy if r.factor is not None),
            other=tuple(row for row in rows if row not in easy),
            needs=max((row.needs for row in rows), default=0),
        )

    def cut(self, bits: int, length: int) -> dict[str, Value]:
        """Every signal of a frame of `length` bytes."""
        rows = self.other
        values: dict[str, Value] = {}
        if length < self.needs:
            rows = self.all
        else:
            values = {name: bits >> shift & mask for name, shift, mask in self.plain}
            for name, shift, mask, factor, offset in self.scaled:
                values[name] = (bits >> shift & mask) * factor + offset
        for name, shift, mask, sign, scale, offset, needs, sna in rows:
            raw = bits >> shift & mask
            if needs > length or raw in sna:
                values[name] = None
                continue
            if raw & sign:
                raw -= mask + 1
            values[name] = raw if scale is None else raw * scale + offset
        return values


@dataclass(frozen=True, slots=True, eq=False)
class Page:
    """One layout of a frame. index: its multiplexer value, None without one. least: bytes its shortest signal needs.

    max_age_ms: five rounds, never less than 100 ms, as `Freshness.fresh`. nothing: every signal unknown.
    """

    message: str
    can_id: int
    index: int | None
    round_ms: int
    max_age_ms: int
    little: Rows
    big: Rows
    least: int
    nothing: Values

    def decode(self, data: bytes) -> Values:
        """Every signal of the page. None: its bytes are missing, or it says "not available"."""
        values = self.little.cut(int.from_bytes(data, "little"), len(data))
        if self.big.all:
            values |= self.big.cut(int.from_bytes(data.ljust(8, b"\0")[:8], "big"), len(data))
        return values


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """One message of one file: its pages, and how to tell which of them a frame is.

    unlisted: stands for multiplexer values without a row; None when there can be none. selector: the row of the
    multiplexer, and whether it is big-endian. exact: the only length, None when any will do.
    """

    name: str
    can_id: int
    cycle_ms: int
    pages: Mapping[int | None, Page]
    unlisted: Page | None
    selector: tuple[Row, bool] | None
    exact: int | None
    check: Check | None

    def just_before(self, before: Latest | None, at_ms: int) -> bytes | None:
        """The frame before, unless there is a gap between."""
        return None if before is None or at_ms - before.heard_ms > 1.5 * self.cycle_ms else before.data

    def page_of(self, data: bytes) -> Page | None:
        """None: this frame cannot be of this layout (multiplexer value, length)."""
        if self.exact is not None and len(data) != self.exact:
            return None
        page: Page | None
        if self.selector is None:
            page = self.pages[None]
        else:
            row, big = self.selector
            if len(data) < row.needs:
                return None
            bits = int.from_bytes(data.ljust(8, b"\0")[:8], "big") if big else int.from_bytes(data, "little")
            page = self.pages.get(bits >> row.shift & row.mask, self.unlisted)
        return None if page is None or len(data) < page.least else page


@dataclass(frozen=True, slots=True, eq=False)
class Tables:
    """All layouts of one protocol."""

    layouts: Mapping[str, Layout]
    by_id: Mapping[int, tuple[Layout, ...]]

    def page(self, message: str, index: int | None = None) -> Page:
        """The page by name. Raises KeyError: a name that is not in the files is a mistake in the program."""
        return self.layouts[message].pages[index]

    def encode(self, message: str, values: Mapping[str, float], index: int | None = None) -> bytes:
        """The frame that says these values; bits no signal claims are 0. KeyError: one is missing, or not there."""
        layout = self.layouts[message]
        page, wanted = layout.pages[index], dict(values)
        if layout.selector is not None and index is not None:
            wanted[layout.selector[0].name] = index
        little = sum(row.count(wanted.pop(row.name)) << row.shift for row in page.little.all)
        big = sum(row.count(wanted.pop(row.name)) << row.shift for row in page.big.all)
        if wanted:
            raise KeyError(f"{message} has no {', '.join(sorted(wanted))}")
        whole = little | int.from_bytes(big.to_bytes(8, "big"), "little")
        return whole.to_bytes(8, "little")[: layout.exact or 8]

    def cycles(self) -> dict[int, int]:
        """Id → cycle in ms, of every id."""
        return {can_id: min(layout.cycle_ms for layout in layouts) for can_id, layouts in self.by_id.items()}

    def explain(self, can_id: int, data: bytes) -> tuple[tuple[str, Values], ...]:
        """Every layout the frame fits: message name and values. Empty: a foreign id, or a frame to be refused."""
        fits = []
        for layout in self.by_id.get(can_id, ()):
            page = layout.page_of(data)
            if page is not None and (layout.check is None or layout.check(data, None)):
                values = page.decode(data)
                fits.append((layout.name, {name: values[name] for name in page.nothing}))
        return tuple(fits)


EMPTY: Mapping[Page, Latest] = MappingProxyType({})


class Latest:
    """The newest frame of a page. Decoded once, when somebody asks; an unchanged frame keeps what was decoded.

    heard_ms: when a frame of this page came last, refused ones too.
    """

    __slots__ = ("_values", "at_ms", "data", "heard_ms", "page")

    def __init__(self, page: Page, data: bytes, at_ms: int, before: Latest | None, heard_ms: int | None = None) -> None:
        self.page = page
        self.data = data
        self.at_ms = at_ms
        self.heard_ms = at_ms if heard_ms is None else heard_ms
        self._values: Values | None = before._values if before is not None and before.data == data else None

    @property
    def values(self) -> Values:
        if self._values is None:
            self._values = self.page.decode(self.data)
        return self._values


class Mailbox(NamedTuple):
    """The newest frame of every page, as a value. accepted, rejected: frames of known ids since the start.

    news: the pages that arrived with the last `receive`.
    """

    tables: Tables
    latest: Mapping[Page, Latest] = EMPTY
    accepted: int = 0
    rejected: int = 0
    news: tuple[Page, ...] = ()

    def receive(self, frames: Iterable[Frame], now_ms: int) -> Self:
        """Take in frames, oldest first. Foreign and 29-bit ids change nothing: then this same value comes back."""
        by_id = self.tables.by_id
        latest: dict[Page, Latest] | None = None
        accepted = rejected = 0
        news: list[Page] = []
        for can_id, data, at_ms, extended in frames:
            layouts = by_id.get(can_id)
            if layouts is None or extended:
                continue
            fits = False
            for layout in layouts:
                page = layout.page_of(data)
                if page is None:
                    continue
                if latest is None:
                    latest = dict(self.latest)
                before = latest.get(page)
                if layout.check is not None and not layout.check(data, layout.just_before(before, at_ms)):
                    if before is not None:
                        latest[page] = Latest(page, before.data, before.at_ms, before, at_ms)
                    continue
                latest[page] = Latest(page, data, min(at_ms, now_ms), before)
                news.append(page)
                fits = True
            accepted += fits
            rejected += not fits
        if not accepted and not rejected:
            return self if not self.news else type(self)(self.tables, self.latest, self.accepted, self.rejected)
        return type(self)(
            self.tables, self.latest if latest is None else latest, self.accepted + accepted,
            self.rejected + rejected, tuple(news),
        )  # fmt: skip

    def read(self, page: Page, now_ms: int) -> Values:
        """The page's values, every one None when it never came or is too old."""
        latest = self.latest.get(page)
        if latest is None or now_ms - latest.at_ms > page.max_age_ms:
            return page.nothing
        return latest.values


def load(*paths: Path, checks: Mapping[int, Check] | None = None) -> Tables:
    """The files as one set of tables. Raises TableError with everything that is wrong in them."""
    layouts: dict[str, Layout] = {}
    by_id: dict[int, tuple[Layout, ...]] = {}
    wrong: list[str] = []
    checks = checks or {}
    for path in paths:
        database = _open(path)
        ids: dict[int, str] = {}
        for message in database.messages:
            where = f"{path.name}: {message.name}"
            faults = _faults(message)
            if message.frame_id in ids:
                faults.append(f"has the id 0x{message.frame_id:X} of {ids[message.frame_id]}")
            if message.name in layouts:
                faults.append("has the name of another message")
            ids[message.frame_id] = message.name
            wrong += [f"{where} {fault}" for fault in faults]
            if not faults:
                layout = _layout(message, checks.get(message.frame_id))
                layouts[message.name] = layout
                by_id[message.frame_id] = (*by_id.get(message.frame_id, ()), layout)
    wrong += [f"a check is given for 0x{can_id:X}, which no file has" for can_id in sorted(set(checks) - set(by_id))]
    if wrong:
        raise TableError("\n".join(wrong))
    return Tables(MappingProxyType(layouts), MappingProxyType(by_id))


def _open(path: Path) -> Database:
    try:
        database = cantools.database.load_file(str(path), database_format="dbc", strict=True)
    except (cantools.Error, OSError) as error:
        raise TableError(f"{path.name}: {error}") from error
    if not isinstance(database, Database):
        raise TableError(f"{path.name}: holds no CAN messages")
    return database


def _faults(message: Message) -> list[str]:
    """What cantools lets pass, and what these tables cannot hold."""
    faults = []
    if message.is_extended_frame:
        faults.append("has a 29-bit id")
    if not message.comment:
        faults.append("has no comment that names its source")
    if message.length > 8:
        faults.append("is longer than 8 bytes")
    if len([s for s in message.signals if s.is_multiplexer]) > 1:
        faults.append("has more than one multiplexer")
    for signal in message.signals:
        if signal.is_float:
            faults.append(f"{signal.name}: is a float")
            continue
        low, high = _expressible(signal)
        slack = abs(signal.scale) * 1e-6
        if (signal.minimum is not None and not low - slack <= signal.minimum <= high + slack) or (
            signal.maximum is not None and not low - slack <= signal.maximum <= high + slack
        ):
            faults.append(
                f"{signal.name}: the declared range {signal.minimum}..{signal.maximum} cannot be expressed, "
                f"its bits reach {low:.12g}..{high:.12g}"
            )
    return faults


def _expressible(signal: Signal) -> tuple[float, float]:
    low, high = 0, (1 << signal.length) - 1
    if signal.is_signed:
        low, high = -(1 << signal.length - 1), (1 << signal.length - 1) - 1
    ends = low * signal.scale + signal.offset, high * signal.scale + signal.offset
    return min(ends), max(ends)


def _row(signal: Signal) -> tuple[Row, bool]:
    """The signal's row, and whether it is big-endian. DBC start bits: little-endian the lowest, big-endian the top."""
    mask = (1 << signal.length) - 1
    big = signal.byte_order == "big_endian"
    if big:
        top = 8 * (signal.start // 8) + 7 - signal.start % 8
        shift, needs = 64 - top - signal.length, (top + signal.length - 1) // 8 + 1
    else:
        shift, needs = signal.start, (signal.start + signal.length - 1) // 8 + 1
    plain = signal.scale == 1 and signal.offset == 0
    row = Row(
        name=signal.name,
        shift=shift,
        mask=mask,
        sign=1 << signal.length - 1 if signal.is_signed else 0,
        factor=None if plain else float(signal.scale),
        offset=float(signal.offset),
        needs=needs,
        sna=tuple(raw & mask for raw, name in (signal.choices or {}).items() if str(name) == "SNA"),
    )
    return row, big


def _layout(message: Message, check: Check | None) -> Layout:
    attributes = message.dbc.attributes if message.dbc is not None else {}

    def attribute(name: str) -> int:
        return int(attributes[name].value) if name in attributes else 0

    cycle_ms = message.cycle_time or 0
    round_ms = attribute("RoundMs") or cycle_ms
    selectors = [signal for signal in message.signals if signal.is_multiplexer]

    def page(index: int | None, signals: list[Signal]) -> Page:
        rows = [_row(signal) for signal in signals]
        own = [row.needs for (row, _), signal in zip(rows, signals, strict=True) if not signal.is_multiplexer]
        return Page(
            message=message.name,
            can_id=message.frame_id,
            index=index,
            round_ms=round_ms,
            max_age_ms=max(5 * round_ms, 100),
            little=Rows.of(row for row, big in rows if not big),
            big=Rows.of(row for row, big in rows if big),
            least=min(own, default=0),
            nothing=MappingProxyType({row.name: None for row, _ in rows}),
        )

    common = [signal for signal in message.signals if not signal.multiplexer_ids]
    indices = sorted({index for signal in message.signals for index in signal.multiplexer_ids or ()})
    pages: dict[int | None, Page] = {} if selectors else {None: page(None, common)}
    for index in indices:
        pages[index] = page(index, [s for s in message.signals if not s.multiplexer_ids or index in s.multiplexer_ids])
    return Layout(
        name=message.name,
        can_id=message.frame_id,
        cycle_ms=cycle_ms,
        pages=MappingProxyType(pages),
        unlisted=page(-1, common) if selectors and attribute("UnlistedPages") else None,
        selector=_row(selectors[0]) if selectors else None,
        exact=message.length if attribute("ExactLength") else None,
        check=check,
    )
