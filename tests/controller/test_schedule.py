"""Periodic frames: on a fixed grid, once each, however late the tick."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.schedule import Beat, Schedule


def run(schedule: Schedule, times: list[int]) -> dict[int, list[int]]:
    """When each beat was due."""
    seen: dict[int, list[int]] = {index: [] for index in range(len(schedule.beats))}
    for now_ms in times:
        schedule, due = schedule.tick(now_ms)
        for index in due:
            seen[index].append(now_ms)
    return seen


def test_a_beat_comes_once_a_period_at_its_phase():
    seen = run(Schedule((Beat(50, 10), Beat(100))), list(range(1_000, 1_201, 10)))
    assert seen == {0: [1_010, 1_060, 1_110, 1_160], 1: [1_000, 1_100, 1_200]}


def test_a_late_tick_does_what_it_missed_once_and_the_grid_stays():
    assert run(Schedule((Beat(50),)), [0, 50, 237, 240, 250, 300])[0] == [0, 50, 237, 250, 300]


def test_a_slightly_late_tick_moves_nothing():
    assert run(Schedule((Beat(10),)), [0, 13, 20, 31, 40])[0] == [0, 13, 20, 31, 40]


def test_two_beats_due_together_come_in_their_order():
    assert Schedule((Beat(20), Beat(10), Beat(20))).tick(0)[1] == (0, 1, 2)


def test_a_tick_in_which_nothing_is_due_gives_the_same_schedule_back():
    schedule, _ = Schedule((Beat(50),)).tick(0)
    assert schedule.tick(10) == (schedule, ())
    assert schedule.tick(10)[0] is schedule


def test_the_clock_may_start_anywhere():
    assert run(Schedule((Beat(50, 20),)), list(range(987_654_321, 987_654_450, 10)))[0] == [
        987_654_341,
        987_654_391,
        987_654_441,
    ]


@pytest.mark.parametrize("beat", [Beat(0), Beat(-10), Beat(50, 50), Beat(50, -1)])
def test_a_beat_that_cannot_be_kept_is_refused(beat: Beat):
    with pytest.raises(ValueError, match="period above 0"):
        Schedule((Beat(10), beat))


@given(st.lists(st.integers(1, 400), min_size=1, max_size=60), st.sampled_from([10, 50, 100]), st.data())
def test_no_beat_comes_twice_in_a_period_of_the_grid_and_none_is_forgotten(
    gaps: list[int], period_ms: int, data: st.DataObject
):
    phase_ms = data.draw(st.integers(0, period_ms - 1))
    times = [0]
    for gap in gaps:
        times.append(times[-1] + gap)
    seen = run(Schedule((Beat(period_ms, phase_ms),)), times)[0]
    slots = [(now_ms - phase_ms) // period_ms for now_ms in seen]
    assert slots == sorted(set(slots))
    wanted = sorted({(now_ms - phase_ms) // period_ms for now_ms in times if now_ms >= phase_ms})
    assert slots == wanted
