"""Verifies a precharge by what is measured: voltage, current and progress (safety concept, section 2)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from controller.safety.situation import Situation
from statecharts.supervisor import State

FLOOR_FRACTION = 0.95
STALL_FRACTION = 0.90
PROGRESS_FRACTION = 0.01
FAST_TAUS = 0.3
FALLING_MS = 500
SLOW_MS = 100
BUDGET_MS = 600_000
BUDGET_LIMITS = 3


@dataclass(frozen=True, slots=True)
class Progress:
    """One precharge. begun_ms is None while there is none; charged and failed (why, in words) are its verdict.

    good: fresh samples in a row that look charged, the first at good_since_ms. mark: the link voltage progress is
    counted from. loaded_since_ms: since when the link is charged and the current has not fallen.
    """

    begun_ms: int | None = None
    sample_at_ms: int | None = None
    good: int = 0
    good_since_ms: int = 0
    mark_v: float | None = None
    mark_ms: int = 0
    loaded_since_ms: int | None = None
    charged: bool = False
    failed: str = ""


NOT_BEGUN = Progress()


def step(progress: Progress, s: Situation, state: State) -> Progress:
    """One tick of PRECHARGING; in any other state nothing changes."""
    if state is not State.PRECHARGING or progress.failed or progress.charged:
        return progress
    if progress.begun_ms is None:
        progress = Progress(begun_ms=s.now_ms, mark_ms=s.now_ms)
    settings, begun_ms = s.settings.precharge, progress.begun_ms
    assert begun_ms is not None
    if settings.unverified_reason:
        tau_ms = settings.tau_ms
        done = tau_ms is not None and s.now_ms - begun_ms >= 5 * tau_ms
        return replace(progress, charged=done)
    link_v, pack_v, at_ms = s.link_voltage_v, s.pack.pack_voltage_v, s.link_at_ms
    if link_v is None or pack_v is None or pack_v <= 0 or at_ms is None or at_ms <= begun_ms:
        return _stalled(replace(progress, good=0), s, None, None)
    if at_ms == progress.sample_at_ms:
        return _stalled(progress, s, link_v, pack_v)
    slow = progress.sample_at_ms is not None and at_ms - progress.sample_at_ms > SLOW_MS
    progress = _judged(replace(progress, sample_at_ms=at_ms, good=0 if slow else progress.good), s, link_v, pack_v)
    return progress if progress.charged or progress.failed else _stalled(progress, s, link_v, pack_v)


def _judged(progress: Progress, s: Situation, link_v: float, pack_v: float) -> Progress:
    """A fresh sample."""
    settings, begun_ms = s.settings.precharge, progress.begun_ms
    assert begun_ms is not None
    fraction, tau_ms = link_v / pack_v, settings.tau_ms
    if tau_ms is not None and fraction >= FLOOR_FRACTION and s.now_ms - begun_ms < FAST_TAUS * tau_ms:
        return replace(progress, failed="too fast: no resistor, or something else charges the link")
    enough = max(FLOOR_FRACTION, settings.charged_fraction)
    level = fraction >= enough and abs(pack_v - link_v) <= settings.charged_gap_v
    net_a = None if s.offset_a is None else s.net_current_a
    still = net_a is not None and abs(net_a) < settings.charged_current_a
    if level and not still:
        loaded_since_ms = s.now_ms if progress.loaded_since_ms is None else progress.loaded_since_ms
        if s.now_ms - loaded_since_ms >= FALLING_MS:
            return replace(progress, failed="the current does not fall: a load on the link")
        return replace(progress, good=0, loaded_since_ms=loaded_since_ms)
    if not level:
        return replace(progress, good=0, loaded_since_ms=None)
    good_since_ms = progress.good_since_ms if progress.good else s.now_ms
    good = progress.good + 1
    charged = good >= settings.charged_samples and s.now_ms - good_since_ms >= settings.charged_ms
    return replace(progress, good=good, good_since_ms=good_since_ms, loaded_since_ms=None, charged=charged)


def _stalled(progress: Progress, s: Situation, link_v: float | None, pack_v: float | None) -> Progress:
    """Below 90 % the link must gain 1 % of the pack in every window; an unknown link gains nothing."""
    tau_ms = s.settings.precharge.tau_ms
    window_ms = max(200.0, 0.0 if tau_ms is None else tau_ms / 2)
    if link_v is not None and pack_v is not None:
        base_v = 0.0 if progress.mark_v is None else progress.mark_v
        if link_v - base_v >= PROGRESS_FRACTION * pack_v or link_v >= STALL_FRACTION * pack_v:
            return replace(progress, mark_v=max(link_v, base_v), mark_ms=s.now_ms)
    if s.now_ms - progress.mark_ms < window_ms:
        return progress
    why = "the link voltage is unknown" if link_v is None else f"no progress at {link_v:.0f} V"
    return replace(progress, failed=why)


def booked(bookings: tuple[tuple[int, int], ...], s: Situation) -> tuple[tuple[int, int], ...]:
    """The precharges of the last 10 minutes and this one, booked in full: (begun_ms, at most ms)."""
    recent = tuple((at, ms) for at, ms in bookings if s.now_ms - at < BUDGET_MS)
    return (*recent, (s.now_ms, s.settings.precharge.overdue_ms))


def spent(bookings: tuple[tuple[int, int], ...], begun_ms: int, now_ms: int) -> tuple[tuple[int, int], ...]:
    """The last booking, replaced by when it really was and the time it took."""
    return (*bookings[:-1], (begun_ms, now_ms - begun_ms))


def budget_wait_ms(s: Situation, bookings: tuple[tuple[int, int], ...]) -> int:
    """How long the resistor must rest before one more precharge fits into 3 limits within any 10 minutes; 0: it may."""
    limit_ms = s.settings.precharge.overdue_ms
    recent = [(at, ms) for at, ms in bookings if s.now_ms - at < BUDGET_MS]
    spent_ms = sum(ms for _, ms in recent)
    for at, ms in recent:
        if spent_ms + limit_ms <= BUDGET_LIMITS * limit_ms:
            break
        spent_ms -= ms
        if spent_ms + limit_ms <= BUDGET_LIMITS * limit_ms:
            return at + BUDGET_MS - s.now_ms
    return 0
