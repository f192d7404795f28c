"""The history: what is recorded, how little is written, what wrong clocks, full disks and power cuts leave of it."""

from __future__ import annotations

import asyncio
import csv
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from controller.gateway import history_export, history_store
from controller.gateway.history import History, sample
from controller.gateway.history_store import (
    DAY_S,
    LEVEL_OF,
    SERIES,
    Batch,
    HistoryError,
    Keep,
    Past,
    Store,
)
from controller.gateway.hub import Hub
from controller.gateway.wall import Stamp
from tests.gateway import statuses

NOON_S = 1_796_000_000.0
"""A moment of 2026, UTC."""
SECONDS, MINUTES, HOURS = LEVEL_OF["seconds"], LEVEL_OF["minutes"], LEVEL_OF["hours"]


def row(soc_pct: float | None = None, **others: float) -> tuple[float | None, ...]:
    return tuple({**others, "soc_pct": soc_pct}.get(name) for name in SERIES)


def batch(first: int, count: int, *events: Past, boot: str = "one", offset_s: float = NOON_S, sure: bool | None = True,
          soc: Any = lambda second: 50.0) -> Batch:  # fmt: skip
    seconds = {second: row(soc(second)) for second in range(first, first + count)}
    return Batch(boot, offset_s, sure, seconds, events)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "history")


def values_of(store: Store, level: Any, name: str) -> list[float | None]:
    at = level.columns.index(name)
    return [point.values[at] for point in store.points(level, 0, 4e9)]


# --- what is recorded ---


def test_a_sample_holds_every_series_and_power_is_the_product_of_what_is_known():
    status = statuses.running()
    signals = status["signals"]
    told = dict(zip(SERIES, sample(status), strict=True))
    assert told["pack_voltage_v"] == signals["pack_voltage_v"] is not None
    assert told["power_w"] == signals["pack_voltage_v"] * signals["current_a"]
    assert told["limit_discharge_w"] == status["limits"]["discharge_w"] > 0


def test_what_is_unknown_is_recorded_as_unknown():
    told = dict(zip(SERIES, sample(statuses.unheard()), strict=True))
    assert told["pack_voltage_v"] is told["power_w"] is told["soc_pct"] is None


def test_minutes_and_hours_keep_least_mean_and_most(store: Store):
    for minute in range(120):
        store.write(batch(minute * 60, 60, soc=float))
    assert values_of(store, SECONDS, "soc_pct") == [float(second) for second in range(7200)]
    assert values_of(store, MINUTES, "soc_pct_mean")[:2] == [29.5, 89.5]
    assert values_of(store, HOURS, "soc_pct_min") == [0, 3600]
    assert values_of(store, HOURS, "soc_pct_mean") == pytest.approx([1799.5, 5399.5])
    assert values_of(store, HOURS, "soc_pct_max") == [3599, 7199]
    assert values_of(store, HOURS, "n") == [3600, 3600]


def test_a_minute_written_in_two_parts_is_one_minute(store: Store):
    store.write(batch(0, 30, soc=lambda second: 10.0))
    store.write(batch(30, 30, soc=lambda second: 20.0))
    assert values_of(store, MINUTES, "soc_pct_mean") == [15.0]
    assert values_of(store, MINUTES, "n") == [60]


def test_seconds_without_a_value_do_not_count_in_the_mean(store: Store):
    store.write(batch(0, 60, soc=lambda second: 80.0 if second < 6 else None))
    store.write(batch(60, 60, soc=lambda second: None))
    assert values_of(store, MINUTES, "soc_pct_mean") == [80.0, None]
    assert values_of(store, HOURS, "soc_pct_mean") == [80.0]


# --- a clock that is wrong at first ---


