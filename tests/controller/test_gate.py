"""The gate refuses what must never be, whoever wants it, and nothing else."""

from dataclasses import replace
from itertools import chain, combinations, product

import pytest

from controller.model.battery import Feed, PackContactor
from controller.model.events import Event
from controller.model.reading import Freshness
from controller.ports import CanFrame, Outputs
from controller.safety.gate import Gate, GateSettings, allow
from statecharts.supervisor import SUPERVISOR, WIRINGS, Contactor, State
from tests.bench import HEALTHY, ROUNDS_MS

NEGATIVE, PRECHARGE, POSITIVE, PACK = Contactor.NEGATIVE, Contactor.PRECHARGE, Contactor.POSITIVE, Contactor.PACK
SETS = [frozenset(c) for c in chain.from_iterable(combinations(Contactor, n) for n in range(5))]
FRESH = HEALTHY._replace(feeds={feed: Freshness(1_000_000, ROUNDS_MS[feed]) for feed in Feed})
CLOSED_PACK = FRESH._replace(contactor_state=PackContactor.CLOSED)


def settings(wiring: str = "own", **values: object) -> GateSettings:
    base = GateSettings(wiring, frozenset(), 2_000, False, frozenset({0x221}), frozenset({0x110}), False)
    return replace(base, **values)  # type: ignore[arg-type]


def judge(closed, before=frozenset(), wiring="own", pack=CLOSED_PACK, link_v=360.0, blocked=""):
    gate = Gate(frozenset(before))
    _, outputs = allow(gate, settings(wiring), Outputs(frozenset(closed)), pack, link_v, blocked, 1_000_000)
    return outputs


def refused(outputs: Outputs) -> bool:
    return bool(outputs.events) and outputs.events[-1].id is Event.GATE_REFUSED


def reachable(wiring: str) -> set[frozenset]:
    return {SUPERVISOR.energised(state, wiring) for state in State}


@pytest.mark.parametrize("wiring", WIRINGS)
def test_every_set_the_chart_can_want_passes_and_no_dangerous_one_does(wiring: str):
    for closed in SETS:
        passes = judge(closed, before=closed, wiring=wiring).closed == closed
        if closed in reachable(wiring):
            assert passes, closed
        if not closed <= WIRINGS[wiring] or (wiring == "own" and closed and NEGATIVE not in closed):
            assert not passes, closed


def test_a_refusal_switches_everything_off_sends_nothing_and_is_a_fault():
    wanted = Outputs(frozenset({POSITIVE}), (CanFrame(0x221, b"\0"),), heartbeat=True)
    _, outputs = allow(Gate(), settings(), wanted, CLOSED_PACK, 360.0, "", 0)
    assert outputs.closed == frozenset()
    assert outputs.battery_frames == ()
    assert not outputs.heartbeat
    assert refused(outputs)
    assert outputs.events[-1].id is Event.GATE_REFUSED


def test_nothing_rises_while_a_cause_blocks_and_everything_may_fall():
    assert refused(judge({NEGATIVE}, blocked="e-stop-open"))
    assert not refused(judge({NEGATIVE}, before={NEGATIVE, POSITIVE}, blocked="e-stop-open"))
    assert not refused(judge({NEGATIVE, POSITIVE}, before={NEGATIVE, POSITIVE}, blocked="e-stop-open"))


@pytest.mark.parametrize(
    "name", ["pack_voltage_v", "current_a", "cell_min_v", "cell_max_v", "temp_min_c", "temp_max_c", "soc_pct"]
)
def test_nothing_rises_while_a_required_value_is_unknown(name: str):
    assert refused(judge({NEGATIVE}, pack=FRESH._replace(**{name: None})))


@pytest.mark.parametrize("name", ["contactor_state", "hvil_ok"])
def test_a_pack_is_not_asked_while_its_state_or_interlock_is_unknown(name: str):
    assert refused(judge({PACK}, wiring="pack", pack=FRESH._replace(**{name: None})))
    assert not refused(judge({PACK}, wiring="pack", pack=FRESH))


