"""The gate refuses what must never be, whoever wants it, and nothing else."""

from dataclasses import replace
from itertools import chain, combinations, product

import pytest

from controller.model.battery import Feed, PackContactor
from controller.model.events import Event
from controller.model.reading import Freshness
from controller.ports import CanFrame, Outputs
from controller.safety.gate import Gate, GateSettings, allow, switched_off
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


@pytest.mark.requirement("I7", "cause:gate-refused")
def test_a_refusal_switches_everything_off_sends_nothing_and_is_a_fault():
    wanted = Outputs(frozenset({POSITIVE}), (CanFrame(0x221, b"\0"),), registers={301: (3,)}, heartbeat=True)
    _, outputs = allow(Gate(), settings(), wanted, CLOSED_PACK, 360.0, "", 0)
    assert outputs.closed == frozenset()
    assert outputs.registers == {}
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


@pytest.mark.parametrize(("link_v", "passes"), [(None, False), (0.0, False), (341.9, False), (342.0, True)])
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


def test_a_declared_unverified_precharge_needs_no_link_voltage_and_still_its_relay():
    on, told = frozenset({NEGATIVE, PRECHARGE, POSITIVE}), settings(unverified=True)
    behind, without = Gate(frozenset({NEGATIVE, PRECHARGE})), Gate(frozenset({NEGATIVE}))
    assert not refused(allow(behind, told, Outputs(on), FRESH, None, "", 1_000_000)[1])
    assert refused(allow(without, told, Outputs(on), FRESH, None, "", 1_000_000)[1])


@pytest.mark.parametrize(
    ("wiring", "closed", "words"),
    [
        ("own", {POSITIVE}, "positive energised without negative"),
        ("none", {NEGATIVE}, "negative energised, not wired"),
        ("pack+inverter", {POSITIVE}, "positive energised while the pack is not asked to close"),
        ("own", {NEGATIVE, PACK}, "pack energised, not wired"),
    ],
)
def test_a_refusal_says_what_would_have_been(wiring: str, closed: set, words: str):
    assert judge(closed, wiring=wiring).events[-1].detail == words


def test_a_required_feed_is_stale_after_five_rounds_of_100_ms_at_least():
    for feed, age_ms, stale in (
        (Feed.CELLS, 10_000, False), (Feed.CELLS, 10_001, True), (Feed.VOLTAGE, 500, False), (Feed.VOLTAGE, 501, True),
        (Feed.HVIL, 99_999, False),
    ):  # fmt: skip
        feeds = {**FRESH.feeds, feed: Freshness(1_000_000 - age_ms, ROUNDS_MS[feed])}
        outputs = judge({NEGATIVE}, pack=FRESH._replace(feeds=feeds))
        assert refused(outputs) == stale, (feed, age_ms)
        assert not stale or feed.value in outputs.events[-1].detail


def test_what_a_battery_lacks_is_not_required():
    lacks = frozenset({"cell_min_v", "cell_max_v"})
    blind = FRESH._replace(cell_min_v=None, cell_max_v=None, feeds={**FRESH.feeds, Feed.CELLS: Freshness(0, 10)})
    for told, passes in ((settings(lacks=lacks), True), (settings(), False)):
        _, outputs = allow(Gate(), told, Outputs(frozenset({NEGATIVE})), blind, None, "", 1_000_000)
        assert refused(outputs) != passes


def charging(gate: Gate, now_ms: int, on: bool = True) -> tuple[Gate, Outputs]:
    pack = FRESH._replace(feeds={feed: Freshness(now_ms, ROUNDS_MS[feed]) for feed in Feed})
    wanted = Outputs(frozenset({NEGATIVE, PRECHARGE}) if on else frozenset())
    return allow(gate, settings(), wanted, pack, 100.0, "", now_ms)


def test_a_precharge_may_last_its_longest_time_and_two_ticks():
    gate, _ = charging(Gate(), 10_000)
    assert not refused(charging(gate, 12_020)[1])
    outputs = charging(gate, 12_021)[1]
    assert outputs.events[-1].detail == "precharge energised for 2021 ms"
    assert outputs.closed == frozenset()


def test_precharges_are_summed_over_ten_minutes_and_forgotten_after():
    gate = Gate(precharged=((0, 2_000), (10_000, 12_000), (20_000, 22_000)))
    gate, _ = charging(gate, 590_000)
    assert not refused(charging(gate, 590_060)[1])
    assert charging(gate, 590_061)[1].events[-1].detail == "precharge energised for 6061 ms in 10 minutes"
    late, _ = charging(Gate(precharged=gate.precharged), 611_000)
    assert not refused(charging(late, 613_000)[1])  # one second of the second span is left, and the third