def test_a_clock_that_is_set_later_mends_the_times_recorded_before(store: Store):
    store.write(batch(10, 60, Past(12.5, "started", "info", ""), offset_s=1000.0, sure=False))
    store.write(batch(70, 60, offset_s=NOON_S, sure=True))
    assert [point.at_s for point in store.points(SECONDS, 0, 4e9)] == [NOON_S + second for second in range(10, 130)]
    (event,) = store.events()
    assert (event.at_s, event.synchronised) == (NOON_S + 12.5, True)


def test_a_clock_that_is_not_sure_changes_no_time_that_is(store: Store):
    store.write(batch(0, 60))
    store.write(batch(60, 60, offset_s=77.0, sure=False))
    assert {round(point.at_s) - second for second, point in enumerate(store.points(SECONDS, 0, 4e9))} == {int(NOON_S)}


def test_a_boot_whose_clock_was_never_set_is_marked_so(store: Store):
    store.write(batch(0, 60, sure=False))
    assert not store.chart(["soc_pct"], NOON_S, NOON_S + 3600).sure
    store.write(batch(0, 60, boot="two", offset_s=NOON_S + DAY_S))
    assert store.chart(["soc_pct"], NOON_S + DAY_S, NOON_S + DAY_S + 3600).sure


def test_a_clock_far_in_the_future_deletes_nothing(tmp_path: Path):
    store = Store(tmp_path, Keep(seconds_days=1, minutes_days=1, hours_days=1))
    store.write(batch(0, 3600))
    store.write(batch(0, 60, boot="two", offset_s=NOON_S + 900 * DAY_S))
    store.prune()
    assert len(values_of(store, SECONDS, "soc_pct")) == 3660


# --- how much is kept and written ---


def test_only_the_newest_days_of_recorded_time_are_kept(tmp_path: Path):
    store = Store(tmp_path, Keep(seconds_days=1 / 24, minutes_days=2 / 24, hours_days=1))
    for hour in range(3):
        store.write(batch(hour * 3600, 3600, boot="one" if hour == 0 else "two"))
    store.prune()
    kept = list(store.points(SECONDS, 0, 4e9))
    assert len(kept) == pytest.approx(3600, abs=2)
    assert {point.boot for point in kept} == {"two"}
    assert len(values_of(store, MINUTES, "n")) == pytest.approx(120, abs=3)
    assert values_of(store, HOURS, "n") == [3600, 3600, 3600]


def test_the_file_keeps_within_its_bytes_and_gives_up_seconds_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(history_store, "SPARE_PAGES", 10)
    store = Store(tmp_path, Keep(bytes_max=2_000_000))
    for hour in range(12):
        told = {hour * 3600 + second: tuple(second + 0.1 for _ in SERIES) for second in range(3600)}
        store.write(Batch("one", NOON_S, True, told))
    store.close()
    before = store.path.stat().st_size
    store.prune()
    store.close()
    assert store.path.stat().st_size < 2_100_000 < before
    assert 3600 <= len(values_of(store, SECONDS, "soc_pct")) < 12 * 3600
    assert len(values_of(store, MINUTES, "n")) == 720


