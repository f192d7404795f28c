"""Each property by itself, against single steps: what it must find, and what it must leave alone."""

from dataclasses import replace
from enum import Enum
from itertools import pairwise

import pytest

from statecharts import interlocks as rules
from statecharts.chart import Row
from statecharts.explore import Counterexample, Exploration, Node, Step, unbounded_stay, unreached
from statecharts.interlocks import INTERLOCKS, WITNESSES, explorations_of, verify
from statecharts.shadow import SHADOW
from statecharts.supervisor import SUPERVISOR, Contactor, Guard, State

S, G = State, Guard
CHARGED, PACK_CLOSED = frozenset({G.LINK_CHARGED}), frozenset({G.PACK_CLOSED})
FUSE = (G.ABOVE_BREAK_MAX,)


def step(source: State, target: State, *true: Guard, wiring: str = "own", witnessed: frozenset = CHARGED) -> Step:
    """One tick from a state to another (or the same, held by a row)."""
    row = Row(source, true or (G.READY,), target, "tried")
    return Step(wiring, Node(source, witnessed), frozenset(true), row, Node(target, witnessed))


def stays(state: State, *true: Guard, wiring: str = "own") -> Step:
    """No row fires."""
    return replace(step(state, state, *true, wiring=wiring), row=None)


FOUND: list[tuple] = [
    (rules.states_follow_in_order, step(S.PRECHARGING, S.RUNNING)),
    (rules.states_follow_in_order, step(S.STANDBY, S.PRECHARGING)),
    (rules.wirings_skip_what_they_lack, step(S.STANDBY, S.CLOSING_NEGATIVE, wiring="pack")),
    (rules.wirings_skip_what_they_lack, step(S.STANDBY, S.WAKING_PACK, wiring="own")),
    (rules.wirings_skip_what_they_lack, step(S.WAKING_PACK, S.CLOSING_POSITIVE, wiring="pack")),
    (rules.wirings_skip_what_they_lack, step(S.UNLOADING, S.OPENING_POSITIVE, wiring="none")),
    (rules.healthy_goes_on, stays(S.COOLING_DOWN, G.COOLED)),
    (rules.healthy_goes_on, step(S.STARTING, S.VERIFYING_OPEN, G.SELF_TESTED, G.SIGNALS_SEEN)),
    (rules.healthy_goes_on, stays(S.STARTING, G.SIGNALS_OVERDUE)),
    (rules.healthy_goes_on, step(S.STARTING, S.FAULT, G.SELF_TESTED, G.SIGNALS_OVERDUE)),
    (rules.healthy_goes_on, step(S.STANDBY, S.FAULT, G.READY)),
    (rules.healthy_goes_on, stays(S.LOCKED_OUT, G.UNLOCKED)),
    (rules.positive_needs_a_charged_link, step(S.PRECHARGING, S.CLOSING_POSITIVE, witnessed=frozenset())),
    (rules.pack_runs_only_when_it_says_closed, step(S.WAKING_PACK, S.RUNNING, wiring="pack")),
    (rules.pack_runs_only_when_it_says_closed, step(S.WAKING_PACK, S.CLOSING_POSITIVE, wiring="pack+inverter")),
    *((rules.nothing_rises_on_suspicion, step(S.CLOSING_NEGATIVE, S.PRECHARGING, guard))
      for guard in (G.OPEN_NOW, G.STOP, G.WELDED, G.SUSPECTED)),
    *((rules.only_ready_energises, step(S.STANDBY, S.CLOSING_NEGATIVE, G.READY, guard))
      for guard in (G.OPEN_NOW, G.STOP, G.WELDED, G.FAULTED, G.SUSPECTED)),
    (rules.only_ready_energises, step(S.STANDBY, S.CLOSING_NEGATIVE, G.SIGNALS_SEEN)),
    (rules.only_ready_energises, step(S.COOLING_DOWN, S.CLOSING_NEGATIVE, G.READY)),
    *((rules.immediate_causes_open_in_the_same_tick, stays(state, G.OPEN_NOW))
      for state in (S.CLOSING_NEGATIVE, S.PRECHARGING, S.CLOSING_POSITIVE, S.RUNNING, S.UNLOADING)),
    (rules.immediate_causes_open_in_the_same_tick, step(S.RUNNING, S.UNLOADING, G.OPEN_NOW)),
    (rules.immediate_causes_open_in_the_same_tick, step(S.UNLOADING, S.OPENING_POSITIVE, G.OPEN_NOW, *FUSE)),
    (rules.immediate_causes_open_in_the_same_tick, step(S.RUNNING, S.RUNNING, G.OPEN_NOW, *FUSE, G.FUSE_OVERDUE)),
    (rules.immediate_causes_open_in_the_same_tick, step(S.RUNNING, S.RUNNING, G.OPEN_NOW, *FUSE, wiring="pack")),
    (rules.immediate_causes_open_in_the_same_tick, step(S.PRECHARGING, S.PRECHARGING, G.OPEN_NOW, *FUSE)),
    (rules.immediate_causes_open_in_the_same_tick, stays(S.RUNNING, G.OPEN_NOW, *FUSE)),
    *((rules.graceful_causes_win, step(S.PRECHARGING, S.CLOSING_POSITIVE, guard)) for guard in (G.STOP, G.WELDED)),
    *((rules.graceful_causes_win, step(S.RUNNING, S.VERIFYING_OPEN, guard)) for guard in (G.STOP, G.WELDED)),
    (rules.graceful_causes_win, stays(S.RUNNING, G.STOP)),
    (rules.graceful_causes_win, step(S.RUNNING, S.RUNNING, G.STOP, *FUSE)),
    (rules.graceful_causes_win, step(S.PRECHARGING, S.PRECHARGING, G.STOP, *FUSE)),
    *((rules.the_fuse_is_waited_for, step(state, S.VERIFYING_OPEN, G.OPEN_NOW, *FUSE))
      for state in (S.CLOSING_POSITIVE, S.RUNNING, S.UNLOADING, S.OPENING_POSITIVE)),
    (rules.the_fuse_is_waited_for, step(S.UNLOADING, S.OPENING_POSITIVE, G.UNLOAD_OVERDUE, *FUSE)),
    (rules.the_fuse_is_waited_for, step(S.RUNNING, S.VERIFYING_OPEN, *FUSE, wiring="pack+inverter")),
    (rules.load_is_waited_for, step(S.RUNNING, S.VERIFYING_OPEN, G.STOP)),
    (rules.load_is_waited_for, step(S.RUNNING, S.OPENING_POSITIVE, G.UNLOADED)),
    (rules.load_is_waited_for, step(S.UNLOADING, S.OPENING_POSITIVE, G.STOP)),
    (rules.load_is_waited_for, step(S.UNLOADING, S.VERIFYING_OPEN, G.UNLOADED)),
    (rules.load_is_waited_for, step(S.UNLOADING, S.VERIFYING_OPEN, G.UNLOAD_OVERDUE, wiring="pack+inverter")),
    (rules.the_way_down_never_turns_back, step(S.OPENING_POSITIVE, S.RUNNING)),
    (rules.the_way_down_never_turns_back, step(S.UNLOADING, S.CLOSING_POSITIVE)),
    (rules.what_opened_is_checked, step(S.STARTING, S.STANDBY, G.PACK_FOUND_CLOSED)),
    (rules.what_opened_is_checked, stays(S.STARTING, G.PACK_FOUND_CLOSED)),
    (rules.what_opened_is_checked, step(S.VERIFYING_OPEN, S.STANDBY, G.FAULTED)),
    (rules.what_opened_is_checked, step(S.UNLOADING, S.STANDBY, G.UNLOADED)),
    (rules.what_opened_is_checked, step(S.OPENING_POSITIVE, S.FAULT, G.BROKEN)),
    (rules.what_opened_is_checked, step(S.RUNNING, S.FAULT, G.FAULTED)),
    (rules.what_opened_is_checked, step(S.PRECHARGING, S.FAULT, G.OPEN_NOW)),
    (rules.what_opened_is_checked, step(S.PRECHARGING, S.LOCKED_OUT, G.OPEN_NOW, G.WELDED)),
    (rules.what_opened_is_checked, step(S.WAKING_PACK, S.FAULT, G.STOP, wiring="pack")),
    (rules.a_failing_closing_goes_no_further, step(S.PRECHARGING, S.CLOSING_POSITIVE, G.PRECHARGE_FAILED)),
    (rules.a_failing_closing_goes_no_further, stays(S.PRECHARGING, G.PRECHARGE_OVERDUE)),
    (rules.a_failing_closing_goes_no_further, step(S.PRECHARGING, S.STANDBY, G.PRECHARGE_OVERDUE)),
    *((rules.a_failing_closing_goes_no_further, step(S.WAKING_PACK, S.RUNNING, guard, wiring="pack"))
      for guard in (G.PACK_REFUSES, G.LINK_LOADED, G.WAKING_OVERDUE)),
    (rules.a_failing_closing_goes_no_further, step(S.WAKING_PACK, S.COOLING_DOWN, G.PACK_REFUSES, wiring="pack")),
    (rules.a_failing_closing_goes_no_further, step(S.WAKING_PACK, S.FAULT, G.LINK_LOADED, wiring="pack")),
    (rules.precharging_is_entered_only_confirmed, step(S.CLOSING_NEGATIVE, S.PRECHARGING, G.SETTLED)),
    (rules.precharging_is_entered_only_confirmed, step(S.CLOSING_NEGATIVE, S.PRECHARGING, G.NEGATIVE_CONFIRMED)),
    (rules.running_is_entered_only_confirmed, step(S.CLOSING_POSITIVE, S.RUNNING, G.OVERLAPPED)),
    (rules.running_is_entered_only_confirmed, step(S.CLOSING_POSITIVE, S.RUNNING, G.POSITIVE_CONFIRMED)),
    *((rules.running_is_entered_only_confirmed,
       step(S.CLOSING_POSITIVE, S.RUNNING, G.OVERLAPPED, G.POSITIVE_CONFIRMED, guard))
      for guard in (G.OPEN_NOW, G.STOP)),
    (rules.running_is_entered_only_confirmed, step(S.STANDBY, S.RUNNING, G.READY, G.SUSPECTED, wiring="none")),
    (rules.running_is_entered_only_confirmed, step(S.STANDBY, S.RUNNING, G.SIGNALS_SEEN, wiring="none")),
    (rules.running_is_entered_only_confirmed, step(S.STANDBY, S.RUNNING, G.READY, wiring="own")),
    (rules.running_is_entered_only_confirmed, step(S.WAKING_PACK, S.RUNNING, G.SETTLED, wiring="pack")),
    (rules.running_is_entered_only_confirmed, step(S.WAKING_PACK, S.RUNNING, G.PACK_CLOSED, wiring="pack+inverter")),
    (rules.running_is_entered_only_confirmed,
     step(S.CLOSING_POSITIVE, S.RUNNING, G.OVERLAPPED, G.POSITIVE_CONFIRMED, wiring="pack")),
    (rules.running_is_entered_only_confirmed, step(S.FAULT, S.RUNNING, G.READY)),
    (rules.standby_is_entered_only_checked, step(S.STARTING, S.STANDBY, G.SELF_TESTED)),
    (rules.standby_is_entered_only_checked, step(S.STARTING, S.STANDBY, G.SIGNALS_SEEN)),
    (rules.standby_is_entered_only_checked, step(S.STARTING, S.STANDBY, G.SIGNALS_OVERDUE)),
    (rules.standby_is_entered_only_checked, step(S.COOLING_DOWN, S.STANDBY, G.SELF_TESTED)),
    (rules.standby_is_entered_only_checked, step(S.FAULT, S.STANDBY, G.COOLED)),
    (rules.standby_is_entered_only_checked, step(S.RUNNING, S.STANDBY, G.SELF_TESTED)),
    (rules.standby_is_entered_only_checked, step(S.VERIFYING_OPEN, S.STANDBY, G.SELF_TESTED)),
    (rules.standby_is_entered_only_checked, step(S.LOCKED_OUT, S.STANDBY, G.SELF_TESTED)),
    *((rules.standby_is_entered_only_checked, step(S.FAULT, S.STANDBY, G.SELF_TESTED, guard))
      for guard in (G.FAULTED, G.WELDED)),
    *((rules.faults_are_held, step(state, S.STANDBY, G.FAULTED, G.SELF_TESTED))
      for state in (S.STARTING, S.STANDBY, S.COOLING_DOWN, S.FAULT)),
    (rules.faults_are_held, step(S.STARTING, S.VERIFYING_OPEN, G.FAULTED)),
    (rules.faults_are_held, step(S.STANDBY, S.FAULT, G.STOP)),
    (rules.faults_are_held, step(S.STANDBY, S.LOCKED_OUT, G.FAULTED)),
    (rules.only_a_person_unlocks, step(S.LOCKED_OUT, S.STANDBY, G.SELF_TESTED)),
    (rules.only_a_person_unlocks, step(S.LOCKED_OUT, S.FAULT, G.UNLOCKED)),
    *((rules.a_weld_locks_out, step(state, S.FAULT, G.WELDED))
      for state in (S.STARTING, S.STANDBY, S.COOLING_DOWN, S.VERIFYING_OPEN, S.FAULT, S.PRECHARGING)),
    (rules.a_weld_locks_out, step(S.STANDBY, S.VERIFYING_OPEN, G.WELDED, G.OPEN_NOW)),
    (rules.a_weld_locks_out, step(S.PRECHARGING, S.VERIFYING_OPEN, G.WELDED, G.STOP)),
]  # fmt: skip