@pytest.mark.parametrize(
    ("now_ms", "second_ms", "passes"),
    [(600_000, 2_041, False), (600_000, 2_040, True), (600_005, 2_045, True), (600_005, 2_046, False)],
)
def test_what_of_a_span_is_older_than_ten_minutes_does_not_count(now_ms: int, second_ms: int, passes: bool):
    long_ago = (-9_000, -7_000)
    gate = Gate(
        frozenset({NEGATIVE, PRECHARGE}), now_ms - 2_020, (long_ago, (0, 2_000), (10_000, 10_000 + second_ms))
    )  # fmt: skip
    assert refused(charging(gate, now_ms)[1]) != passes


def test_a_spent_precharge_keeps_down_nothing_else():
    spent = Gate(precharged=((0, 2_000), (10_000, 12_000), (20_000, 23_000)))
    pack = FRESH._replace(feeds={feed: Freshness(30_000, ROUNDS_MS[feed]) for feed in Feed})
    gate, outputs = allow(spent, settings(), Outputs(frozenset({NEGATIVE})), pack, None, "", 30_000)
    assert not refused(outputs)
    assert gate.precharge_since_ms is None
    assert refused(charging(gate, 30_010)[1])


def test_after_ticks_that_broke_the_precharge_was_off_and_so_was_everything_else():
    gate, _ = charging(Gate(), 10_000)
    for back_ms, booked_ms in ((10_400, 400), (50_000, 1_000)):
        after = switched_off(gate, 10_000, back_ms)
        assert (after.closed, after.precharge_since_ms) == (frozenset(), None)
        assert after.precharged == ((10_000, 10_000 + booked_ms),)


def test_every_required_feed_is_looked_at_whatever_their_order():
    stale = {**FRESH.feeds, Feed.CELLS: Freshness(1_000_000 - 10_001, 2_000)}
    assert refused(judge({NEGATIVE}, pack=FRESH._replace(feeds=dict(reversed(stale.items())))))


def test_what_was_energised_is_remembered_as_a_span_and_what_is_old_is_dropped():
    gate, _ = charging(Gate(precharged=((0, 1_000), (500_000, 501_000))), 600_999)
    assert gate.precharge_since_ms == 600_999
    gate, _ = charging(gate, 601_000, on=False)
    assert gate.precharged == ((500_000, 501_000), (600_999, 601_000))
    assert gate.precharge_since_ms is None
    again, _ = charging(gate, 601_010, on=False)
    assert again is gate


def test_a_precharge_beside_positive_is_no_charging():
    both = Outputs(frozenset({NEGATIVE, PRECHARGE, POSITIVE}))
    gate = Gate(frozenset({NEGATIVE, PRECHARGE}), precharge_since_ms=999_000)
    after, outputs = allow(gate, settings(), both, CLOSED_PACK, 360.0, "", 1_000_000)
    assert not refused(outputs)
    assert (after.precharge_since_ms, after.precharged) == (None, ((999_000, 1_000_000),))
    later, outputs = allow(after, settings(), both, CLOSED_PACK, 360.0, "", 1_090_000)
    assert not refused(outputs)
    assert later is after


def test_what_listening_refuses_names_the_frame():
    for told, words in (
        (settings(silent=True), "frame 221 while listening only"),
        (settings(battery_tx=frozenset()), "frame 221 is not on the list of what may be sent"),
    ):
        _, outputs = allow(Gate(), told, Outputs(battery_frames=(CanFrame(0x221, bytes(8)),)), FRESH, None, "", 0)
        assert outputs.events[-1].detail == words


def test_a_refusal_is_remembered_until_it_is_over():
    gate, _ = allow(Gate(), settings(), Outputs(frozenset({POSITIVE})), CLOSED_PACK, 360.0, "", 0)
    assert (gate.closed, gate.refusal) == (frozenset(), "positive energised without negative")
    gate, _ = allow(gate, settings(), Outputs(), CLOSED_PACK, 360.0, "", 10)
    assert gate.refusal == ""


def test_the_inverters_frames_are_judged_by_its_own_list_and_line_bytes_go_with_the_rest():
    wanted = Outputs(inverter_frames=(CanFrame(0x111, bytes(8)),), battery_bytes=b"?", registers={101: (1,)})
    _, outputs = allow(Gate(), settings(), wanted, FRESH, None, "", 0)
    assert refused(outputs)
    assert (outputs.inverter_frames, outputs.battery_bytes, dict(outputs.registers)) == ((), b"", {})
    wanted = Outputs(inverter_frames=(CanFrame(0x110, bytes(8)),), battery_bytes=b"?")
    assert allow(Gate(), settings(), wanted, FRESH, None, "", 0)[1] == wanted