class Hand(Store):
    """A store that counts its transactions, and can be a disk that is full."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.writes, self.full = 0, False

    def write(self, batch: Batch) -> None:
        self.writes += 1
        if self.full:
            raise HistoryError("no room")
        super().write(batch)


def lived(store: Store, hub: Hub, seconds: int, tell: Any = print, spoil: Any = lambda second: None) -> None:
    """A gateway that hears a status each second, then is told to end."""

    async def live() -> None:
        history = History(store, hub, tell, "one")
        task = asyncio.create_task(history.run())
        status = statuses.running()
        for second in range(seconds):
            spoil(second)
            hub.publish(statuses.later(status, second))
            version = hub.version
            while history._waiting.get((status["t_ms"] // 1000) + second) is None and version == hub.version:
                if history._flushed_s == (status["t_ms"] // 1000) + second:
                    break
                await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(live())


def hub_at(utc_s: float = NOON_S) -> Hub:
    return Hub(now_s=lambda: 0.0, clock=lambda: Stamp(utc_s, True))


def test_ten_minutes_are_ten_transactions_and_one_at_the_end(tmp_path: Path):
    store = Hand(tmp_path)
    lived(store, hub_at(), 605)
    assert store.writes == 11
    assert len(values_of(store, SECONDS, "soc_pct")) == 605


def test_what_a_full_disk_refused_is_written_when_there_is_room_again(tmp_path: Path):
    store, told = Hand(tmp_path), []

    def spoil(second: int) -> None:
        store.full = 30 < second < 200

    lived(store, hub_at(), 300, told.append, spoil)
    assert len(values_of(store, SECONDS, "soc_pct")) == 300
    assert set(told) == {"history: no room"}


def test_control_lost_has_all_of_it_written_at_once(tmp_path: Path):
    async def live() -> int:
        store, hub = Hand(tmp_path), hub_at()
        task = asyncio.create_task(History(store, hub, print, "one").run())
        hub.publish(statuses.running())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        hub.lose("gone")
        while not store.path.exists():
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return len(values_of(store, SECONDS, "soc_pct"))

    assert asyncio.run(live()) == 1


def test_an_event_told_again_by_a_gateway_that_was_restarted_stands_there_once(tmp_path: Path):
    status = statuses.later(statuses.running(), 1, ("hvil-open", "CLOSED a090"))
    for heard in (status, statuses.later(status, 1, ("cell-spread", "0.2 V"))):
        hub = hub_at()
        hub.publish(heard)
        history = History(Store(tmp_path), hub, pytest.fail, "one")
        history.look(hub.newest)
        history.flush()
    told = Store(tmp_path).events()
    assert [event.id for event in told[:2]] == ["cell-spread", "hvil-open"]
    assert len(told) == len(status["events"]) + 1


def test_pages_of_events_follow_each_other_newest_first(store: Store):
    store.write(batch(0, 1, *(Past(at, "cell-spread", "warning" if at % 2 else "info", str(at)) for at in range(10))))
    first = store.events(4)
    assert [event.detail for event in first] == ["9", "8", "7", "6"]
    assert [event.detail for event in store.events(4, before=first[-1].number)] == ["5", "4", "3", "2"]
    assert [event.detail for event in store.events(mild=False)] == ["9", "7", "5", "3", "1"]


# --- what happens to the file ---


WRITER = """
import sys
from pathlib import Path
from controller.gateway.history_store import SERIES, Batch, Store
store, minute = Store(Path(sys.argv[1])), 0
while True:
    row = (float(minute),) * len(SERIES)
    store.write(Batch("one", 0.0, True, {minute * 60 + second: row for second in range(60)}))
    print(minute, flush=True)
    minute += 1