FINE: list[tuple] = [
    (rules.states_follow_in_order, step(S.PRECHARGING, S.CLOSING_POSITIVE)),
    (rules.states_follow_in_order, stays(S.PRECHARGING)),
    (rules.wirings_skip_what_they_lack, step(S.WAKING_PACK, S.CLOSING_POSITIVE, wiring="pack+inverter")),
    (rules.wirings_skip_what_they_lack, step(S.STANDBY, S.RUNNING, wiring="none")),
    (rules.healthy_goes_on, step(S.STARTING, S.STANDBY, G.SELF_TESTED, G.SIGNALS_SEEN)),
    (rules.healthy_goes_on, step(S.STARTING, S.FAULT, G.SIGNALS_OVERDUE)),
    (rules.healthy_goes_on, stays(S.COOLING_DOWN, G.SETTLED)),
    *((rules.healthy_goes_on, stays(S.COOLING_DOWN, G.COOLED, guard))
      for guard in (G.OPEN_NOW, G.STOP, G.WELDED, G.FAULTED, G.SUSPECTED, G.ABOVE_BREAK_MAX, G.PACK_REFUSES,
                    G.LINK_LOADED, G.PRECHARGE_FAILED, G.PACK_FOUND_CLOSED, G.WAKING_OVERDUE, G.SIGNALS_OVERDUE)),
    (rules.positive_needs_a_charged_link, step(S.PRECHARGING, S.CLOSING_POSITIVE)),
    (rules.positive_needs_a_charged_link, step(S.STANDBY, S.CLOSING_NEGATIVE, witnessed=frozenset())),
    (rules.pack_runs_only_when_it_says_closed, step(S.WAKING_PACK, S.RUNNING, wiring="pack", witnessed=PACK_CLOSED)),
    (rules.pack_runs_only_when_it_says_closed, step(S.STANDBY, S.WAKING_PACK, wiring="pack")),
    (rules.pack_runs_only_when_it_says_closed, step(S.PRECHARGING, S.CLOSING_POSITIVE)),
    (rules.nothing_rises_on_suspicion, step(S.PRECHARGING, S.VERIFYING_OPEN, G.STOP)),
    (rules.nothing_rises_on_suspicion, stays(S.PRECHARGING, G.SUSPECTED)),
    (rules.nothing_rises_on_suspicion, step(S.CLOSING_NEGATIVE, S.PRECHARGING, G.FAULTED)),
    (rules.only_ready_energises, step(S.STANDBY, S.CLOSING_NEGATIVE, G.READY)),
    (rules.only_ready_energises, step(S.CLOSING_NEGATIVE, S.PRECHARGING, G.SETTLED)),
    (rules.only_ready_energises, step(S.STARTING, S.STANDBY, G.STOP)),
    (rules.immediate_causes_open_in_the_same_tick, step(S.RUNNING, S.VERIFYING_OPEN, G.OPEN_NOW)),
    (rules.immediate_causes_open_in_the_same_tick, stays(S.STANDBY, G.OPEN_NOW)),
    (rules.immediate_causes_open_in_the_same_tick, stays(S.RUNNING, G.STOP)),
    *((rules.immediate_causes_open_in_the_same_tick, step(state, state, G.OPEN_NOW, *FUSE))
      for state in (S.CLOSING_POSITIVE, S.RUNNING, S.UNLOADING, S.OPENING_POSITIVE)),
    (rules.immediate_causes_open_in_the_same_tick,
     step(S.RUNNING, S.RUNNING, G.OPEN_NOW, *FUSE, wiring="pack+inverter")),
    (rules.graceful_causes_win, step(S.PRECHARGING, S.VERIFYING_OPEN, G.STOP)),
    (rules.graceful_causes_win, step(S.RUNNING, S.UNLOADING, G.WELDED)),
    (rules.graceful_causes_win, step(S.RUNNING, S.VERIFYING_OPEN, G.STOP, G.OPEN_NOW)),
    (rules.graceful_causes_win, step(S.RUNNING, S.RUNNING, G.STOP, G.OPEN_NOW, *FUSE)),
    (rules.graceful_causes_win, step(S.CLOSING_POSITIVE, S.CLOSING_POSITIVE, G.STOP, *FUSE)),
    (rules.graceful_causes_win, stays(S.PRECHARGING, G.SUSPECTED)),
    (rules.graceful_causes_win, stays(S.UNLOADING, G.STOP)),
    (rules.the_fuse_is_waited_for, step(S.RUNNING, S.UNLOADING, G.STOP, *FUSE)),
    (rules.the_fuse_is_waited_for, step(S.RUNNING, S.VERIFYING_OPEN, G.OPEN_NOW)),
    (rules.the_fuse_is_waited_for, step(S.RUNNING, S.VERIFYING_OPEN, G.OPEN_NOW, *FUSE, G.FUSE_OVERDUE)),
    (rules.the_fuse_is_waited_for, step(S.RUNNING, S.VERIFYING_OPEN, G.OPEN_NOW, *FUSE, wiring="pack")),
    (rules.the_fuse_is_waited_for, step(S.UNLOADING, S.OPENING_POSITIVE, G.UNLOADED, *FUSE)),
    (rules.the_fuse_is_waited_for, step(S.PRECHARGING, S.VERIFYING_OPEN, G.OPEN_NOW, *FUSE)),
    (rules.the_fuse_is_waited_for, step(S.CLOSING_POSITIVE, S.RUNNING, G.OVERLAPPED, *FUSE)),
    (rules.load_is_waited_for, step(S.UNLOADING, S.OPENING_POSITIVE, G.UNLOADED)),
    (rules.load_is_waited_for, step(S.UNLOADING, S.OPENING_POSITIVE, G.UNLOAD_OVERDUE)),
    (rules.load_is_waited_for, step(S.UNLOADING, S.VERIFYING_OPEN, G.UNLOADED, wiring="pack")),
    (rules.load_is_waited_for, step(S.RUNNING, S.VERIFYING_OPEN, G.OPEN_NOW)),
    (rules.load_is_waited_for, step(S.RUNNING, S.UNLOADING, G.STOP)),
    (rules.load_is_waited_for, step(S.PRECHARGING, S.VERIFYING_OPEN, G.STOP)),
    (rules.the_way_down_never_turns_back, step(S.UNLOADING, S.OPENING_POSITIVE)),
    (rules.the_way_down_never_turns_back, step(S.PRECHARGING, S.CLOSING_POSITIVE)),
    (rules.what_opened_is_checked, step(S.STARTING, S.VERIFYING_OPEN, G.PACK_FOUND_CLOSED)),
    (rules.what_opened_is_checked, step(S.STARTING, S.LOCKED_OUT, G.PACK_FOUND_CLOSED, G.WELDED)),
    (rules.what_opened_is_checked, step(S.STARTING, S.STANDBY, G.SELF_TESTED)),
    (rules.what_opened_is_checked, stays(S.VERIFYING_OPEN, G.FAULTED)),
    *((rules.what_opened_is_checked, step(S.VERIFYING_OPEN, S.FAULT, verdict))
      for verdict in (G.OPEN_CHECKED, G.VERIFY_OVERDUE, G.WELDED)),
    (rules.what_opened_is_checked, step(S.UNLOADING, S.VERIFYING_OPEN, G.UNLOADED)),
    (rules.what_opened_is_checked, step(S.PRECHARGING, S.COOLING_DOWN, G.PRECHARGE_FAILED)),
    (rules.what_opened_is_checked, step(S.PRECHARGING, S.LOCKED_OUT, G.STOP, G.WELDED)),
    (rules.what_opened_is_checked, step(S.WAKING_PACK, S.FAULT, G.PACK_REFUSES, wiring="pack")),
    (rules.what_opened_is_checked, step(S.FAULT, S.STANDBY, G.OPEN_NOW)),
    (rules.what_opened_is_checked, step(S.RUNNING, S.UNLOADING, G.STOP)),
    (rules.a_failing_closing_goes_no_further, step(S.PRECHARGING, S.COOLING_DOWN, G.PRECHARGE_FAILED)),
    (rules.a_failing_closing_goes_no_further, step(S.PRECHARGING, S.VERIFYING_OPEN, G.PRECHARGE_FAILED, G.STOP)),
    (rules.a_failing_closing_goes_no_further, step(S.PRECHARGING, S.CLOSING_POSITIVE, G.LINK_CHARGED)),
    (rules.a_failing_closing_goes_no_further, step(S.WAKING_PACK, S.FAULT, G.PACK_REFUSES, wiring="pack")),
    (rules.a_failing_closing_goes_no_further,
     step(S.WAKING_PACK, S.COOLING_DOWN, G.PACK_REFUSES, G.LINK_LOADED, wiring="pack")),
    (rules.a_failing_closing_goes_no_further, stays(S.RUNNING, G.PRECHARGE_FAILED)),
    (rules.precharging_is_entered_only_confirmed,
     step(S.CLOSING_NEGATIVE, S.PRECHARGING, G.NEGATIVE_CONFIRMED, G.SETTLED)),
    (rules.precharging_is_entered_only_confirmed, stays(S.PRECHARGING)),
    (rules.precharging_is_entered_only_confirmed, step(S.PRECHARGING, S.CLOSING_POSITIVE)),
    (rules.running_is_entered_only_confirmed,
     step(S.CLOSING_POSITIVE, S.RUNNING, G.OVERLAPPED, G.POSITIVE_CONFIRMED, G.SUSPECTED)),
    (rules.running_is_entered_only_confirmed, step(S.STANDBY, S.RUNNING, G.READY, wiring="none")),
    (rules.running_is_entered_only_confirmed, step(S.WAKING_PACK, S.RUNNING, G.PACK_CLOSED, wiring="pack")),
    (rules.running_is_entered_only_confirmed, stays(S.RUNNING, G.STOP)),
    (rules.running_is_entered_only_confirmed, step(S.RUNNING, S.UNLOADING, G.STOP)),
    (rules.standby_is_entered_only_checked, step(S.STARTING, S.STANDBY, G.SELF_TESTED, G.SIGNALS_SEEN)),
    (rules.standby_is_entered_only_checked, step(S.STARTING, S.STANDBY, G.SELF_TESTED, G.SIGNALS_OVERDUE)),
    (rules.standby_is_entered_only_checked, step(S.VERIFYING_OPEN, S.STANDBY, G.OPEN_CHECKED)),
    (rules.standby_is_entered_only_checked, step(S.VERIFYING_OPEN, S.STANDBY, G.VERIFY_OVERDUE)),
    (rules.standby_is_entered_only_checked, step(S.COOLING_DOWN, S.STANDBY, G.COOLED)),
    (rules.standby_is_entered_only_checked, step(S.FAULT, S.STANDBY, G.SELF_TESTED)),
    (rules.standby_is_entered_only_checked, step(S.LOCKED_OUT, S.STANDBY, G.UNLOCKED, G.WELDED)),
    (rules.standby_is_entered_only_checked, stays(S.STANDBY, G.FAULTED)),
    (rules.standby_is_entered_only_checked, step(S.VERIFYING_OPEN, S.FAULT)),
    (rules.faults_are_held, step(S.STANDBY, S.FAULT, G.FAULTED)),
    (rules.faults_are_held, step(S.STANDBY, S.LOCKED_OUT, G.FAULTED, G.WELDED)),
    (rules.faults_are_held, stays(S.FAULT, G.FAULTED)),
    (rules.faults_are_held, stays(S.FAULT)),
    (rules.faults_are_held, stays(S.LOCKED_OUT)),
    (rules.faults_are_held, step(S.STARTING, S.VERIFYING_OPEN, G.FAULTED, G.PACK_FOUND_CLOSED)),
    (rules.faults_are_held, step(S.WAKING_PACK, S.FAULT, G.PACK_REFUSES, wiring="pack")),
    (rules.faults_are_held, step(S.STARTING, S.FAULT, G.SIGNALS_OVERDUE)),
    (rules.faults_are_held, stays(S.RUNNING, G.FAULTED)),
    (rules.only_a_person_unlocks, step(S.LOCKED_OUT, S.STANDBY, G.UNLOCKED)),
    (rules.only_a_person_unlocks, stays(S.LOCKED_OUT)),
    (rules.only_a_person_unlocks, step(S.FAULT, S.STANDBY)),
    (rules.a_weld_locks_out, step(S.STANDBY, S.LOCKED_OUT, G.WELDED)),
    (rules.a_weld_locks_out, stays(S.STANDBY)),
    *((rules.a_weld_locks_out, stays(state, G.WELDED)) for state in (S.RUNNING, S.UNLOADING, S.OPENING_POSITIVE)),
    (rules.a_weld_locks_out, step(S.PRECHARGING, S.VERIFYING_OPEN, G.WELDED, G.OPEN_NOW)),
    (rules.a_weld_locks_out, step(S.CLOSING_POSITIVE, S.CLOSING_POSITIVE, G.WELDED, *FUSE)),
    (rules.a_weld_locks_out, step(S.LOCKED_OUT, S.STANDBY, G.WELDED, G.UNLOCKED)),
]  # fmt: skip


