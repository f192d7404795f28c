"""Everything a rule, a guard or a limit may look at in one tick: one frozen record, nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from controller.model.battery import BatterySnapshot, Feed
from controller.model.events import Event
from controller.model.inverter import InverterRequest
from controller.model.reading import Freshness
from controller.model.settings import Settings
from statecharts.supervisor import ENERGISED, Contactor, State

LIVE = frozenset(ENERGISED)
FLOWS_A = 5.0


class Situation(NamedTuple):
    """What is known at now_ms.

    state, closed: as the last tick left them; the state began at since_ms. link_voltage_v: the most trusted fresh
    source, taken at link_at_ms. offset_a: the pack's current reading with everything open, None until measured.
    charge_limit_w and discharge_limit_w: as published in the last tick. corrupt: new refused frames. soc_jumped: the
    SoC moved further than the charge explains. feedback_lost: a relay that was fed back is not any more.
    weld_measured: the weld check was contradicted. recovering: a recovery charge masks undervoltage. shadow: the pack
    answers to somebody else.
    """

    now_ms: int
    pack: BatterySnapshot
    request: InverterRequest
    settings: Settings
    state: State
    closed: frozenset[Contactor]
    feedback: Mapping[Contactor, bool | None]
    estop_ok: bool | None
    interlock_ok: bool | None
    link_voltage_v: float | None
    link_at_ms: int | None
    breakdowns: frozenset[Event]
    offset_a: float | None
    charge_limit_w: float
    discharge_limit_w: float
    corrupt: int
    soc_jumped: bool
    weld_measured: bool
    tries: int
    closings_hour: int
    closings_day: int
    feedback_lost: bool
    unclean: bool
    unclean_day: int
    started_ms: int
    inverter_zero_ms: int
    inverter_silent_ms: int
    inverter_follow_ms: int
    inverter_asks: bool
    recovering: bool
    shadow: bool
    since_ms: int

    @property
    def live(self) -> bool:
        """The pack may be connected to the link by our doing; what cannot be disconnected is while power is offered."""
        if self.settings.wiring == "none" and (self.charge_limit_w > 0 or self.discharge_limit_w > 0):
            return True
        return self.state in LIVE

    @property
    def flows(self) -> bool:
        """Current flows through what cannot be disconnected, whatever it is offered."""
        return self.settings.wiring == "none" and self.pack.current_a is not None and abs(self.pack.current_a) > FLOWS_A

    @property
    def net_current_a(self) -> float | None:
        """The current less its offset where that is known, as it is where not."""
        current_a = self.pack.current_a
        if current_a is None:
            return None
        return current_a if self.offset_a is None else current_a - self.offset_a

    def age_ms(self, feed: Feed) -> int | None:
        """How long ago this feed was last valid; None when it never was."""
        freshness = self.pack.feeds.get(feed)
        return None if freshness is None else freshness.age_ms(self.now_ms)


def required_feeds(wiring: str, lacks: frozenset[Feed] = frozenset()) -> tuple[Feed, ...]:
    """The signals without which nothing is closed (safety concept, section 3), but for those a battery lacks."""
    always = (Feed.VOLTAGE, Feed.CURRENT, Feed.CELLS, Feed.TEMPERATURES, Feed.SOC)
    required = (*always, Feed.CONTACTOR, Feed.HVIL) if wiring.startswith("pack") else always
    return tuple(feed for feed in required if feed not in lacks) if lacks else required


def believed(pack: BatterySnapshot, before: Mapping[Feed, Freshness], settings: Settings) -> BatterySnapshot:
    """The pack with the age of what is known: a required feed is as old as when all its values were known last.

    Frames can go on, well formed and in time, and say nothing of use. before: the feeds as believed in the last tick.
    """
    pack_feeds = pack.feeds
    empty = {
        feed: Freshness(before[feed].valid_at_ms if feed in before else None, pack_feeds[feed].round_ms)
        for feed in required_feeds(settings.wiring, settings.lacks)
        if feed in pack_feeds and any(getattr(pack, name) is None for name in feed.signals)
    }
    return pack._replace(feeds={**pack_feeds, **empty}) if empty else pack


def missing_feeds(pack: BatterySnapshot, settings: Settings, now_ms: int) -> tuple[Feed, ...]:
    """The required feeds that are not fresh, or of which any value is unknown now."""
    return tuple(
        feed
        for feed in required_feeds(settings.wiring, settings.lacks)
        if (freshness := pack.feeds.get(feed)) is None
        or not freshness.fresh(now_ms)
        or any(getattr(pack, name) is None for name in feed.signals)
    )