def test_nothing_rises_on_a_stale_stamp():
    stale = {**FRESH.feeds, Feed.CELLS: Freshness(1_000_000 - 10_001, 2_000)}
    assert refused(judge({NEGATIVE}, pack=FRESH._replace(feeds=stale)))


@pytest.mark.parametrize(("link_v", "passes"), [(None, False), (0.0, False), (341.9, False), (342.1, True)])
def test_positive_rises_only_behind_a_precharge_that_charged_the_link(link_v: float | None, passes: bool):
    on = {NEGATIVE, PRECHARGE, POSITIVE}
    assert refused(judge(on, before={NEGATIVE, PRECHARGE}, link_v=link_v)) != passes
    assert refused(judge({NEGATIVE, POSITIVE}, before={NEGATIVE}, link_v=360.0))


def test_positive_behind_a_pack_needs_its_word():
    on = {PACK, POSITIVE}
    assert refused(judge(on, before={PACK}, wiring="pack+inverter", pack=FRESH))
    assert not refused(judge(on, before={PACK}, wiring="pack+inverter", pack=CLOSED_PACK))
    assert refused(judge({POSITIVE}, before={POSITIVE}, wiring="pack+inverter"))


def test_a_precharge_that_lasts_too_long_is_cut():
    gate, wanted = Gate(), Outputs(frozenset({NEGATIVE, PRECHARGE}))
    cut_at = None
    for now_ms in range(0, 3_000, 10):
        pack = FRESH._replace(feeds={feed: Freshness(now_ms, ROUNDS_MS[feed]) for feed in Feed})
        gate, outputs = allow(gate, settings(), wanted, pack, 100.0, "", now_ms)
        if refused(outputs):
            cut_at = now_ms
            break
    assert cut_at is not None
    assert 2_000 < cut_at <= 2_030


def test_precharges_in_a_row_are_cut_at_three_limits_in_ten_minutes():
    gate, energised_ms, refusals = Gate(), 0, 0
    for n in range(5_000):
        now_ms = n * 10
        on = (n // 190) % 2 == 0
        wanted = Outputs(frozenset({NEGATIVE, PRECHARGE}) if on else frozenset())
        pack = FRESH._replace(feeds={feed: Freshness(now_ms, ROUNDS_MS[feed]) for feed in Feed})
        gate, outputs = allow(gate, settings(), wanted, pack, 100.0, "", now_ms)
        energised_ms += 10 * (PRECHARGE in outputs.closed)
        refusals += refused(outputs)
    assert refusals
    assert energised_ms <= 3 * 2_020 + 40


@pytest.mark.parametrize(
    ("frame", "passes"),
    [
        (CanFrame(0x221, bytes(8)), True),
        (CanFrame(0x222, bytes(8)), False),
        (CanFrame(0x221, bytes(8), extended=True), False),
        (CanFrame(0x221, bytes(9)), False),
        (CanFrame(0x110, bytes(8)), False),  # the inverter's, on the battery's bus
    ],
)
def test_only_frames_on_the_list_go_out(frame: CanFrame, passes: bool):
    _, outputs = allow(Gate(), settings(), Outputs(battery_frames=(frame,)), FRESH, None, "", 0)
    assert bool(outputs.battery_frames) == passes
    assert refused(outputs) != passes


@pytest.mark.parametrize(("closed", "frames"), [({NEGATIVE}, ()), (set(), (CanFrame(0x221, bytes(8)),))])
def test_while_listening_only_nothing_moves_and_nothing_is_sent(closed: set, frames: tuple):
    wanted = Outputs(frozenset(closed), frames)
    _, outputs = allow(Gate(frozenset(closed)), settings(silent=True), wanted, CLOSED_PACK, 360.0, "", 0)
    assert outputs.closed == frozenset()
    assert outputs.battery_frames == ()


def test_whatever_is_wanted_the_gate_only_ever_takes_away():
    for wiring, before, wanted, link_v in product(WIRINGS, SETS, SETS, (None, 0.0, 360.0)):
        outputs = judge(wanted, before=before, wiring=wiring, link_v=link_v)
        assert outputs.closed in (wanted, frozenset())