def words(case: tuple) -> str:
    interlock, tried = case
    true = ",".join(sorted(g.name for g in tried.true))
    return f"{interlock.__name__} {tried.source.state}-{tried.target.state} {tried.wiring} {true}"


@pytest.mark.parametrize("case", FOUND, ids=words)
def test_it_is_found_and_named(case: tuple):
    interlock, tried = case
    what = interlock(SUPERVISOR, tried)
    assert what is not None
    assert tried.source.state.name in what or tried.target.state.name in what


@pytest.mark.parametrize("case", FINE, ids=words)
def test_it_is_left_alone(case: tuple):
    interlock, tried = case
    assert interlock(SUPERVISOR, tried) is None


@pytest.mark.parametrize(
    ("interlock", "tried", "words"),
    [
        (rules.faults_are_held, step(S.STANDBY, S.FAULT), "STANDBY leads to FAULT although nothing"),
        (rules.faults_are_held, step(S.STANDBY, S.FAULT, G.STOP, G.READY),
         "STANDBY leads to FAULT although READY, STOP"),
        (rules.load_is_waited_for, step(S.UNLOADING, S.VERIFYING_OPEN, G.UNLOADED),
         "UNLOADING opens negative, positive at once; positive must break alone"),
        (rules.nothing_rises_on_suspicion, step(S.CLOSING_NEGATIVE, S.PRECHARGING, G.STOP, G.SETTLED),
         "CLOSING_NEGATIVE energises precharge although STOP"),
        (rules.only_ready_energises, step(S.STANDBY, S.CLOSING_NEGATIVE, G.READY, G.STOP),
         "STANDBY energises negative although STOP"),
        (rules.only_ready_energises, step(S.FAULT, S.CLOSING_NEGATIVE, G.READY),
         "FAULT energises negative out of turn"),
    ],
)  # fmt: skip
def test_what_is_found_is_told_in_the_words_of_the_table(interlock, tried: Step, words: str):
    assert interlock(SUPERVISOR, tried) == words