"""


def test_killed_while_writing_every_minute_that_was_done_is_there_whole(tmp_path: Path):
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    done = -1
    for line in writer.stdout:
        done = int(line)
        if done >= 40:
            writer.kill()
    writer.wait()
    store = Store(tmp_path)
    counts = values_of(store, MINUTES, "n")
    assert counts == [60.0] * len(counts)
    assert len(counts) in (done + 1, done + 2)
    connection = sqlite3.connect(store.path)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_commit_is_flushed_to_the_card(store: Store):
    store.write(batch(0, 1))
    assert store._connection is not None
    assert store._connection.execute("PRAGMA synchronous").fetchone() == (2,)


def test_a_damaged_file_is_kept_beside_and_a_new_one_begun(store: Store):
    store.write(batch(0, 60))
    store.close()
    store.path.write_bytes(b"no database" * 1000)
    with pytest.raises(HistoryError, match="damaged"):
        store.write(batch(60, 60))
    store.write(batch(120, 60))
    assert len(values_of(store, SECONDS, "soc_pct")) == 60
    assert store.path.with_suffix(".broken").read_bytes().startswith(b"no database")


def test_a_file_of_a_newer_program_is_left_alone(store: Store):
    store.write(batch(0, 60))
    store.close()
    with sqlite3.connect(store.path) as connection:
        connection.execute("PRAGMA user_version = 2")
    before = store.path.read_bytes()
    with pytest.raises(HistoryError, match="version 2, this program reads 1"):
        Store(store.path.parent).write(batch(0, 60))
    assert store.path.read_bytes() == before


def test_no_history_is_a_sentence(store: Store):
    with pytest.raises(HistoryError, match="there is no history yet"):
        store.chart(["soc_pct"], 0, 1)


# --- what is read ---


def test_a_chart_is_as_fine_as_its_points_allow(store: Store):
    for hour in range(30):
        store.write(batch(hour * 3600, 3600, soc=lambda second: second / 3600))
    end_s = NOON_S + 30 * 3600
    assert store.chart(["soc_pct"], end_s - 600, end_s).level is SECONDS
    day = store.chart(["soc_pct"], end_s - DAY_S, end_s, points=600)
    assert day.level is MINUTES
    assert len(day.at_s) <= 601
    low, mean, high = day.series["soc_pct"]
    assert low[0] < mean[0] < high[0]  # type: ignore[operator]
    assert mean[-1] == pytest.approx(30, abs=0.05)
    assert store.chart(["soc_pct"], end_s - 100 * DAY_S, end_s).level is HOURS


def test_where_seconds_are_gone_a_chart_is_made_of_minutes(tmp_path: Path):
    store = Store(tmp_path, Keep(seconds_days=1 / 24))
    for hour in range(3):
        store.write(batch(hour * 3600, 3600))
    store.prune()
    assert store.chart(["soc_pct"], NOON_S, NOON_S + 600).level is MINUTES


def test_a_gap_in_the_record_is_a_gap_in_the_chart(store: Store):
    store.write(batch(0, 60))
    store.write(batch(300, 60))
    chart = store.chart(["soc_pct"], NOON_S, NOON_S + 360, points=360)
    mean = chart.series["soc_pct"][1]
    assert mean.count(None) == 1
    assert chart.at_s[mean.index(None)] == pytest.approx(NOON_S + 60, abs=2)


def test_csv_has_a_line_for_each_row_with_its_time_and_unknown_is_empty(store: Store, tmp_path: Path):
    store.write(batch(0, 2, sure=None, soc=lambda second: None if second else 51.25))
    target = tmp_path / "out.csv"
    assert history_export.export(store, SECONDS, 0, 4e9, target) == 2
    first, second = csv.DictReader(target.open())
    assert (first["time_utc"], first["clock"]) == ("2026-11-30T00:53:20.000Z", "unknown")
    assert (first["soc_pct"], second["soc_pct"]) == ("51.25", "")


def test_parquet_says_the_same_as_csv(store: Store, tmp_path: Path):
    parquet = pytest.importorskip("pyarrow.parquet")
    store.write(batch(0, 120, soc=float))
    target = tmp_path / "out.parquet"
    assert history_export.export(store, MINUTES, 0, 4e9, target) == 2
    table = parquet.read_table(target).to_pylist()
    assert [line["soc_pct_mean"] for line in table] == [29.5, 89.5]
    assert table[0]["time_utc"].timestamp() == NOON_S
    assert table[0]["pack_voltage_v_max"] is None


def test_without_pyarrow_parquet_says_what_to_install(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store.write(batch(0, 1))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(HistoryError, match="pip install"):
        history_export.export(store, MINUTES, 0, 4e9, tmp_path / "out.parquet")


def test_readers_do_not_hold_the_writer_up(store: Store):
    store.write(batch(0, 3600))
    reading = store.points(SECONDS, 0, 4e9)
    next(reading)
    store.write(batch(3600, 60))
    assert sum(1 for _ in reading) == 3659
