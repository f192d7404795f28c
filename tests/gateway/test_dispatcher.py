"""The resident against simulated inverters over real TCP. Time is moved by hand; nothing sleeps."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from controller import config
from controller.batteries.registry import BATTERIES
from controller.gateway.brands import Refused, Site
from controller.gateway.dispatch import Live
from controller.gateway.dispatcher import Dispatcher, site_of
from controller.gateway.limits import live_of
from controller.gateway.restore_file import RestoreFile
from controller.inverters.registry import INVERTERS
from sim.tcp_inverters import FroniusSim, GoodWeSim, SungrowSim, TcpInverter

KINDS: dict[str, Callable[[], tuple[TcpInverter, Site]]] = {
    "sungrow mode 2": lambda: (SungrowSim(), Site("sungrow", "", sungrow_mode=2)),
    "sungrow mode 3": lambda: (SungrowSim(), Site("sungrow", "", sungrow_mode=3, timeout_s=30)),
    "fronius": lambda: (FroniusSim(), Site("fronius", "", timeout_s=300)),
    "fronius float": lambda: (FroniusSim(floating=True), Site("fronius", "", timeout_s=300)),
    "goodwe": lambda: (GoodWeSim(), Site("goodwe", "", unit=247)),
}
every_kind = pytest.mark.parametrize("kind", KINDS)
RUNNING = Live(6000.0, 6000.0, running=True, fault=False, at_s=0.0)
FADES = {13079}
MEASURED = {35182, 35183, 35184}


@dataclass
class Bench:
    """One inverter, one pack, one dispatcher. live: what the control process says now; None when it is lost.

    lines: the journal.
    """

    sim: TcpInverter
    site: Site
    path: Path
    now_s: float = 1000.0
    live: Live | None = RUNNING
    lines: list[str] = field(default_factory=list)
    dispatcher: Dispatcher = field(init=False)

    def __post_init__(self) -> None:
        self.site = self.site._replace(host=self.sim.host, port=self.sim.port)
        self.start()

    def start(self) -> None:
        """A new process; the old one is gone without a word."""
        self.dispatcher = Dispatcher(
            self.site, 5000.0, self, RestoreFile(self.path), tell=self.lines.append, now_s=lambda: self.now_s,
            pause=self.pause,
        )  # fmt: skip

    async def newest(self) -> Live | None:
        return None if self.live is None else self.live._replace(at_s=self.now_s)

    async def pause(self, seconds: float) -> None:
        self.now_s += seconds
        await asyncio.sleep(0)

    async def ticks(self, count: int, passing: bool = True) -> None:
        for _ in range(count):
            self.now_s += 2.0
            if passing:
                self.sim.pass_s(2)
            await self.dispatcher.tick()

    def holds(self) -> dict[int, int]:
        """Every register but those that measure or fade."""
        measured = {self.sim.mppt + 59, self.sim.mppt + 79} if isinstance(self.sim, FroniusSim) else set()
        return {n: value for n, value in self.sim.holding.items() if n not in FADES | MEASURED | measured}

    @property
    def battery_w(self) -> int:
        return self.sim.battery_w  # type: ignore[attr-defined, no-any-return]

    @property
    def running(self) -> bool:
        return self.path.exists()


def told(kind: str, tmp_path: Path, story: Callable[[Bench], Awaitable[None]]) -> None:
    async def run() -> None:
        sim, site = KINDS[kind]()
        async with sim:
            await story(Bench(sim, site, tmp_path / "restore.json"))

    asyncio.run(run())


# --- there and back ---


@every_kind
@pytest.mark.parametrize("charge", [True, False])
def test_it_steers_and_puts_everything_back_when_its_time_is_over(kind: str, charge: bool, tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        before = bench.holds()
        plan = await bench.dispatcher.dispatch(charge, 3000, 60)
        await bench.ticks(3)
        assert bench.battery_w == pytest.approx(3000 if charge else -3000, abs=1)
        assert (plan["allowed_w"], plan["runs"], bench.running) == (3000, True, True)
        await bench.ticks(26)
        assert bench.battery_w != 0
        await bench.ticks(1)
        assert (bench.battery_w, bench.holds(), bench.running) == (0, before, False)
        assert "its time is over" in bench.lines[-1]

    told(kind, tmp_path, story)


def frames_of(bench: Bench) -> list[str]:
    """Every write as it went over the wire, from the length field on."""
    return [frame[4:].hex(" ").upper() for frame in bench.sim.frames if frame[7] in (6, 16)]


def test_a_sungrow_gets_the_frames_of_the_note(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await bench.dispatcher.dispatch(True, 3000, 60)
        await bench.ticks(2)
        await bench.dispatcher.auto()
        assert frames_of(bench) == [
            "00 06 01 06 32 FB 03 E8", "00 06 01 06 32 FA 00 AA", "00 06 01 06 32 F9 00 02",
            "00 06 01 06 32 FB 07 D0", "00 06 01 06 32 FB 0B B8",
            "00 06 01 06 32 FA 00 CC", "00 06 01 06 32 FB 00 00", "00 06 01 06 32 F9 00 00",
        ]  # fmt: skip

    told("sungrow mode 2", tmp_path, story)


def test_a_sungrow_in_mode_3_gets_its_heartbeat_before_the_mode(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await bench.dispatcher.dispatch(False, 1000, 60)
        assert frames_of(bench) == [
            "00 06 01 06 32 FB 03 E8", "00 06 01 06 32 FA 00 BB", "00 06 01 06 33 17 00 1E", "00 06 01 06 32 F9 00 03",
        ]  # fmt: skip

    told("sungrow mode 3", tmp_path, story)


def test_a_fronius_gets_the_frames_of_the_note(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await bench.dispatcher.dispatch(True, 3000, 60)
        await bench.ticks(2)
        await bench.dispatcher.auto()
        frames = frames_of(bench)
        assert frames[0] == "00 06 01 06 9D A6 01 2C"
        assert frames[2] == "00 06 01 06 9D 9C 00 02"
        assert frames[4] == "00 06 01 06 9D A3 F5 67"
        assert frames[5:] == [
            "00 0B 01 10 9D A3 00 02 04 27 10 27 10",
            "00 06 01 06 9D 9C 00 00",
            "00 06 01 06 9D A6 00 00",
        ]

    told("fronius", tmp_path, story)


def test_a_goodwe_gets_the_frames_of_the_note(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await bench.dispatcher.dispatch(True, 3000, 60)
        await bench.ticks(2)
        await bench.dispatcher.auto()
        assert frames_of(bench) == [
            "00 0B F7 10 B9 97 00 02 04 00 0B 03 E8", "00 06 F7 06 B9 98 07 D0", "00 06 F7 06 B9 98 0B B8",
            "00 0B F7 10 B9 97 00 02 04 00 01 00 00",
        ]  # fmt: skip

    told("goodwe", tmp_path, story)


@every_kind
def test_no_time_out_of_the_inverter_strikes_while_it_is_steered(kind: str, tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await bench.dispatcher.dispatch(True, 3000, 7200)
        await bench.ticks(600)
        assert bench.battery_w == pytest.approx(3000, abs=1)

    told(kind, tmp_path, story)


@pytest.mark.parametrize("kind", ["sungrow mode 3", "fronius"])
def test_an_inverter_with_a_time_out_helps_itself_when_we_are_gone(kind: str, tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await bench.dispatcher.dispatch(True, 3000, 7200)
        assert bench.battery_w > 0
        bench.sim.pass_s(300)
        assert bench.battery_w == 0

    told(kind, tmp_path, story)


# --- nothing is written before everything was read ---


def reads_before_the_first_write(kind: str, tmp_path: Path) -> int:
    counted: list[int] = []

    async def story(bench: Bench) -> None:
        await bench.dispatcher.dispatch(True, 3000, 60, dry_run=True)
        counted.append(len(bench.sim.frames))

    told(kind, tmp_path, story)
    return counted[0]


@every_kind
def test_nothing_is_written_whichever_read_fails(kind: str, tmp_path: Path) -> None:
    for hears in range(reads_before_the_first_write(kind, tmp_path)):

        async def story(bench: Bench, hears: int = hears) -> None:
            bench.sim.hears = hears
            with pytest.raises(Refused, match=r"no answer|no connection"):
                await bench.dispatcher.dispatch(True, 3000, 60)
            assert (bench.sim.writes, bench.running) == ([], False)

        told(kind, tmp_path, story)


@every_kind
def test_a_dry_run_shows_the_plan_and_writes_nothing(kind: str, tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        plan = await bench.dispatcher.dispatch(False, 3000, 60, dry_run=True)
        assert (bench.sim.writes, bench.running, plan["runs"]) == ([], False, False)
        assert (await bench.dispatcher.status())["running"] is None
        assert all(row["old"] is not None or row["name"] == "heartbeat" for row in plan["changes"])
        assert {"register", "name", "old", "new", "text"} == plan["changes"][0].keys()

    told(kind, tmp_path, story)


def test_another_brand_at_that_address_is_left_alone(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        for brand in ("fronius", "goodwe"):
            bench.site = bench.site._replace(inverter=brand)
            bench.start()
            with pytest.raises(Refused):
                await bench.dispatcher.dispatch(True, 3000, 60)
        assert bench.sim.writes == []

    told("sungrow mode 2", tmp_path, story)


@pytest.mark.parametrize(
    ("offset", "value", "why"), [(23, 0x8000, "InOutWRte_SF"), (0, 0xFFFF, "WChaMax_SF|W$"), (3, 9, "StorCtl")]
)
def test_a_fronius_that_says_what_cannot_be_is_left_alone(offset: int, value: int, why: str, tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        assert isinstance(bench.sim, FroniusSim)
        bench.sim.holding[bench.sim.at + offset] = value
        if offset == 0:
            bench.sim.holding[bench.sim.at + 16] = 2
        with pytest.raises(Refused, match=why):
            await bench.dispatcher.dispatch(True, 3000, 60)
        assert bench.sim.writes == []

    told("fronius", tmp_path, story)


def test_fronius_scale_factors_are_read_and_not_assumed(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        assert isinstance(bench.sim, FroniusSim)
        at = bench.sim.at
        bench.sim.holding |= {at: 1100, at + 16: 1, at + 23: 0xFFFF, at + 10: 1000, at + 11: 1000}
        await bench.dispatcher.dispatch(True, 1000, 60)
        assert bench.sim.writes[1][1] == (-91 & 0xFFFF, 1000)  # 9.1 % of 11000 W

    told("fronius", tmp_path, story)


# --- the record ---


@every_kind
def test_what_was_there_is_on_disk_before_the_first_write(kind: str, tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        before, records = bench.holds(), list[dict[str, Any]]()
        bench.sim.settle = lambda: records.append(json.loads(bench.path.read_text()))  # type: ignore[method-assign]
        await bench.dispatcher.dispatch(True, 3000, 60)
        assert len(records) >= 1
        first = records[0]
        assert (first["schema"], first["port"], first["unit"]) == (1, bench.sim.port, bench.sim.unit)
        assert set(first["kept"].values()) <= set(before.values())

    told(kind, tmp_path, story)


def test_a_record_that_cannot_be_stored_means_nothing_is_written(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        bench.path = tmp_path / "nowhere" / "restore.json"
        bench.start()
        with pytest.raises(Refused, match="cannot be stored"):
            await bench.dispatcher.dispatch(True, 3000, 60)
        assert bench.sim.writes == []

    told("sungrow mode 2", tmp_path, story)


@every_kind
def test_a_crash_at_any_request_is_put_right_by_the_next_start_first_of_all(kind: str, tmp_path: Path) -> None:
    first = reads_before_the_first_write(kind, tmp_path)
    for hears in range(first, first + 20):

        async def story(bench: Bench, hears: int = hears) -> None:
            before = bench.holds()
            bench.sim.hears = hears
            with suppress(Refused):
                await bench.dispatcher.dispatch(True, 3000, 7200)
                await bench.ticks(2)
            assert bench.running
            bench.sim.hears, bench.sim.deaf, bench.live = None, False, None
            bench.start()
            await bench.dispatcher.begin()
            assert (bench.holds(), bench.running, bench.battery_w) == (before, False, 0)

        told(kind, tmp_path, story)


def test_a_record_is_never_overwritten(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        bench.path.write_text("mine")
        with pytest.raises(Refused, match="there is one already"):
            await bench.dispatcher.dispatch(True, 3000, 60)
        assert (bench.path.read_text(), bench.sim.writes) == ("mine", [])
        assert [path.name for path in tmp_path.iterdir()] == ["restore.json"]

    told("sungrow mode 2", tmp_path, story)


def test_a_start_without_a_record_writes_nothing(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await bench.dispatcher.begin()
        await bench.ticks(3)
        assert bench.sim.frames == []

    told("sungrow mode 2", tmp_path, story)


def test_the_inverter_of_the_record_is_put_back_even_when_the_config_names_another(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        before = bench.holds()
        await bench.dispatcher.dispatch(True, 3000, 7200)
        bench.site = Site("goodwe", "127.0.0.1", 1, 247)
        bench.start()
        await bench.dispatcher.begin()
        assert (bench.holds(), bench.running) == (before, False)

    told("sungrow mode 2", tmp_path, story)


def test_another_inverter_at_the_address_of_the_record_is_left_alone_and_the_record_stays(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await bench.dispatcher.dispatch(True, 3000, 7200)
        bench.sim.text(bench.sim.inputs, 4989, 10, "B7700000001")
        written = len(bench.sim.writes)
        bench.start()
        await bench.dispatcher.begin()
        assert (len(bench.sim.writes), bench.running) == (written, True)
        assert "another inverter answers there" in bench.lines[-1]
        with pytest.raises(Refused, match="not put back yet"):
            await bench.dispatcher.dispatch(True, 100, 60)

    told("sungrow mode 2", tmp_path, story)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", "null", '{"schema": 2}', "\xff", "[" * 5000,
     '{"schema": 1, "inverter": "sungrow", "host": "h", "port": 502, "unit": 1, "serial": "A", "kept": {"mode": -1}}',
     '{"schema": 1, "inverter": "sma", "host": "h", "port": 502, "unit": 1, "serial": "A", "kept": {"mode": 1}}'],
)  # fmt: skip
def test_a_record_that_is_not_understood_is_one_error_stays_and_stops_every_dispatch(text: str, tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        bench.path.write_bytes(text.encode("latin-1"))
        await bench.dispatcher.begin()
        await bench.ticks(3)
        assert len(bench.lines) == 1
        assert str(bench.path) in bench.lines[0]
        with pytest.raises(Refused, match="cannot be understood"):
            await bench.dispatcher.dispatch(True, 3000, 60)
        assert bench.path.read_bytes() == text.encode("latin-1")
        assert bench.sim.writes == []
        bench.path.unlink()
        await bench.ticks(1)
        await bench.dispatcher.dispatch(True, 3000, 60)

    told("sungrow mode 2", tmp_path, story)


def test_a_record_that_names_other_registers_moves_nothing(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await bench.dispatcher.dispatch(True, 3000, 60)
        record = json.loads(bench.path.read_text())
        bench.path.write_text(json.dumps({**record, "kept": {"EMS mode": 0}}))
        written = len(bench.sim.writes)
        bench.start()
        await bench.dispatcher.begin()
        assert (len(bench.sim.writes), bench.running) == (written, True)

    told("sungrow mode 2", tmp_path, story)


# --- the pack decides ---


def test_it_is_clamped_again_every_two_seconds_and_only_what_changes_is_written(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await bench.dispatcher.dispatch(True, 9000, 7200)
        await bench.ticks(10)
        assert bench.battery_w == 5000  # the config's limits.max_power_w
        written = len(bench.sim.writes)
        await bench.ticks(10)
        assert len(bench.sim.writes) == written
        assert bench.live is not None
        bench.live = bench.live._replace(charge_w=1700.0, discharge_w=10.0)
        await bench.ticks(1)
        assert (bench.battery_w, bench.sim.writes[written:]) == (1700, [(13051, (1700,))])

    told("sungrow mode 2", tmp_path, story)


@every_kind
def test_a_limit_of_nothing_leaves_the_battery_idle_and_not_at_a_little(kind: str, tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        assert bench.live is not None
        await bench.dispatcher.dispatch(True, 3000, 7200)
        bench.live = bench.live._replace(charge_w=0.0)
        await bench.ticks(1)
        assert (bench.battery_w, bench.running) == (0, True)
        idle = {
            "sungrow mode 2": {13050: 0xCC, 13051: 0, 13049: 2},
            "sungrow mode 3": {13050: 0xCC, 13051: 0, 13049: 3},
            "fronius": {40348: 3, 40355: 0, 40356: 0},
            "fronius float": {40358: 3, 40365: 0, 40366: 0},
            "goodwe": {47511: 8, 47512: 0},
        }[kind]
        assert {n: bench.sim.holding[n] for n in idle} == idle
        bench.live = bench.live._replace(charge_w=6000.0)
        await bench.ticks(3)
        assert bench.battery_w == pytest.approx(3000, abs=1)

    told(kind, tmp_path, story)


ENDS: dict[str, Live | None] = {
    "fault": Live(6000.0, 6000.0, running=False, fault=True, at_s=0.0),
    "not RUNNING": Live(0.0, 0.0, running=False, fault=False, at_s=0.0),
    "not heard": None,
}


@every_kind
@pytest.mark.parametrize("why", ENDS)
def test_a_fault_an_open_pack_and_a_lost_control_process_put_it_back(kind: str, why: str, tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        before = bench.holds()
        await bench.dispatcher.dispatch(True, 3000, 7200)
        bench.live = ENDS[why]
        await bench.ticks(1)
        assert (bench.holds(), bench.running, bench.battery_w) == (before, False, 0)
        assert why in (await bench.dispatcher.status())["ended"]

    told(kind, tmp_path, story)


@pytest.mark.parametrize("why", ENDS)
def test_it_is_refused_with_the_reason_while_the_pack_is_not_running(why: str, tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        bench.live = ENDS[why]
        with pytest.raises(Refused, match=why):
            await bench.dispatcher.dispatch(True, 3000, 60)
        assert bench.sim.frames == []

    told("sungrow mode 2", tmp_path, story)


def test_a_feed_that_hangs_up_is_a_lost_control_process(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        before = bench.holds()
        await bench.dispatcher.dispatch(True, 3000, 7200)

        async def gone() -> Live | None:
            raise ConnectionResetError

        bench.newest = gone  # type: ignore[method-assign]
        await bench.ticks(1)
        assert (bench.holds(), bench.running) == (before, False)

    told("sungrow mode 2", tmp_path, story)


def test_an_inverter_that_takes_the_watts_for_percent_is_put_back(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        assert isinstance(bench.sim, SungrowSim)
        bench.sim.percent = True
        await bench.dispatcher.dispatch(True, 3000, 7200)
        await bench.ticks(4)
        assert (bench.running, bench.battery_w) == (False, 0)
        assert "W flow where 6000 W are allowed" in (await bench.dispatcher.status())["ended"]

    told("sungrow mode 2", tmp_path, story)


# --- one dispatch after another ---


@every_kind
def test_a_second_dispatch_replaces_the_first_and_the_originals_are_those_before_both(
    kind: str, tmp_path: Path
) -> None:
    async def story(bench: Bench) -> None:
        bench.sim.holding |= {13051: 1234, 13050: 0xBB} if kind.startswith("sungrow") else {}
        if isinstance(bench.sim, FroniusSim):
            bench.sim.holding |= {bench.sim.at + 3: 1, bench.sim.at + 11: 5000, bench.sim.at + 13: 3600}
        before = bench.holds()
        await bench.dispatcher.dispatch(True, 3000, 7200)
        await bench.ticks(3)
        record = bench.path.read_bytes()
        plan = await bench.dispatcher.dispatch(False, 2000, 7200)
        await bench.ticks(3)
        assert bench.battery_w == pytest.approx(-2000, abs=1)
        assert bench.path.read_bytes() == record
        assert plan["changes"][-1]["old"] != before.get(plan["changes"][-1]["register"], -1) or kind == "goodwe"
        assert await bench.dispatcher.auto()
        assert (bench.holds(), bench.running) == (before, False)

    told(kind, tmp_path, story)


def test_a_refused_second_dispatch_leaves_the_first_running(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await bench.dispatcher.dispatch(True, 3000, 7200)
        live, bench.live = bench.live, None
        with pytest.raises(Refused):
            await bench.dispatcher.dispatch(False, 3000, 60)
        bench.live = live
        await bench.ticks(3)
        assert bench.battery_w == 3000

    told("sungrow mode 2", tmp_path, story)


def test_putting_back_what_was_never_steered_is_no_error(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        assert not await bench.dispatcher.auto()
        assert bench.sim.frames == []

    told("sungrow mode 2", tmp_path, story)


def test_the_connection_is_let_go_when_nothing_runs(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await bench.dispatcher.dispatch(True, 3000, 60, dry_run=True)
        assert len(bench.sim._callers) == 1
        await bench.ticks(1)
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(bench.sim._callers) == 0

    told("sungrow mode 2", tmp_path, story)


# --- an inverter that does not do as told ---


@every_kind
def test_whichever_write_is_refused_everything_is_put_back(kind: str, tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        before = bench.holds()
        await bench.dispatcher.dispatch(True, 1000, 7200, dry_run=False)
        touched = [wire for wire, _ in bench.sim.writes]
        await bench.dispatcher.auto()
        for wire in touched:
            bench.sim.broken = {wire}
            with pytest.raises(Refused, match="exception 4"):
                await bench.dispatcher.dispatch(True, 1000, 7200)
            bench.sim.broken = set()
            bench.now_s += 120.0
            await bench.dispatcher.tick()
            assert (bench.holds(), bench.running) == (before, False)

    told(kind, tmp_path, story)


def test_a_register_that_does_not_keep_its_value_ends_it(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        bench.sim.stuck = {13051}
        with pytest.raises(Refused, match="13052 forced power was written 1000 and reads 0"):
            await bench.dispatcher.dispatch(True, 3000, 7200)
        assert (bench.sim.holding[13049], bench.running) == (0, False)

    told("sungrow mode 2", tmp_path, story)


def test_a_failed_way_back_is_tried_again_ever_more_rarely_and_said_once(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        before = bench.holds()
        await bench.dispatcher.dispatch(True, 3000, 7200)
        bench.sim.broken = {13049}
        assert bench.live is not None
        bench.live = bench.live._replace(fault=True)
        tries = []
        for _ in range(100):
            asked = len(bench.sim.frames)
            await bench.ticks(1)
            if len(bench.sim.frames) > asked:
                tries.append(bench.now_s)
        gaps = [b - a for a, b in pairwise(tries)]
        assert gaps[:5] == [2.0, 4.0, 8.0, 16.0, 32.0]
        assert max(gaps) == 60.0
        assert sum("could not be put back" in line for line in bench.lines) == 1
        assert (bench.running, bench.battery_w) == (True, 0)  # the stop before the mode was heard
        assert "could not be put back" in (await bench.dispatcher.status())["problem"]
        with pytest.raises(Refused, match="not put back yet"):
            await bench.dispatcher.dispatch(True, 3000, 60)
        bench.sim.broken = set()
        assert await bench.dispatcher.auto()
        assert (bench.holds(), bench.running) == (before, False)

    told("sungrow mode 2", tmp_path, story)


def test_the_record_stays_until_all_registers_together_are_as_they_were(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        before = bench.holds()
        await bench.dispatcher.dispatch(True, 3000, 7200)

        def restless(wire: int) -> None:  # its power changes with its mode, after it was read back
            bench.sim.holding[13051] = 77 if wire == 13049 else bench.sim.holding[13051]

        bench.sim.written = restless  # type: ignore[method-assign]
        with pytest.raises(Refused, match="'forced power': 77"):
            await bench.dispatcher.auto()
        assert bench.running
        bench.sim.written = lambda wire: None  # type: ignore[method-assign]
        await bench.ticks(1)
        assert (bench.holds(), bench.running) == (before, False)

    told("sungrow mode 2", tmp_path, story)


def test_after_a_failed_way_back_the_inverter_is_recognised_anew(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await bench.dispatcher.dispatch(True, 3000, 7200)
        bench.sim.deaf = True
        await bench.ticks(1)
        bench.sim.deaf = False
        bench.sim.text(bench.sim.inputs, 4989, 10, "B7700000001")
        written = len(bench.sim.writes)
        await bench.ticks(10)
        assert (len(bench.sim.writes), bench.running) == (written, True)

    told("sungrow mode 2", tmp_path, story)


def test_a_connection_that_breaks_once_is_made_again(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await bench.dispatcher.dispatch(True, 3000, 7200)
        for caller in list(bench.sim._callers):
            caller.close()
        await bench.ticks(3)
        assert bench.battery_w == 3000

    told("sungrow mode 2", tmp_path, story)


def test_an_inverter_changed_by_somebody_else_is_put_back(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        before = bench.holds()
        await bench.dispatcher.dispatch(True, 3000, 7200)
        bench.sim.holding[13051] = 9999
        await bench.ticks(1)
        assert (bench.holds(), bench.running) == (before, False)
        assert "it was not us" in bench.lines[-2]

    told("sungrow mode 2", tmp_path, story)


# --- the end of the gateway ---


@every_kind
def test_the_gateway_puts_it_back_before_it_ends(kind: str, tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        before = bench.holds()
        life = asyncio.create_task(bench.dispatcher.run())
        await bench.dispatcher.dispatch(True, 3000, 10**6)
        assert bench.running
        life.cancel()
        with pytest.raises(asyncio.CancelledError):
            await life
        assert (bench.holds(), bench.running, bench.battery_w) == (before, False, 0)

    told(kind, tmp_path, story)


def test_a_gateway_that_cannot_reach_the_inverter_ends_and_the_next_one_puts_it_back(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        before = bench.holds()
        await bench.dispatcher.dispatch(True, 3000, 7200)
        bench.sim.deaf = True
        await bench.dispatcher.end()
        assert bench.running
        bench.sim.deaf = False
        bench.start()
        await bench.dispatcher.begin()
        assert (bench.holds(), bench.running) == (before, False)

    told("sungrow mode 2", tmp_path, story)


# --- config and feed ---

VALUES = {"dispatch.inverter": "fronius", "dispatch.host": "10.0.0.7", "dispatch.port": 502, "dispatch.unit": 1,
          "dispatch.sungrow_mode": 3, "dispatch.timeout_s": 60}  # fmt: skip


def test_the_config_names_the_inverter_or_none() -> None:
    assert site_of(VALUES) == Site("fronius", "10.0.0.7", 502, 1, 3, 60)
    assert site_of({**VALUES, "dispatch.inverter": "none"}) is None
    assert site_of({**VALUES, "dispatch.host": " "}) is None


FILE = """\
schema = 1
[battery]
name = "tesla_model3"
chemistry = "nca"
cells = 96
[inverter]
name = "byd_modbus"
[wiring]
kind = "pack"
[limits]
max_charge_a = 30
max_discharge_a = 35
max_power_w = 8000
"""


def test_the_config_file_has_a_section_for_it_that_is_checked_like_any_other() -> None:
    catalogue = config.Catalogue(BATTERIES, INVERTERS)
    assert site_of(config.parse(FILE, "c", catalogue).values) is None
    stated = FILE + '[dispatch]\ninverter = "goodwe"\nhost = "inverter.local"\nunit = 247\n'
    assert site_of(config.parse(stated, "c", catalogue).values) == Site("goodwe", "inverter.local", 502, 247, 3, 60)
    wrong = FILE + '[dispatch]\ninverter = "sma"\nhost = "in verter"\nunit = 0\nsungrow_mode = 4\ntimeout_s = 5\n'
    assert [problem.key.removeprefix("dispatch.") for problem in config.check(wrong, "c", catalogue)] == [
        "inverter", "host", "unit", "sungrow_mode", "timeout_s",
    ]  # fmt: skip


def test_without_an_inverter_in_the_config_it_says_what_to_state(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        bench.dispatcher = Dispatcher(None, 5000.0, bench, RestoreFile(bench.path), tell=bench.lines.append,
                                      now_s=lambda: bench.now_s)  # fmt: skip
        with pytest.raises(Refused, match=r"state dispatch\.inverter and dispatch\.host"):
            await bench.dispatcher.dispatch(True, 3000, 60)

    told("sungrow mode 2", tmp_path, story)


def test_a_status_of_the_control_process_is_taken_or_unknown() -> None:
    status = {"state": "RUNNING", "limits": {"charge_w": 2000, "discharge_w": 3000.5}}
    assert live_of(status, 7.0) == Live(2000.0, 3000.5, running=True, fault=False, at_s=7.0)
    held = live_of({**status, "state": "FAULT"}, 7.0)
    assert held is not None
    assert (held.running, held.fault) == (False, True)
    for wrong in ({}, {"state": "RUNNING"}, {**status, "limits": {"charge_w": 2000}}, {**status, "state": None},
                  {**status, "limits": {"charge_w": True, "discharge_w": 1}},
                  {**status, "limits": {"charge_w": float("nan"), "discharge_w": 1}}):  # fmt: skip
        assert live_of(wrong, 7.0) is None