def closing(state: State, *outputs: Contactor) -> object:
    """The chart with other outputs in one state."""
    return replace(SUPERVISOR, closed={**SUPERVISOR.closed, state: frozenset(outputs)})


def test_what_only_a_state_of_other_outputs_can_break():
    positive, negative, precharge = Contactor.POSITIVE, Contactor.NEGATIVE, Contactor.PRECHARGE
    alone, way = closing(S.RUNNING, positive), step(S.CLOSING_POSITIVE, S.RUNNING)
    assert "positive without negative" in rules.positive_needs_negative(alone, way)
    assert rules.positive_needs_negative(SUPERVISOR, way) is None
    assert rules.positive_needs_negative(alone, replace(way, wiring="pack+inverter")) is None
    assert rules.positive_needs_negative(SUPERVISOR, step(S.UNLOADING, S.OPENING_POSITIVE)) is None
    kept = closing(S.RUNNING, positive, negative, precharge)
    assert "precharge relay" in rules.precharge_only_while_precharging(kept, way)
    assert rules.precharge_only_while_precharging(SUPERVISOR, way) is None
    for state in (S.PRECHARGING, S.CLOSING_POSITIVE):
        assert rules.precharge_only_while_precharging(SUPERVISOR, step(S.CLOSING_NEGATIVE, state)) is None


