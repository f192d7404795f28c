"""Generated lives: reproducible, the same on any number of workers, and a planted bug is found and shrunk."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from controller import supervisor
from controller.ports import CommandKind
from sim import lives
from sim.faults import TRAPS, Ambush, DriverBreaks, LoadSurge, RelayBoardDead, Trap
from sim.garage import Build, Garage
from sim.invariants import INVARIANTS
from sim.lives import FULL, JUDGED, Life, Summary, campaign, live, shrink, tasks
from sim.recording import open_recording
from statecharts.supervisor import SUPERVISOR, Contactor, Guard, State

SHORT_MS = 6_000


def short(count: int, seed: int = 2) -> list[tuple[Life, bool]]:
    """Lives that are healed soon, the first one lived twice."""
    return [(Life(seed + n, None, SHORT_MS), n == 0) for n in range(count)]


def test_a_seed_draws_the_same_garage_and_troubles_every_time():
    for seed in range(20):
        one, other = Life(seed).drawn(), Life(seed).drawn()
        assert one[0] == other[0]
        assert list(map(str, one[1])) == list(map(str, other[1]))


def test_seeds_draw_every_wiring():
    assert {Life(seed).drawn()[0].wiring for seed in range(60)} == {"own", "pack", "pack+inverter", "none"}


def test_a_few_short_lives_break_nothing_and_the_same_seeds_give_the_same_on_two_workers():
    alone, together = campaign(short(4), workers=1), campaign(short(4), workers=2)
    assert [verdict.broken for verdict in alone.failures] == []
    assert alone == together


def test_the_line_that_is_printed_lives_the_same_life_again():
    assert Life(7, (0, 2), 3_000).command == "controller sim --campaign 1 --seed 7 --only 0,2 --until 3"
    assert Life(7, ()).command.endswith("--only none")


def test_a_planted_bug_is_found_and_shrunk_to_a_life_without_needless_troubles(monkeypatch: pytest.MonkeyPatch):
    """An unknown or low link counts as charged: the positive relay is closed onto it."""
    monkeypatch.setitem(supervisor.GUARDS, Guard.LINK_CHARGED, lambda s, sup, faults: True)
    seed = next(n for n in range(100) if _closes(n))
    verdict = live(Life(seed))
    assert {lives.number(what) for what in verdict.broken} & {"I1", "I13"}
    least = shrink(verdict)
    assert least.troubles == ()
    assert least.life.until_ms == least.ticks * 10  # not a tick after the violation
    assert least.ticks <= verdict.ticks
    assert lives.number(least.broken[0]) == lives.number(verdict.broken[0])


def _closes(seed: int) -> bool:
    """A garage of our own relays in which nothing but the planted bug is wrong."""
    build = Life(seed).drawn()[0]
    plain = build.wiring == "own" and build.hurried and build.sensor and not build.unverified and not build.welded
    return plain and build.record is None and build.residual_v == 0.0 and build.soc == 0.5


def test_a_reaction_that_waited_for_the_fuse_is_told_apart_with_a_budget_of_its_own():
    garage = Garage(Build("own", hurried=True)).ask(CommandKind.ENABLE)
    garage.plan(Ambush(0, 20_000, state=State.RUNNING, for_ms=10_000, faults=(LoadSurge(amps=-250.0),)))
    garage.run_ms(20_000)
    assert garage.broken == []
    (name,) = garage.invariants.worst_ms
    assert name == "overcurrent, behind the fuse"
    assert lives.BUDGETS_MS["overcurrent"] < garage.invariants.worst_ms[name] <= lives.BUDGETS_MS[name]


def test_a_contradiction_is_not_counted_through_ticks_that_broke():
    garage = Garage(Build("own", hurried=True, welded=frozenset({Contactor.NEGATIVE}))).ask(CommandKind.ENABLE)
    faults = (DriverBreaks(), RelayBoardDead())
    garage.plan(Ambush(0, 60_000, state=State.STARTING, for_ms=8_000, faults=faults))
    garage.run_ms(9_000)
    assert garage.broken == []


def test_a_life_is_exported_as_a_recording_and_its_inputs(tmp_path: Path):
    seed = next(n for n in range(100) if Life(n).drawn()[0].wiring == "own")
    log, inputs = lives.export(Life(seed, (), 2_000), tmp_path)
    assert len(list(open_recording(log))) > 200
    head, *lines = [json.loads(line) for line in inputs.read_text().splitlines()]
    assert head["command"] == Life(seed, (), 2_000).command
    assert lines[0]["t_ms"] == 10


EVERYTHING = {
    "states": frozenset(state.value for state in State), "rows": frozenset(range(len(SUPERVISOR.rows))),
    "met": {observer.id: 1 for observer in INVARIANTS}, "ended": "RUNNING", "repeated": True,
}  # fmt: skip


@pytest.mark.parametrize(
    ("lacking", "fails_from"),
    [({"states": frozenset()}, JUDGED), ({"met": {}}, JUDGED), ({"rows": frozenset()}, FULL), ({}, None)],
)
def test_a_campaign_with_holes_fails_when_it_is_large_enough_to_have_none(lacking: dict, fails_from: int | None):
    verdict = replace(live(Life(4, (), 1_000)), **EVERYTHING | lacking)
    summary = Summary()
    for n in range(1, FULL + 1):
        summary.add(replace(verdict, life=Life(n)))
        assert bool(summary.holes) is bool(lacking)
        assert summary.failed is (fails_from is not None and n >= fails_from)


@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: " ".join(each.name for each in trap.row))
def test_a_trap_fires_the_row_it_is_set_for(trap: Trap):
    def fires(seed: int) -> bool:
        build, dice = trap.suited(Build()), random.Random(seed)
        garage = Garage(build).ask(CommandKind.ENABLE)
        garage.inverter.wish_w = 2_500.0
        garage.plan(*trap.laid(dice, build, 45_000))
        while garage.now_ms < 45_000 and trap.row not in [(row.source, row.target, row.when[0]) for row in garage.rows]:
            garage.tick()
        return garage.now_ms < 45_000

    assert any(fires(seed) for seed in range(20))


@pytest.mark.slow
def test_a_dask_cluster_that_loses_a_worker_gives_the_same_result():
    distributed = pytest.importorskip("distributed", reason="the extra `dask` is not installed")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        killed = []

        def told(verdict: lives.Verdict) -> None:
            if not killed:
                killed.append(cluster.workers[0].process.process.kill())

        there = campaign(short(6), dask=cluster.scheduler_address, told=told)
    assert there == campaign(short(6), workers=1)


@pytest.mark.campaign
def test_a_campaign_of_lives_breaks_nothing():
    summary = campaign(tasks(60, 1), workers=2)
    print(summary.holes)
    assert [(v.life.command, v.broken) for v in summary.failures] == []
