"""Weld checks before closing and after opening, from what the link, the aux contacts or the pack show (section 2)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from controller.model.battery import PackContactor
from controller.safety.situation import Situation
from statecharts.supervisor import Contactor, State

WINDOW_MS = 10_000
DECAY_MS = 300_000
AUX_MS = 300
STUCK_FRACTION = 0.05
FALL_FRACTION = 0.01
OPENED_FRACTION = 0.10
RISE_FRACTION = 0.10
OWN = (Contactor.NEGATIVE, Contactor.PRECHARGE, Contactor.POSITIVE)


@dataclass(frozen=True, slots=True)
class LinkWatch:
    """What the link has shown. may_close: the check before closing passed; why: what it waits for, in words.

    proven_open: the check after opening passed. suspected: a check was contradicted. base_v, base_ms: the link voltage
    a change is counted from (before closing: the last low one). since_ms: when the link was first found too high.
    """

    may_close: bool = False
    why: str = ""
    proven_open: bool = False
    suspected: bool = False
    base_v: float | None = None
    base_ms: int = 0
    since_ms: int | None = None


UNWATCHED = LinkWatch()


def opened(s: Situation) -> LinkWatch:
    """The watch at the moment the outputs went off."""
    return LinkWatch(base_v=s.link_voltage_v, base_ms=s.now_ms)


def step(watch: LinkWatch, s: Situation, state: State, state_since_ms: int) -> LinkWatch:
    """One tick. In states that check nothing the watch is as it was, or forgotten."""
    if state is State.VERIFYING_OPEN:
        return watch if watch.proven_open or watch.suspected else _after_open(watch, s, state_since_ms)
    if state is State.STANDBY and s.settings.wiring == "own":
        return _before_close(watch, s, state_since_ms)
    if state is State.CLOSING_NEGATIVE:
        return _while_settling(watch, s)
    return UNWATCHED if watch is not UNWATCHED and not watch.suspected else watch


def _after_open(watch: LinkWatch, s: Situation, opened_ms: int) -> LinkWatch:
    """A link voltage sampled before the opening says nothing of it."""
    elapsed_ms = s.now_ms - opened_ms
    wiring, times = s.settings.wiring, s.settings.contactors
    if wiring == "none":
        return replace(watch, proven_open=True)
    aux = [closed for member in OWN if (closed := s.feedback.get(member)) is not None]
    if True in aux:
        return replace(watch, suspected=elapsed_ms >= AUX_MS)
    if wiring.startswith("pack"):
        state = s.pack.contactor_state
        if state is PackContactor.OPEN:
            return replace(watch, proven_open=True)
        return replace(watch, suspected=elapsed_ms >= times.pack_open_ms and state is not None)
    if len(aux) == len(OWN):
        return replace(watch, proven_open=True)
    link_v, pack_v, at_ms = s.link_voltage_v, s.pack.pack_voltage_v, s.link_at_ms
    if at_ms is None or at_ms <= opened_ms:
        return watch
    if link_v is not None and pack_v is not None and watch.base_v is not None:
        if link_v <= (1.0 - OPENED_FRACTION) * watch.base_v or _low(link_v, pack_v, s):
            return replace(watch, proven_open=True)
        return replace(watch, suspected=at_ms - opened_ms >= times.verify_ms - 1000 and _stuck(link_v, pack_v))
    return watch


def _before_close(watch: LinkWatch, s: Situation, since_ms: int) -> LinkWatch:
    """The link must be low; a higher one may fall in peace, and one that does not is a weld or is fed.

    Judged by samples of this state only: of a slow source it takes longer.
    """
    link_v, pack_v, at_ms = s.link_voltage_v, s.pack.pack_voltage_v, s.link_at_ms
    if link_v is None or pack_v is None or at_ms is None or at_ms <= since_ms:
        return UNWATCHED
    if _low(link_v, pack_v, s):
        return watch if watch.may_close and watch.base_v == link_v else LinkWatch(may_close=True, base_v=link_v)
    if watch.since_ms is None or watch.base_v is None:
        why = f"{link_v:.0f} V, waiting for it to fall"
        return LinkWatch(why=why, base_v=link_v, base_ms=at_ms, since_ms=s.now_ms)
    if at_ms - watch.base_ms < WINDOW_MS:
        return watch
    falls = watch.base_v - link_v >= FALL_FRACTION * watch.base_v
    if falls and s.now_ms - watch.since_ms <= DECAY_MS:
        return replace(watch, base_v=link_v, base_ms=at_ms, why=f"{link_v:.0f} V and falling")
    if _stuck(link_v, pack_v):
        return replace(watch, suspected=True, why=f"stuck at {link_v:.0f} V, pack voltage")
    return replace(watch, base_v=link_v, base_ms=at_ms, why=f"held at {link_v:.0f} V: fed by the inverter")


def _while_settling(watch: LinkWatch, s: Situation) -> LinkWatch:
    """With negative alone closed the link must not rise: a welded positive or precharge closes the loop."""
    link_v, pack_v = s.link_voltage_v, s.pack.pack_voltage_v
    if link_v is None or pack_v is None:
        return watch
    if watch.base_v is None:
        return LinkWatch(base_v=link_v, base_ms=s.now_ms)
    if link_v - watch.base_v >= RISE_FRACTION * pack_v and not watch.suspected:
        return replace(watch, suspected=True, why=f"rose to {link_v:.0f} V on negative alone")
    return watch


def _low(link_v: float, pack_v: float, s: Situation) -> bool:
    return link_v < s.settings.contactors.open_link_v or link_v < s.settings.contactors.open_link_fraction * pack_v


def _stuck(link_v: float, pack_v: float) -> bool:
    return abs(pack_v - link_v) <= STUCK_FRACTION * pack_v