def test_every_property_is_tried_here():
    tried = {interlock for interlock, _ in FOUND} | {
        rules.positive_needs_negative, rules.precharge_only_while_precharging,
    }  # fmt: skip
    assert tried == set(INTERLOCKS)
    assert {interlock for interlock, _ in FINE} <= tried


def test_no_row_that_asks_for_a_stop_cause_may_energise_more_in_any_wiring():
    more = Row(S.CLOSING_NEGATIVE, (G.FAULTED,), S.PRECHARGING, "worse")
    found = rules.stop_rows_energise_nothing(replace(SUPERVISOR, rows=(*SUPERVISOR.rows, more)))
    assert found is not None
    assert f"row {len(SUPERVISOR.rows) + 1} (CLOSING_NEGATIVE --worse--> PRECHARGING) energises precharge" in found.what
    assert "in wiring own" in found.what
    assert rules.stop_rows_energise_nothing(SUPERVISOR) is None


# --- what is about the whole table ---


def exploration(chart=SUPERVISOR, wiring: str = "own") -> Exploration:
    return Exploration(chart, wiring, WITNESSES, rules._always_tried)


def test_a_way_that_goes_round_for_ever_is_found_and_shown():
    back = Row(S.COOLING_DOWN, (G.COOLED,), S.PRECHARGING, "again")
    rows = (back, *SUPERVISOR.rows)
    found = unbounded_stay(exploration(replace(SUPERVISOR, rows=rows)))
    assert found is not None
    assert "go round for ever" in found.what
    assert "PRECHARGING" in found.what
    assert found.path == ()
    assert str(found) == f"{found.rule}: {found.what}"


