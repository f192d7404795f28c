"""Steering an inverter as values: what is allowed now, what to write next, when it is over. No I/O, no clock.

Power is W, positive while charging; times are monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from controller.gateway.brands import Inverter, Seen, Site, Write

POLL_S = 2.0
LIVE_S = 3.0
"""Older limits are no limits: the control process is lost."""
RAMP_W_PER_S = 500
RISE_MIN_W = 100
"""A smaller rise is left alone, unless it reaches what was asked: some inverters keep set-points in flash."""
OVERRUN_S = 6.0
"""Longest time the battery's power may be above the limit: 3 s, and the time the inverter needs to follow."""
FOR_MAX_S = 24 * 3600


class Live(NamedTuple):
    """What the control process says of the pack. at_s: when it said so."""

    charge_w: float
    discharge_w: float
    running: bool
    fault: bool
    at_s: float

    def limit_w(self, power_w: float) -> float:
        """The limit in the direction of this power."""
        return max(0.0, self.charge_w if power_w >= 0 else self.discharge_w)


class Wish(NamedTuple):
    """What a person asked. power_w: 0 or more, in the direction `charge`. until_s: then the inverter is put back."""

    power_w: int
    charge: bool
    until_s: float


@dataclass(frozen=True, slots=True)
class Steering:
    """An inverter that is being steered. kept: what it held before the first write; known: since the last one.

    power_w: what it was told. allowed_w: what it may be told. battery_w: what flowed at the last poll; limit_w: the
    limit of that direction.
    """

    site: Site
    inverter: Inverter
    wish: Wish
    kept: Mapping[str, int]
    known: Mapping[str, int]
    max_w: int
    power_w: int = 0
    allowed_w: int = 0
    limit_w: float = 0.0
    battery_w: int | None = None
    stepped_s: float | None = None
    refreshed_s: float | None = None
    over_since_s: float | None = None


class Over(NamedTuple):
    """It ends here, and why."""

    why: str


def unfit(live: Live | None, now_s: float) -> str:
    """Why no inverter may be steered now; empty when it may."""
    if live is None or not now_s - live.at_s <= LIVE_S:
        return "the control process is not heard"
    if live.fault:
        return "the pack has a fault"
    if not live.running:
        return "the pack is not RUNNING"
    return ""


def allowed_w(wish: Wish, live: Live, max_w: int) -> int:
    """What is asked, within the live limit of its direction and what inverter and config allow; 0 is idle."""
    limit_w = live.charge_w if wish.charge else live.discharge_w
    power_w = int(min(wish.power_w, max_w, limit_w)) if limit_w > 0 else 0
    return power_w if wish.charge else -power_w


def ramped(was_w: int, wanted_w: int, dt_s: float) -> int:
    """Less is followed at once, more in steps, and the other direction only by way of 0."""
    if was_w * wanted_w < 0:
        return 0
    if abs(wanted_w) <= abs(was_w):
        return wanted_w
    size_w = min(abs(wanted_w), abs(was_w) + int(RAMP_W_PER_S * dt_s))
    return size_w if wanted_w > 0 else -size_w


def begin(site: Site, inverter: Inverter, seen: Seen, wish: Wish, max_w: float) -> Steering:
    """The state before the first write. Raises Refused when the inverter's registers do not allow one."""
    kept = inverter.kept(seen)
    inverter.judge(kept)
    return Steering(site, inverter, wish, kept, kept, int(min(max_w, inverter.max_w)))


def planned(s: Steering, live: Live) -> tuple[Write, ...]:
    """Every register of the wish as the limits are now, in order, whether it changes or not."""
    return s.inverter.steer(allowed_w(s.wish, live, s.max_w))


def step(s: Steering, live: Live | None, seen: Seen, now_s: float) -> tuple[Steering, tuple[Write, ...]] | Over:
    """What to write now; the state holds after all of it was written and read back."""
    if now_s >= s.wish.until_s:
        return Over("its time is over")
    why = unfit(live, now_s)
    if why or live is None:
        return Over(why)
    held = s.inverter.kept(seen)
    if foreign := [name for name in held if held[name] != s.known[name]]:
        changed = ", ".join(f"{name} holds {held[name]}, not {s.known[name]}" for name in foreign)
        return Over(f"it was not us: {changed}")
    s = _measured(s, live, s.inverter.battery_w(seen), now_s)
    if s.over_since_s is not None and now_s - s.over_since_s >= OVERRUN_S:
        return Over(f"{s.battery_w} W flow where {s.limit_w:.0f} W are allowed")
    return _told(s, live, now_s)


def _measured(s: Steering, live: Live, battery_w: int | None, now_s: float) -> Steering:
    """With what flows, and since when it is more than the limit by 1 kW and by a tenth of it."""
    limit_w = live.limit_w(battery_w or 0)
    over = battery_w is not None and abs(battery_w) > limit_w + max(1000.0, limit_w / 10)
    since_s = None if not over else now_s if s.over_since_s is None else s.over_since_s
    return replace(s, battery_w=battery_w, limit_w=limit_w, over_since_s=since_s)


def _told(s: Steering, live: Live, now_s: float) -> tuple[Steering, tuple[Write, ...]]:
    wanted_w = allowed_w(s.wish, live, s.max_w)
    dt_s = POLL_S if s.stepped_s is None else min(POLL_S, now_s - s.stepped_s)
    power_w = ramped(s.power_w, wanted_w, dt_s)
    small = 0 < abs(power_w) - abs(s.power_w) < RISE_MIN_W and abs(power_w) != s.wish.power_w
    if small and s.power_w != 0:
        power_w = s.power_w
    first = s.refreshed_s is None
    refresh_s = s.inverter.refresh_s
    due = first or (refresh_s is not None and s.refreshed_s is not None and now_s - s.refreshed_s >= refresh_s)
    writes = _wanted(s, power_w, due)
    known = dict(s.known)
    for write in writes:
        known |= {r.name: v for r, v in zip(*write, strict=True) if not r.fades}
    return replace(
        s,
        power_w=power_w,
        allowed_w=wanted_w,
        known=known,
        stepped_s=now_s,
        refreshed_s=now_s if due else s.refreshed_s,
    ), writes


def _wanted(s: Steering, power_w: int, due: bool) -> tuple[Write, ...]:
    """The registers that differ, in their order; all that the inverter has to be reminded of when that is due."""
    reminders = s.inverter.refresh(power_w) if due else ()
    writes: list[Write] = []
    for write in s.inverter.steer(power_w):
        if write in reminders:
            writes.append(write)
        elif not any(register.fades for register in write.registers) and (left := write.without(s.known)):
            writes.append(left)
    return tuple(writes)


def words(write: Write, known: Mapping[str, int]) -> list[dict[str, str | int | None]]:
    """A write for a person: each register with its number, what it holds and what it will."""
    rows: list[dict[str, str | int | None]] = []
    for register, value in zip(*write, strict=True):
        old = known.get(register.name)
        rows.append(
            {
                "register": register.doc, "name": register.name, "old": old, "new": value,
                "text": f"{'?' if old is None else register.said(old)} → {register.said(value)}",
            }
        )  # fmt: skip
    return rows


def back_off_s(tries: int) -> float:
    """How long to wait after so many failed attempts to put the inverter back."""
    return min(60.0, POLL_S * 2.0 ** max(0, tries - 1))
