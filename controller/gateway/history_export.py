"""The history as CSV and Parquet, row by row: nothing is held in memory."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any, Final

from controller.gateway.history_store import HistoryError, Level, Point, Store
from controller.gateway.wall import iso

CLOCK: Final = {True: "synchronised", False: "not synchronised", None: "unknown"}
ROWS: Final = 10_000
NO_PYARROW: Final = "Parquet needs pyarrow: pip install 'packwarden[parquet]'; CSV needs nothing"


def csv_lines(level: Level, points: Iterable[Point]) -> Iterator[str]:
    """A header, then a line for each row. Unknown is empty."""
    yield _line(["time_utc", "boot", "clock", *level.columns])
    for point in points:
        yield _line([iso(point.at_s), point.boot, CLOCK[point.synchronised], *map(_short, point.values)])


def _line(cells: Iterable[object]) -> str:
    text = io.StringIO()
    csv.writer(text).writerow(cells)
    return text.getvalue()


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}" if abs(value) < 1e5 else f"{value:.0f}"


def export(store: Store, level: Level, begin_s: float, end_s: float, target: Path) -> int:
    """To a .csv or .parquet file; the number of rows. Raises HistoryError, OSError."""
    store.span()
    points = store.points(level, begin_s, end_s)
    if target.suffix == ".csv":
        with target.open("w", encoding="utf-8", newline="") as file:
            return sum(1 for line in csv_lines(level, points) if file.write(line)) - 1
    if target.suffix == ".parquet":
        return _parquet(level, points, target)
    raise HistoryError(f"{target.name}: its name must end in .csv or .parquet")


def _parquet(level: Level, points: Iterator[Point], target: Path) -> int:
    try:
        arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ModuleNotFoundError:
        raise HistoryError(NO_PYARROW) from None
    fields: list[tuple[str, Any]] = [
        ("time_utc", arrow.timestamp("ms", tz="UTC")), ("boot", arrow.string()), ("synchronised", arrow.bool_()),
        *((name, arrow.float64()) for name in level.columns),
    ]  # fmt: skip
    schema, written = arrow.schema(fields), 0
    with parquet.ParquetWriter(str(target), schema) as writer:
        while rows := list(islice(points, ROWS)):
            columns: list[list[Any]] = [
                [datetime.fromtimestamp(point.at_s, UTC) for point in rows],
                [point.boot for point in rows],
                [point.synchronised for point in rows],
                *([point.values[i] for point in rows] for i in range(len(level.columns))),
            ]
            arrays = [arrow.array(column, type=kind) for column, (_, kind) in zip(columns, fields, strict=True)]
            writer.write_table(arrow.Table.from_arrays(arrays, schema=schema))
            written += len(rows)
    return written