def test_a_state_that_is_kept_when_every_timer_has_expired_is_found_with_the_way_there():
    rows = tuple(
        replace(row, when=(G.OPEN_CHECKED,)) if row.cause in ("open-unknown", "wait-over") else row
        for row in SUPERVISOR.rows
    )
    found = unbounded_stay(exploration(replace(SUPERVISOR, rows=rows)))
    assert found is not None
    assert "is kept although every timer has expired" in found.what
    assert found.path[0].source.state is S.STARTING
    lines = str(found).splitlines()
    assert lines[1] == "    wiring own:"
    assert len(lines) == 2 + len(found.path)
    assert lines[2].startswith("    STARTING --")
    assert lines[-1] == "    VERIFYING_OPEN --no row fires--> VERIFYING_OPEN    (true: VERIFY_OVERDUE)"


def test_a_step_in_which_nothing_is_true_says_so():
    found = Counterexample("a rule", "broken", (stays(S.STANDBY),))
    assert str(found).endswith("STANDBY --no row fires--> STANDBY    (true: none)")


def test_the_shadow_may_stay_only_where_a_recording_may():
    shadow = Exploration(SHADOW, "shadow", frozenset(), lambda state: frozenset())
    assert unbounded_stay(shadow) is None
    assert shadow.states == {S.STARTING, S.STANDBY, S.WAKING_PACK, S.RUNNING, S.VERIFYING_OPEN}
    assert {found.rule for found in unreached(SHADOW, [shadow])} == {"every state can be reached"}


