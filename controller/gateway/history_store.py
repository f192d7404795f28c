"""The history on disk: one SQLite file of seconds, minutes, hours and events, kind to SD cards.

A row's time is the boot and the second of that boot, id = boot << 32 | second. What a second of a boot is in UTC stands
once, in `boots`: when a clock that started wrong is set, that one row is mended and every time of the boot with it.
Retention goes by the time that was recorded, not by the clock, so that no wrong clock can delete anything.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final, NamedTuple

SCHEMA: Final = 1
FILE: Final = "history.db"
SERIES: Final[Mapping[str, str]] = {
    "soc_pct": "%", "power_w": "W", "pack_voltage_v": "V", "current_a": "A", "cell_min_v": "V", "cell_max_v": "V",
    "temp_min_c": "°C", "temp_max_c": "°C", "limit_charge_w": "W", "limit_discharge_w": "W", "link_voltage_v": "V",
    "lv_supply_v": "V", "isolation_kohm": "kΩ", "energy_remaining_wh": "Wh", "charged_wh": "Wh", "discharged_wh": "Wh",
}  # fmt: skip
"""What is recorded, and its unit."""
BITS: Final = 32
SECOND: Final = (1 << BITS) - 1
DAY_S: Final = 86_400
EVENTS_KEPT: Final = 100_000
LEAST_S: Final = 3600
"""No cap takes the last hour of any level."""
BUSY_S: Final = 10.0
WAL_MAX: Final = 4_000_000
CHUNK: Final = 1000
SPARE_PAGES: Final = 5000


class HistoryError(Exception):
    """Why the history cannot be used, in one sentence."""


class Level(NamedTuple):
    """One resolution. finer: the table it is made from, empty for what is recorded itself."""

    table: str
    step_s: int
    finer: str

    @property
    def columns(self) -> tuple[str, ...]:
        if not self.finer:
            return tuple(SERIES)
        return ("n", *(f"{name}_{kind}" for name in SERIES for kind in ("min", "mean", "max")))


LEVELS: Final = (Level("seconds", 1, ""), Level("minutes", 60, "seconds"), Level("hours", 3600, "minutes"))
LEVEL_OF: Final = {level.table: level for level in LEVELS}


class Keep(NamedTuple):
    """How much is kept: days of recorded time of each level, and bytes of all of it."""

    seconds_days: float = 2
    minutes_days: float = 400
    hours_days: float = 7300
    bytes_max: int = 500_000_000


KEEP: Final = Keep()


class Past(NamedTuple):
    """One event. at_s: seconds of that boot."""

    at_s: float
    id: str
    severity: str
    detail: str


class Batch(NamedTuple):
    """What one transaction adds. offset_s: UTC minus seconds of the boot, as the clock has it now.

    synchronised: whether that clock was right; None when the kernel does not say. seconds: second → a value for each
    of SERIES, None where unknown.
    """

    boot: str
    offset_s: float
    synchronised: bool | None
    seconds: Mapping[int, Sequence[float | None]]
    events: Sequence[Past] = ()


class Point(NamedTuple):
    """One row of the file. at_s: UTC."""

    at_s: float
    boot: str
    synchronised: bool | None
    values: tuple[float | None, ...]


class Told(NamedTuple):
    """One event of the file. number: counts up. at_s: UTC. t_s: seconds of its boot."""

    number: int
    at_s: float
    t_s: float
    synchronised: bool | None
    id: str
    severity: str
    detail: str


Band = tuple[list[float | None], list[float | None], list[float | None]]
"""min, mean and max."""


class Chart(NamedTuple):
    """Series for a drawing. at_s: UTC of each point. A point without any value is a gap.

    sure: the clock was right, as far as the kernel said, while all of it was recorded.
    """

    level: Level
    step_s: float
    at_s: list[float]
    series: Mapping[str, Band]
    sure: bool


class _Boot(NamedTuple):
    number: int
    id: str
    offset_s: float
    synchronised: bool | None


class Store:
    """Written by one thread at a time; read by any, each with a connection of its own. Raises HistoryError."""

    def __init__(self, folder: Path, keep: Keep = KEEP) -> None:
        self.path, self._keep = folder / FILE, keep
        self._writing = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    # --- writing ---

    def write(self, batch: Batch) -> None:
        """On the disk when this returns, or nothing of it is."""
        self._done(lambda connection: _add(connection, batch))

    def prune(self) -> None:
        """Let go of what is older or more than is kept."""
        self._done(lambda connection: _prune(connection, self._keep))
        self._done(_shrink)

    def close(self) -> None:
        with self._writing:
            self._shut()

    def _done(self, work: Callable[[sqlite3.Connection], None]) -> None:
        """In one transaction."""
        with self._writing:
            try:
                connection = self._open()
                connection.execute("BEGIN IMMEDIATE")
                with connection:
                    work(connection)
            except sqlite3.Error as error:
                self._shut()
                raise HistoryError(self._lost(error)) from None

    def _shut(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self) -> sqlite3.Connection:
        """Raises HistoryError, sqlite3.Error."""
        if self._connection is None:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise HistoryError(f"{self.path.parent} cannot be made ({error.strerror})") from None
            connection = sqlite3.connect(self.path, BUSY_S, isolation_level=None, check_same_thread=False)
            try:
                _prepare(connection, self.path)
            except (HistoryError, sqlite3.Error):
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _lost(self, error: sqlite3.Error) -> str:
        """What is wrong, in words. A file that is no database any more is moved aside."""
        if getattr(error, "sqlite_errorname", "") not in ("SQLITE_CORRUPT", "SQLITE_NOTADB"):
            return f"{self.path} cannot be written ({error})"
        aside = self.path.with_suffix(".broken")
        self.path.replace(aside)
        for tail in ("-wal", "-shm"):
            self.path.with_name(self.path.name + tail).unlink(missing_ok=True)
        return f"{self.path} was damaged ({error}); it lies beside as {aside.name}, a new one is begun"

    # --- reading ---

    def chart(self, names: Sequence[str], begin_s: float, end_s: float, points: int = 600) -> Chart:
        """These series between two times in UTC, as finely as so many points allow."""
        if unknown := [name for name in names if name not in SERIES]:
            raise HistoryError(f"there is no series {', '.join(unknown)}")
        with closing(self._reader()) as connection:
            boots = _boots(connection)
            wide_s = max(1.0, (end_s - begin_s) / points)
            level = _level(connection, boots, begin_s, wide_s)
            step_s = max(wide_s, float(level.step_s))
            rows = [row for boot in boots for row in _bucketed(connection, level, boot, names, begin_s, end_s, step_s)]
        rows.sort(key=lambda row: row[0])
        at_s, columns = _with_gaps(rows, 3 * len(names), step_s)
        bands = {name: (columns[3 * i], columns[3 * i + 1], columns[3 * i + 2]) for i, name in enumerate(names)}
        shown = {row[-1] for row in rows}
        sure = all(boot.synchronised is not False for boot in boots if boot.number in shown)
        return Chart(level, step_s, at_s, bands, sure)

    def points(self, level: Level, begin_s: float, end_s: float) -> Iterator[Point]:
        """Every row of a level between two times in UTC, in the order of recording; no lock is held in between."""
        with closing(self._reader()) as connection:
            boots = _boots(connection)
        columns = ", ".join(level.columns)
        for boot in boots:
            after, last = _span(boot, begin_s, end_s)
            while True:
                with closing(self._reader()) as connection:
                    rows = connection.execute(
                        f"SELECT id, {columns} FROM {level.table} WHERE id BETWEEN ? AND ? ORDER BY id LIMIT {CHUNK}",
                        (after, last),
                    ).fetchall()
                for number, *values in rows:
                    yield Point((number & SECOND) + boot.offset_s, boot.id, boot.synchronised, tuple(values))
                if len(rows) < CHUNK:
                    break
                after = rows[-1][0] + 1

    def events(self, limit: int = 200, before: int | None = None, mild: bool = True) -> list[Told]:
        """The newest events, newest first; those before a number, to turn pages. mild: those that only inform too."""
        where = "" if mild else "AND severity != 'info'"
        with closing(self._reader()) as connection:
            rows = connection.execute(
                "SELECT e.rowid, e.at_s + b.offset_s, e.at_s, b.synchronised, e.id, e.severity, e.detail FROM events e "
                f"JOIN boots b ON b.number = e.boot WHERE e.rowid < ? {where} ORDER BY e.rowid DESC LIMIT ?",
                (before if before is not None else 1 << 62, limit),
            ).fetchall()
        return [Told(number, at_s, t_s, _flag(sure), *rest) for number, at_s, t_s, sure, *rest in rows]

    def span(self) -> tuple[float, float] | None:
        """UTC of the first and the last minute there is; None when there is none."""
        with closing(self._reader()) as connection:
            found = [(low + boot.offset_s, high + boot.offset_s) for boot, low, high in _extents(connection, "minutes")]
        return (min(low for low, _ in found), max(high for _, high in found)) if found else None

    def _reader(self) -> sqlite3.Connection:
        if not self.path.exists():
            raise HistoryError("there is no history yet: the first minute has not been written")
        try:
            connection = sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro", BUSY_S, uri=True)
            connection.execute("SELECT 1 FROM boots")
        except sqlite3.Error as error:
            raise HistoryError(f"{self.path} cannot be read ({error})") from None
        return connection


# --- the file ---


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA:
        raise HistoryError(f"{path} has version {version}, this program reads {SCHEMA}: update the program")
    if version == 0:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA journal_size_limit = {WAL_MAX}")
    connection.execute("PRAGMA temp_store = MEMORY")
    if version == 0:
        connection.execute("BEGIN IMMEDIATE")
        with connection:
            connection.execute(
                "CREATE TABLE boots (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, offset_s REAL NOT NULL, "
                "synchronised INTEGER)"
            )
            for level in LEVELS:
                columns = ", ".join(f"{name} REAL" for name in level.columns)
                connection.execute(f"CREATE TABLE {level.table} (id INTEGER PRIMARY KEY, {columns})")
            connection.execute(
                "CREATE TABLE events (boot INTEGER NOT NULL, at_s REAL NOT NULL, id TEXT NOT NULL, "
                "severity TEXT NOT NULL, detail TEXT NOT NULL, UNIQUE (boot, at_s, id, detail))"
            )
            connection.execute(f"PRAGMA user_version = {SCHEMA}")


def _add(connection: sqlite3.Connection, batch: Batch) -> None:
    """Inside a transaction."""
    boot = _boot(connection, batch)
    marks = ", ".join("?" * (1 + len(SERIES)))
    connection.executemany(
        f"INSERT OR REPLACE INTO seconds VALUES ({marks})",
        [(boot << BITS | second, *values) for second, values in batch.seconds.items()],
    )
    if batch.seconds:
        for level in LEVELS[1:]:
            _fold(connection, level, boot, min(batch.seconds), max(batch.seconds))
    connection.executemany(
        "INSERT OR IGNORE INTO events VALUES (?, ?, ?, ?, ?)", [(boot, *event) for event in batch.events]
    )


def _boot(connection: sqlite3.Connection, batch: Batch) -> int:
    """Its number. What it says of the clock replaces what is known, unless that was surer."""
    connection.execute(
        "INSERT INTO boots (id, offset_s, synchronised) VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE SET "
        "offset_s = excluded.offset_s, synchronised = excluded.synchronised "
        "WHERE ifnull(excluded.synchronised, 0.5) >= ifnull(synchronised, 0.5)",
        (batch.boot, batch.offset_s, None if batch.synchronised is None else int(batch.synchronised)),
    )
    (number,) = connection.execute("SELECT number FROM boots WHERE id = ?", (batch.boot,)).fetchone()
    return int(number)


def _fold(connection: sqlite3.Connection, level: Level, boot: int, first: int, last: int) -> None:
    """Make the rows of a level that hold these seconds anew from the finer one."""
    raw = LEVEL_OF[level.finer].finer == ""
    count = "count(*)" if raw else "sum(n)"
    parts = [count]
    for name in SERIES:
        if raw:
            parts += [f"min({name})", f"avg({name})", f"max({name})"]
        else:
            mean = f"sum({name}_mean * n) / sum(CASE WHEN {name}_mean IS NULL THEN NULL ELSE n END)"
            parts += [f"min({name}_min)", mean, f"max({name}_max)"]
    step_s = level.step_s
    low, high = first // step_s * step_s, last // step_s * step_s + step_s - 1
    row = f"(id >> {BITS} << {BITS}) | ((id & {SECOND}) / {step_s} * {step_s})"
    connection.execute(
        f"INSERT OR REPLACE INTO {level.table} SELECT {row}, {', '.join(parts)} FROM {level.finer} "
        "WHERE id BETWEEN ? AND ? GROUP BY 1",
        (boot << BITS | low, boot << BITS | high),
    )


# --- what is let go ---


def _prune(connection: sqlite3.Connection, keep: Keep) -> None:
    for level, days in zip(LEVELS, (keep.seconds_days, keep.minutes_days, keep.hours_days), strict=True):
        _cut(connection, level.table, days * DAY_S)
    connection.execute("DELETE FROM events WHERE rowid <= (SELECT max(rowid) FROM events) - ?", (EVENTS_KEPT,))
    for level in LEVELS:
        while _bytes(connection) > keep.bytes_max and (kept_s := _recorded_s(connection, level.table)) > LEAST_S:
            _cut(connection, level.table, max(LEAST_S, kept_s * 0.8))
    used = " UNION ".join(f"SELECT id >> {BITS} FROM {level.table}" for level in LEVELS)
    connection.execute(f"DELETE FROM boots WHERE number NOT IN (SELECT boot FROM events UNION {used})")


def _shrink(connection: sqlite3.Connection) -> None:
    """Give pages back that were freed, all but a few that will be used again."""
    (spare,) = connection.execute("PRAGMA freelist_count").fetchone()
    if spare > SPARE_PAGES:
        connection.executescript(f"PRAGMA incremental_vacuum({spare - SPARE_PAGES})")  # execute stops after one page


def _cut(connection: sqlite3.Connection, table: str, kept_s: float) -> None:
    """Delete what lies before the newest `kept_s` of recorded time."""
    for boot, low, high in reversed(_extents(connection, table)):
        if kept_s >= high - low:
            kept_s -= high - low
            continue
        first = boot.number << BITS | int(high - kept_s)
        connection.execute(f"DELETE FROM {table} WHERE id < ?", (first,))
        return


def _recorded_s(connection: sqlite3.Connection, table: str) -> int:
    return sum(high - low for _, low, high in _extents(connection, table))


def _extents(connection: sqlite3.Connection, table: str) -> list[tuple[_Boot, int, int]]:
    """Each boot that has rows, with its first and last second, in order."""
    found = []
    for boot in _boots(connection):
        low, high = connection.execute(
            f"SELECT (SELECT min(id) FROM {table} WHERE id BETWEEN ?1 AND ?2), "
            f"(SELECT max(id) FROM {table} WHERE id BETWEEN ?1 AND ?2)",
            (boot.number << BITS, boot.number << BITS | SECOND),
        ).fetchone()
        if low is not None:
            found.append((boot, low & SECOND, high & SECOND))
    return found


def _bytes(connection: sqlite3.Connection) -> int:
    pages, spare, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - spare) * size)


# --- what is read ---


def _boots(connection: sqlite3.Connection) -> list[_Boot]:
    rows = connection.execute("SELECT number, id, offset_s, synchronised FROM boots ORDER BY number").fetchall()
    return [_Boot(number, name, offset_s, _flag(sure)) for number, name, offset_s, sure in rows]


def _flag(stored: int | None) -> bool | None:
    return None if stored is None else bool(stored)


def _span(boot: _Boot, begin_s: float, end_s: float) -> tuple[int, int]:
    """The ids of a boot between two times in UTC."""
    low, high = (min(max(int(at_s - boot.offset_s), 0), SECOND) for at_s in (begin_s, end_s))
    return boot.number << BITS | low, boot.number << BITS | high


def _level(connection: sqlite3.Connection, boots: Sequence[_Boot], begin_s: float, step_s: float) -> Level:
    """The coarsest level that is fine enough; a coarser one where that does not reach back far enough."""
    fine = [level for level in LEVELS if level.step_s <= step_s][-1]
    reaches = {level.table: _oldest_s(connection, boots, level) for level in LEVELS}
    wanted_s = max(begin_s, min(reaches.values()))
    for level in LEVELS[LEVELS.index(fine) :]:
        if reaches[level.table] <= wanted_s + level.step_s + step_s:
            return level
    return LEVELS[-1]


def _oldest_s(connection: sqlite3.Connection, boots: Sequence[_Boot], level: Level) -> float:
    (first,) = connection.execute(f"SELECT min(id) FROM {level.table}").fetchone()
    offsets = {boot.number: boot.offset_s for boot in boots}
    return float("inf") if first is None else (first & SECOND) + offsets[first >> BITS]


def _bucketed(
    connection: sqlite3.Connection, level: Level, boot: _Boot, names: Sequence[str], begin_s: float, end_s: float,
    step_s: float,
) -> list[tuple[Any, ...]]:  # fmt: skip
    """(UTC, min, mean and max of each series, number of the boot), one for each step that has rows."""
    shown = []
    for name in names:
        low, mean, high = (f"{name}_min", f"{name}_mean", f"{name}_max") if level.finer else (name, name, name)
        shown += [f"min({low})", f"avg({mean})", f"max({high})"]
    first, last = _span(boot, begin_s, end_s)
    return connection.execute(
        f"SELECT min(id & {SECOND}) + ?1, {', '.join(shown)}, {boot.number} FROM {level.table} "
        f"WHERE id BETWEEN ?2 AND ?3 GROUP BY CAST(((id & {SECOND}) + ?1 - ?4) / ?5 AS INTEGER)",
        (boot.offset_s, first, last, begin_s, step_s),
    ).fetchall()


def _with_gaps(
    rows: Sequence[tuple[Any, ...]], width: int, step_s: float
) -> tuple[list[float], list[list[float | None]]]:
    """The columns; where more than two steps have no row, one point without values."""
    at_s: list[float] = []
    columns: list[list[float | None]] = [[] for _ in range(width)]
    for row in rows:
        if at_s and row[0] - at_s[-1] > 2.5 * step_s:
            at_s.append(at_s[-1] + step_s)
            for column in columns:
                column.append(None)
        at_s.append(row[0])
        for column, value in zip(columns, row[1:-1], strict=True):
            column.append(value)
    return at_s, columns
