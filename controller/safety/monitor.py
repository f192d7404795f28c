"""Debounces, holds and clears the rules. It owns time; rules own conditions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType

from controller.model.events import Event, Notice, Severity
from controller.safety.rules import RULES, Rule
from controller.safety.situation import Situation

ALL = tuple((rule, rule.when) for rule in RULES)
IN_SHADOW = tuple((rule, rule.when) for rule in RULES if rule.masked is None)
HOLDING = frozenset({Severity.GRACEFUL, Severity.OPEN, Severity.LOCK_OUT})
WITHHOLDING = HOLDING | {Severity.NO_CLOSING}
RULE_OF: Mapping[Event, Rule] = MappingProxyType({rule.id: rule for rule in RULES})


@dataclass(frozen=True, slots=True)
class Track:
    """The memory of one rule that is or was bad.

    bad_since_ms, good_since_ms: since when the condition has been True, or False; None while it is not. What cannot be
    told stops the first clock and ends the second. active_since_ms: since when the debounced cause acts. begun_live:
    it began while the pack may have been connected. held: it opened something (or is one of the †) and is not released.
    """

    bad_since_ms: int | None = None
    good_since_ms: int | None = None
    active_since_ms: int | None = None
    begun_live: bool = False
    held: bool = False


@dataclass(frozen=True)
class Faults:
    """Every cause that acts now. Adding one never takes away another (I12)."""

    tracks: Mapping[Event, Track]
    news: tuple[Notice, ...] = ()

    def acting(self, *severities: Severity) -> tuple[Rule, ...]:
        """The rules that act or are held, of these severities, in the order of the table."""
        return tuple(rule for rule in self._acting if rule.severity in severities)

    @cached_property
    def _acting(self) -> tuple[Rule, ...]:
        tracks = self.tracks
        if not tracks:
            return ()
        return tuple(
            rule
            for rule in RULES
            if (track := tracks.get(rule.id)) is not None and (track.active_since_ms is not None or track.held)
        )

    @cached_property
    def held(self) -> tuple[Rule, ...]:
        """The causes that keep the machine in FAULT or LOCKED_OUT, in the order of the table."""
        return tuple(rule for rule in self._acting if self.tracks[rule.id].held)

    @cached_property
    def suspected(self) -> tuple[Rule, ...]:
        """The causes that would stop or withhold, seen bad and not yet long enough to act."""
        if not self.tracks:
            return ()
        return tuple(
            rule
            for rule in RULES
            if rule.severity in WITHHOLDING
            and (track := self.tracks.get(rule.id)) is not None
            and track.bad_since_ms is not None
            and track.active_since_ms is None
        )

    @cached_property
    def charge_forbidden(self) -> tuple[Rule, ...]:
        return tuple(r for r in self._acting if r.charge and _limits(r))

    @cached_property
    def discharge_forbidden(self) -> tuple[Rule, ...]:
        return tuple(r for r in self._acting if r.discharge and _limits(r))

    def holds(self, event: Event) -> bool:
        """Whether a cause is held; of `held` the one question a tick asks."""
        track = self.tracks.get(event)
        return track is not None and track.held

    def active_since_ms(self, event: Event) -> int | None:
        """Since when a cause acts; None when it does not."""
        track = self.tracks.get(event)
        return None if track is None else track.active_since_ms


def _limits(rule: Rule) -> bool:
    return rule.severity in HOLDING or rule.severity is Severity.LIMIT


NO_FAULTS = Faults({})


def start(latched: Iterable[str]) -> Faults:
    """The faults a record brought over a restart; an id no rule has is held as a lost record."""
    held = {}
    for name in latched:
        known = name in Event._value2member_map_ and Event(name) in RULE_OF
        held[Event(name) if known else Event.RECORD_LOST] = Track(held=True)
    return Faults(held)


def step(faults: Faults, situation: Situation, elapsed_ms: int) -> Faults:
    """One tick, `elapsed_ms` after the last: judge every rule."""
    now_ms, live, shadow = situation.now_ms, situation.live or situation.flows, situation.shadow
    before = faults.tracks
    changed: dict[Event, Track | None] = {}
    news: list[Notice] = []
    for rule, when in IN_SHADOW if shadow else ALL:
        bad = when(situation)
        if not bad and not before:
            continue
        track = before.get(rule.id)
        if track is None:
            if not bad:
                continue
            track = Track()
        after = _advance(rule, track, bad, now_ms, elapsed_ms, live)
        if after.active_since_ms is not None and track.active_since_ms is None:
            news.append(Notice(rule.id, rule.severity, rule.detail(situation)))
        elif track.active_since_ms is not None and after.active_since_ms is None:
            news.append(Notice(rule.id, Severity.INFO, "cleared, still held" if after.held else "cleared"))
        elif track.held and not after.held:
            news.append(Notice(rule.id, Severity.INFO, "released"))
        if after != track:
            idle = after.bad_since_ms is None and after.active_since_ms is None and not after.held
            changed[rule.id] = None if idle else after
    if not changed and not news and not faults.news:
        return faults
    tracks = {event: track for event, track in {**before, **changed}.items() if track is not None}
    return Faults(tracks, tuple(news))


def _advance(rule: Rule, track: Track, bad: bool | None, now_ms: int, elapsed_ms: int, live: bool) -> Track:
    """One rule, one tick. None neither counts nor clears."""
    if bad is None:
        bad_since_ms = track.bad_since_ms
        if bad_since_ms is not None and track.active_since_ms is None:
            bad_since_ms = min(now_ms, bad_since_ms + elapsed_ms)
        return _held(rule, replace(track, bad_since_ms=bad_since_ms, good_since_ms=None), live)
    if bad:
        begins = track.bad_since_ms is None
        bad_since_ms = now_ms if track.bad_since_ms is None else track.bad_since_ms
        active_since_ms = track.active_since_ms
        if active_since_ms is None and now_ms - bad_since_ms >= rule.hold_ms:
            active_since_ms = now_ms
        begun_live = live if begins else track.begun_live or live
        return _held(rule, Track(bad_since_ms, None, active_since_ms, begun_live, track.held), live)
    good_since_ms = now_ms if track.good_since_ms is None else track.good_since_ms
    lasting = track.held or rule.severity is Severity.WARNING
    quiet = now_ms - good_since_ms >= (rule.quiet_ms or 0 if lasting else 0)
    held = track.held and not (quiet and rule.quiet_ms is not None)
    return Track(None, good_since_ms, None if quiet else track.active_since_ms, False, held)


def _held(rule: Rule, track: Track, live: bool) -> Track:
    """What acts, and acts or began while the pack may be connected, is held; and what is † always."""
    if track.active_since_ms is None or track.held or rule.severity not in HOLDING or rule.rests:
        return track
    return replace(track, held=True) if live or track.begun_live or rule.always else track


def acknowledge(faults: Faults, name: str) -> tuple[Faults, str | None]:
    """A person has seen the cause `name`. Returns why not, or None: then it is released."""
    if name not in Event._value2member_map_:
        return faults, f"there is no cause {name!r}"
    event = Event(name)
    track = faults.tracks.get(event)
    if track is None or not track.held:
        return faults, f"{name} is not held"
    rule = RULE_OF[event]
    if rule.severity is Severity.LOCK_OUT:
        return faults, f"{name} needs `controller unlock` at the machine, after inspection"
    if rule.quiet_ms is not None:
        return faults, f"{name} clears itself after {rule.quiet_ms // 1000} s without it"
    if track.active_since_ms is not None or track.good_since_ms is None:
        return faults, f"{name} is still present, or not known to be gone"
    return release(faults, event), None


def unlock(faults: Faults) -> Faults:
    """A person has inspected the pack: suspicions of a weld are released (they come back when they are true)."""
    for rule in faults.held:
        if rule.severity is Severity.LOCK_OUT:
            faults = release(faults, rule.id)
    return faults


def release(faults: Faults, event: Event) -> Faults:
    """Forget a cause; it comes back at once when it is still true."""
    tracks = {e: t for e, t in faults.tracks.items() if e is not event}
    return Faults(tracks, faults.news)