def test_a_way_round_through_a_place_of_rest_is_none():
    assert all(unbounded_stay(each) is None for each in explorations_of(SUPERVISOR))


def test_a_state_nobody_can_reach_and_a_row_that_never_fires_are_named():
    rows = tuple(row for row in SUPERVISOR.rows if row.target is not S.UNLOADING)
    chart = replace(SUPERVISOR, rows=rows)
    lost = [found.what for found in unreached(chart, explorations_of(chart))]
    assert "UNLOADING is out of reach in every wiring" in lost
    assert any("UNLOADING --unloaded--> OPENING_POSITIVE) never fires" in what for what in lost)
    assert not any("RUNNING is out of reach" in what for what in lost)


def test_the_shortest_way_to_a_step_is_shown():
    each = exploration()
    step_in = next(s for s in each.steps if s.target.state is S.PRECHARGING and s.source.state is S.CLOSING_NEGATIVE)
    way = each.path_to(step_in)
    assert [s.source.state for s in way] == [S.STARTING, S.STANDBY, S.CLOSING_NEGATIVE]
    assert way[-1] is step_in
    assert all(before.target == after.source for before, after in pairwise(way))


def test_what_a_row_demanded_is_remembered_until_everything_is_off():
    each = exploration()
    charged = [s for s in each.steps if s.source.state is S.PRECHARGING and s.target.state is S.CLOSING_POSITIVE]
    assert charged
    assert all(s.target.witnessed == CHARGED for s in charged)
    off = [s for s in each.steps if s.target.state is S.VERIFYING_OPEN]
    assert all(not s.target.witnessed for s in off)
    held = [s for s in each.steps if s.source.state is S.RUNNING and s.target.state is S.RUNNING]
    assert all(s.target == s.source for s in held)


