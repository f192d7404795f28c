"""Steering as values: registers, order and numbers of each brand, and what the pack's limits make of a wish."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from controller.gateway import dispatch
from controller.gateway.brands import (
    BRANDS,
    G_CONTROL,
    G_FLOW,
    G_WHO,
    G_WORK,
    HOLDING,
    S_ALIVE,
    S_BATTERY,
    S_CONTROL,
    S_FLOW,
    S_WHO,
    Fronius,
    GoodWe,
    Inverter,
    Read,
    Refused,
    Site,
    Sungrow,
    Write,
    signed,
    signed32,
)
from controller.gateway.dispatch import Live, Over, Steering, Wish

SUNGROW = Sungrow("Sungrow", "A22", 10_000, mode=2, timeout_s=30)
HEARTBEAT = replace(SUNGROW, mode=3)
FRONIUS = Fronius("Fronius", "29", 11_059, at=40345, full=10_000, timeout_s=300)
GOODWE = GoodWe("GoodWe", "90", 10_000)
AUTOMATIC = {"StorCtl_Mod": 0, "OutWRte": 10_000, "InWRte": 10_000, "InOutWRte_RvrtTms": 0}


def sent(writes: tuple[Write, ...]) -> list[tuple[int, tuple[int, ...]]]:
    """(number in the maker's document, values), in order."""
    return [(write.registers[0].doc, write.values) for write in writes]


def wired(writes: tuple[Write, ...]) -> list[tuple[int, tuple[int, ...]]]:
    return [(write.registers[0].wire, write.values) for write in writes]


# --- the recipes of the note ---


def test_sungrow_power_comes_first_and_mode_last() -> None:
    assert sent(SUNGROW.steer(3000)) == [(13052, (3000,)), (13051, (0xAA,)), (13050, (2,))]
    assert sent(SUNGROW.steer(-3000)) == [(13052, (3000,)), (13051, (0xBB,)), (13050, (2,))]


def test_sungrow_stops_before_it_takes_the_power_away_and_before_the_mode() -> None:
    assert sent(SUNGROW.steer(0)) == [(13051, (0xCC,)), (13052, (0,)), (13050, (2,))]


def test_sungrow_goes_back_by_stop_no_power_mode_and_then_to_what_was_there() -> None:
    usual = {"EMS mode": 0, "forced command": 0xCC, "forced power": 0}
    assert sent(SUNGROW.restore(usual)) == [(13051, (0xCC,)), (13052, (0,)), (13050, (0,))]
    own = {"EMS mode": 0, "forced command": 0xAA, "forced power": 1500}
    assert sent(SUNGROW.restore(own))[3:] == [(13052, (1500,)), (13051, (0xAA,))]


def test_a_sungrow_with_heartbeat_gets_it_before_the_mode() -> None:
    assert sent(HEARTBEAT.steer(3000))[-2:] == [(13080, (30,)), (13050, (3,))]
    assert wired(HEARTBEAT.refresh(3000)) == [(0x3317, (0x1E,))]


def test_sungrow_document_numbers_are_one_above_the_wire() -> None:
    assert wired(SUNGROW.steer(3000)) == [(0x32FB, (0x0BB8,)), (0x32FA, (0xAA,)), (0x32F9, (2,))]


def test_fronius_gets_time_out_then_rates_then_mode_and_a_negative_rate_forces_the_other_direction() -> None:
    half = replace(FRONIUS, max_w=10_000).steer(5000)
    assert wired(half) == [(0x9DA6, (300,)), (0x9DA3, (0xEC78, 0x2710)), (0x9D9C, (2,))]
    assert wired(FRONIUS.steer(3000))[1:] == [(40355, (0xF567, 10_000)), (40348, (2,))]
    assert wired(FRONIUS.steer(-3000))[1:] == [(40355, (10_000, 0xF567)), (40348, (1,))]


def test_fronius_is_idle_with_both_rates_at_nothing() -> None:
    assert wired(FRONIUS.steer(0))[1:] == [(40355, (0, 0)), (40348, (3,))]


def test_a_power_too_small_for_the_rate_is_idle_and_no_open_bound() -> None:
    coarse = replace(FRONIUS, full=100)
    assert wired(coarse.steer(30)) == wired(coarse.steer(0))


def test_fronius_goes_back_by_rates_mode_and_time_out() -> None:
    kept = {"StorCtl_Mod": 1, "OutWRte": 10_000, "InWRte": 5000, "InOutWRte_RvrtTms": 3600}
    assert wired(FRONIUS.restore(kept)) == [(40355, (10_000, 5000)), (40348, (1,)), (40358, (3600,))]


def test_goodwe_gets_mode_and_power_in_one_request() -> None:
    assert wired(GOODWE.steer(3000)) == [(0xB997, (0x0B, 0x0BB8))]
    assert sent(GOODWE.steer(-3000)) == [(47511, (12, 3000))]
    assert sent(GOODWE.steer(0)) == [(47511, (8, 0))]
    assert sent(GOODWE.restore({"EMS mode": 1, "EMS power": 0})) == [(47511, (1, 0))]


def test_each_brand_has_its_own_sign_and_its_own_word_order() -> None:
    assert SUNGROW.battery_w({S_FLOW: (0xF448, 0xFFFF)}) == 3000
    assert GOODWE.battery_w({G_FLOW: (0x0E23, 0x007B, 0x0000, 0x1162, 2)}) == -4450
    assert GOODWE.battery_w({G_FLOW: (0x0E23, 0xFF85, 0xFFFF, 0xEE9E, 3)}) == 4450
    assert (signed(0xF567), signed32(0xFFFF, 0xF448)) == (-2713, -3000)


def test_fronius_battery_power_has_the_scale_factor_that_was_read() -> None:
    block = [0] * 88
    block[2], block[6], block[59], block[79] = 0xFFFF, 4, 31_000, 0
    inverter = replace(FRONIUS, mppt=40255)
    seen = {inverter.polls[0]: (0,) * 24, inverter.polls[1]: tuple(block)}
    assert inverter.battery_w(seen) == 3100
    block[59], block[79], block[2] = 0, 310, 1
    assert inverter.battery_w({**seen, inverter.polls[1]: tuple(block)}) == -3100
    block[6] = 2
    assert inverter.battery_w({**seen, inverter.polls[1]: tuple(block)}) is None


# --- is it that inverter ---

SUNGROW_SEEN = {
    S_WHO: (*(0x4132, 0x3239, 0, 0, 0, 0, 0, 0, 0, 0), 0x0E03, 100), S_BATTERY: (3619, 0, 0, 988),
    S_CONTROL: (0, 0xCC, 0), S_FLOW: (0, 0), S_ALIVE: (0,),
}  # fmt: skip
GOODWE_SEEN = {
    G_WHO: (2, 10_000, 1, *(0x3930,) * 7, 0x4554, *(0x4757, 0x3130, 0x4B2D, 0x4554, 0)), G_WORK: (0,),
    G_FLOW: (3619, 0, 0, 0, 1), G_CONTROL: (1, 0),
}  # fmt: skip


def test_a_sungrow_is_told_by_serial_number_type_and_nominal_power() -> None:
    found = BRANDS["sungrow"](Site("sungrow", "h", sungrow_mode=2), SUNGROW_SEEN)
    assert isinstance(found, Sungrow)
    assert (found.serial, found.max_w, found.polls) == ("A229", 10_000, (S_CONTROL, S_FLOW))


@pytest.mark.parametrize(
    ("read", "n", "value", "why"),
    [
        (S_WHO, 10, 0x2430, "no Sungrow hybrid"),
        (S_WHO, 0, 0xFFFF, "serial number"),
        (S_WHO, 11, 0, "0 W"),
        (S_BATTERY, 0, 0, "battery of 0 V"),
        (S_BATTERY, 0, 0xFFFF, "battery of"),
        (S_BATTERY, 3, 1001, "SoC of 100.1 %"),
    ],
)
def test_a_sungrow_that_cannot_be_is_refused(read: Read, n: int, value: int, why: str) -> None:
    block = list(SUNGROW_SEEN[read])
    block[n] = value
    with pytest.raises(Refused, match=why):
        BRANDS["sungrow"](Site("sungrow", "h"), {**SUNGROW_SEEN, read: tuple(block)})


@pytest.mark.parametrize(
    ("read", "n", "value", "why"),
    [(G_WHO, 11, 0x5858, "no GoodWe"), (G_WORK, 0, 1, "off-grid"), (G_WORK, 0, 9, "work mode"), (G_FLOW, 0, 0, "0 V"),
     (G_WHO, 1, 0, "0 W")],
)  # fmt: skip
def test_a_goodwe_that_cannot_be_is_refused(read: Read, n: int, value: int, why: str) -> None:
    assert isinstance(BRANDS["goodwe"](Site("goodwe", "h"), GOODWE_SEEN), GoodWe)
    block = list(GOODWE_SEEN[read])
    block[n] = value
    with pytest.raises(Refused, match=why):
        BRANDS["goodwe"](Site("goodwe", "h"), {**GOODWE_SEEN, read: tuple(block)})


def test_the_fronius_walk_ends_when_the_list_does_not() -> None:
    site, seen = Site("fronius", "h"), dict[Read, tuple[int, ...]]({Read(HOLDING, 40000, 2): (0x5375, 0x6E53)})
    headers = {Read(HOLDING, 40002 + 4 * n, 2): (77, 2) for n in range(1000)}
    with pytest.raises(Refused, match="no end"):
        BRANDS["fronius"](site, {**seen, **headers})


@pytest.mark.parametrize(
    ("inverter", "kept"),
    [
        (SUNGROW, {"EMS mode": 2, "forced command": 0xCC, "forced power": 0}),
        (SUNGROW, {"EMS mode": 4, "forced command": 0xCC, "forced power": 0}),
        (SUNGROW, {"EMS mode": 0, "forced command": 0, "forced power": 0}),
        (FRONIUS, {**AUTOMATIC, "StorCtl_Mod": 2, "OutWRte": 0xF567}),
        (FRONIUS, {**AUTOMATIC, "StorCtl_Mod": 1, "InWRte": 0xF567}),
        (FRONIUS, {**AUTOMATIC, "StorCtl_Mod": 4}),
        (FRONIUS, {**AUTOMATIC, "OutWRte": 20_000}),
        (GOODWE, {"EMS mode": 11, "EMS power": 3000}),
        (GOODWE, {"EMS mode": 0, "EMS power": 0}),
    ],
)
def test_an_inverter_in_other_hands_or_with_values_that_cannot_be_is_left_alone(
    inverter: Inverter, kept: dict[str, int]
) -> None:
    with pytest.raises(Refused):
        inverter.judge(kept)


def test_a_bound_the_owner_set_himself_is_no_other_hand() -> None:
    FRONIUS.judge({**AUTOMATIC, "StorCtl_Mod": 1, "InWRte": 5000})


# --- what is allowed ---

LIVE = Live(4000.0, 2500.0, running=True, fault=False, at_s=0.0)
CHARGE, DISCHARGE = Wish(3000, True, 7200.0), Wish(3000, False, 7200.0)


def test_the_smallest_of_wish_live_limit_and_bound_counts_in_its_direction() -> None:
    assert dispatch.allowed_w(CHARGE, LIVE, 10_000) == 3000
    assert dispatch.allowed_w(DISCHARGE, LIVE, 10_000) == -2500
    assert dispatch.allowed_w(CHARGE, LIVE, 1000) == 1000


@pytest.mark.parametrize("limit_w", [0.0, -5.0, 0.9, float("nan")])
def test_no_limit_to_speak_of_is_idle(limit_w: float) -> None:
    assert dispatch.allowed_w(CHARGE, LIVE._replace(charge_w=limit_w), 10_000) == 0


@pytest.mark.parametrize(
    ("live", "why"),
    [(None, "not heard"), (LIVE._replace(at_s=-3.1), "not heard"), (LIVE._replace(at_s=float("nan")), "not heard"),
     (LIVE._replace(running=False), "not RUNNING"), (LIVE._replace(fault=True), "fault"), (LIVE, "")],
)  # fmt: skip
def test_a_pack_that_is_lost_faulty_or_not_running_is_not_steered(live: Live | None, why: str) -> None:
    assert why in dispatch.unfit(live, 0.0)
    assert bool(why) == bool(dispatch.unfit(live, 0.0))


def test_power_rises_in_steps_falls_at_once_and_turns_only_by_way_of_nothing() -> None:
    assert dispatch.ramped(0, 3000, 2.0) == 1000
    assert dispatch.ramped(-1000, -3000, 2.0) == -2000
    assert dispatch.ramped(3000, 1200, 2.0) == 1200
    assert dispatch.ramped(3000, 0, 2.0) == 0
    assert dispatch.ramped(3000, -3000, 2.0) == 0


# --- the steps ---


def seen_of(s: Steering, battery_w: int = 0) -> dict[Read, tuple[int, ...]]:
    """A poll of a Sungrow that holds what it was told."""
    low, high = -battery_w & 0xFFFF, -battery_w >> 16 & 0xFFFF
    mode, command, power = (s.known[name] for name in ("EMS mode", "forced command", "forced power"))
    return {S_CONTROL: (mode, command, power), S_FLOW: (low, high), S_ALIVE: (20,)}


def begun(inverter: Inverter = SUNGROW, wish: Wish = CHARGE) -> Steering:
    seen = {S_CONTROL: (0, 0xCC, 0), S_FLOW: (0, 0), S_ALIVE: (0,)}
    return dispatch.begin(Site("sungrow", "h"), inverter, seen, wish, 5000.0)


def stepped(s: Steering, live: Live, now_s: float, battery_w: int = 0) -> tuple[Steering, list[tuple[int, int]]]:
    moved = dispatch.step(s, live._replace(at_s=now_s), seen_of(s, battery_w), now_s)
    assert not isinstance(moved, Over), moved
    return moved[0], [(write.registers[0].doc, write.values[0]) for write in moved[1]]


def test_only_what_changes_is_written() -> None:
    s, first = stepped(begun(), LIVE, 0.0)
    assert first == [(13052, 1000), (13051, 0xAA), (13050, 2)]
    s, second = stepped(s, LIVE, 2.0)
    s, third = stepped(s, LIVE, 4.0)
    s, fourth = stepped(s, LIVE, 6.0)
    assert (second, third, fourth) == ([(13052, 2000)], [(13052, 3000)], [])


def test_a_falling_limit_is_followed_at_once_and_a_small_rise_is_left_alone() -> None:
    s = begun()
    for at_s in (0.0, 2.0, 4.0):
        s, _ = stepped(s, LIVE, at_s)
    s, down = stepped(s, LIVE._replace(charge_w=1200.0), 6.0)
    s, small = stepped(s, LIVE._replace(charge_w=1299.0), 8.0)
    s, large = stepped(s, LIVE._replace(charge_w=1300.0), 10.0)
    assert (down, small, large) == ([(13052, 1200)], [], [(13052, 1300)])


def test_a_small_rise_up_to_what_was_asked_is_made() -> None:
    s, _ = stepped(begun(wish=Wish(950, True, 7200.0)), LIVE._replace(charge_w=900.0), 0.0)
    s, writes = stepped(s, LIVE, 2.0)
    assert writes == [(13052, 950)]


def test_a_limit_of_nothing_makes_it_idle_and_it_comes_back_by_itself() -> None:
    s, _ = stepped(begun(), LIVE, 0.0)
    s, idle = stepped(s, LIVE._replace(charge_w=0.0), 2.0)
    assert idle == [(13051, 0xCC), (13052, 0)]
    s, again = stepped(s, LIVE, 4.0)
    assert again == [(13052, 1000), (13051, 0xAA)]


def test_the_other_direction_is_reached_by_way_of_idle() -> None:
    s, _ = stepped(begun(), LIVE, 0.0)
    s, idle = stepped(replace(s, wish=DISCHARGE), LIVE, 2.0)
    s, other = stepped(s, LIVE, 4.0)
    assert (idle, other) == ([(13051, 0xCC), (13052, 0)], [(13052, 1000), (13051, 0xBB)])


def test_a_time_out_is_refreshed_at_half_its_time_and_no_sooner() -> None:
    s, first = stepped(begun(HEARTBEAT, Wish(1000, True, 7200.0)), LIVE, 0.0)
    assert first[-2:] == [(13080, 30), (13050, 3)]
    written = []
    for at_s in range(2, 62, 2):
        s, writes = stepped(s, LIVE, float(at_s))
        written += [(at_s, write) for write in writes]
    assert [at_s for at_s, _ in written] == [16, 32, 48]
    assert {write for _, write in written} == {(13080, 30)}


def test_a_fronius_is_reminded_of_everything_in_order() -> None:
    kept = dict(AUTOMATIC)
    s = Steering(Site("fronius", "h"), FRONIUS, Wish(1000, True, 7200.0), kept, kept, 5000)

    def poll(s: Steering) -> dict[Read, tuple[int, ...]]:
        block = [0] * 24
        block[3], block[10], block[11], block[13] = (s.known[n] for n in AUTOMATIC)
        return {FRONIUS.polls[0]: tuple(block)}

    docs = []
    for at_s in range(0, 152, 2):
        moved = dispatch.step(s, LIVE._replace(at_s=at_s), poll(s), float(at_s))
        assert not isinstance(moved, Over)
        s, writes = moved
        docs += [(at_s, write.registers[0].name) for write in writes]
    names = ["InOutWRte_RvrtTms", "OutWRte", "StorCtl_Mod"]
    assert docs == [(0, name) for name in names] + [(150, name) for name in names]


def test_it_is_over_when_its_time_is() -> None:
    s, _ = stepped(begun(wish=Wish(1000, True, 10.0)), LIVE, 0.0)
    s, _ = stepped(s, LIVE, 9.9)
    assert isinstance(dispatch.step(s, LIVE._replace(at_s=10.0), seen_of(s), 10.0), Over)


@pytest.mark.parametrize(
    "live", [None, LIVE, LIVE._replace(at_s=5.0, fault=True), LIVE._replace(at_s=5.0, running=False)]
)
def test_it_is_over_when_the_pack_is_lost_faulty_or_open(live: Live | None) -> None:
    s, _ = stepped(begun(), LIVE, 0.0)
    assert isinstance(dispatch.step(s, live, seen_of(s), 5.0), Over)


def test_it_is_over_when_somebody_else_writes() -> None:
    s, _ = stepped(begun(), LIVE, 0.0)
    moved = dispatch.step(s, LIVE._replace(at_s=2.0), {**seen_of(s), S_CONTROL: (0, 0xAA, 1000)}, 2.0)
    assert isinstance(moved, Over)
    assert "EMS mode holds 0, not 2" in moved.why


def test_it_is_over_when_the_battery_gets_more_than_its_limit_for_six_seconds() -> None:
    s = begun()
    for at_s in (0.0, 2.0, 4.0):
        s, _ = stepped(s, LIVE, at_s, battery_w=5001)
    assert isinstance(dispatch.step(s, LIVE._replace(at_s=6.0), seen_of(s, 5001), 6.0), Over)
    s, _ = stepped(s, LIVE, 6.0, battery_w=5000)
    s, _ = stepped(s, LIVE, 8.0, battery_w=5001)
    assert s.over_since_s == 8.0


def test_the_plan_says_number_name_old_and_new() -> None:
    s = begun()
    rows = [row for write in dispatch.planned(s, LIVE) for row in dispatch.words(write, s.known)]
    assert [(row["register"], row["old"], row["new"]) for row in rows] == [
        (13052, 0, 3000), (13051, 0xCC, 0xAA), (13050, 0, 2),
    ]  # fmt: skip
    assert [row["text"] for row in rows] == ["0 W → 3000 W", "stop → charge", "self-consumption → forced"]


def test_attempts_to_put_back_grow_rarer_up_to_a_minute() -> None:
    waits = [dispatch.back_off_s(tries) for tries in range(1, 12)]
    assert waits[:3] == [2.0, 4.0, 8.0]
    assert waits[-1] == 60.0
    assert all(a <= b for a, b in pairwise(waits))