def test_a_guard_that_is_constant_in_a_wiring_is_never_tried_the_other_way():
    for each in explorations_of(SUPERVISOR):
        constant = SUPERVISOR.wired[each.wiring]
        for s in each.steps:
            read = SUPERVISOR.reads(s.source.state)
            assert all((guard in s.true) == value for guard, value in constant.items() if guard in read)


def test_guards_no_row_of_a_state_reads_are_tried_all_the_same():
    tried = {guard for s in exploration().steps if s.source.state is S.STANDBY for guard in s.true}
    assert {G.OPEN_NOW, G.STOP, G.WELDED, G.FAULTED, G.SUSPECTED, G.ABOVE_BREAK_MAX, G.FUSE_OVERDUE, G.READY} <= tried
    for state, enough, _ in rules.ENOUGH:
        assert enough <= rules._always_tried(state)
    assert G.UNLOCKED not in rules._always_tried(S.STANDBY)


def test_a_verdict_counts_what_it_was_held_against():
    verdict = verify(SUPERVISOR)
    assert verdict.states == len(State)
    assert verdict.rows == len(SUPERVISOR.rows)
    assert verdict.steps == sum(len(e.steps) for e in explorations_of(SUPERVISOR))
    assert dict(verdict.checked)["positive needs a charged link"] == verdict.steps
    assert dict(verdict.checked)["no stop row energises anything"] == verdict.rows
    assert [name for name, _ in verdict.checked][-2:] == [
        "every passing state is left in bounded time", "every state can be reached, every row can fire",
    ]  # fmt: skip


def test_a_counterexample_without_a_way_is_one_line():
    assert str(Counterexample("a rule", "is broken", ())) == "a rule: is broken"


def test_the_first_example_of_a_broken_property_is_enough():
    wrong = replace(SUPERVISOR, closed={**SUPERVISOR.closed, S.FAULT: frozenset({Contactor.NEGATIVE})})
    found = [example.rule for example in rules.broken(wrong, explorations_of(wrong))]
    assert found.count("only ready energises") == 1


def test_every_guard_of_a_state_is_an_enum_of_the_chart():
    assert all(isinstance(guard, Enum) for s in exploration().steps for guard in s.true)
