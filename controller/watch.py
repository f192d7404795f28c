"""Small memories beside the supervisor: the current's offset, and whether the SoC moves as the charge does."""

from __future__ import annotations

from typing import NamedTuple

from controller.model.battery import BatterySnapshot, PackContactor
from controller.model.settings import Settings
from controller.ports import Inputs
from statecharts.supervisor import Contactor

OFFSET_MS = 1000
SOC_SLACK_PCT = 0.5
ANCHOR_MS = 60_000
MS_PER_H = 3_600_000.0


class Watch(NamedTuple):
    """offset_a: the mean current of 1 s with everything open, None until measured. charge_ah: charge since soc_pct.

    jumped: the SoC moved in this tick by more than the charge explains. corrupt: refused frames in this tick.
    """

    offset_a: float | None = None
    estop_seen: bool = False
    interlock_seen: bool = False
    fed_back: frozenset[Contactor] = frozenset()
    sum_a: float = 0.0
    samples: int = 0
    since_ms: int | None = None
    soc_pct: float | None = None
    charge_ah: float = 0.0
    anchor_ms: int = 0
    at_ms: int = 0
    jumped: bool = False
    corrupt_frames: int = 0
    corrupt: int = 0


def step(watch: Watch, pack: BatterySnapshot, settings: Settings, inputs: Inputs, at_rest: bool, now_ms: int) -> Watch:
    """One tick. `at_rest`: STANDBY, so that nothing of ours is energised."""
    watch = _soc(watch, pack, settings, now_ms)
    corrupt = pack.corrupt_frames - watch.corrupt_frames
    if corrupt or watch.corrupt:
        watch = watch._replace(corrupt=corrupt, corrupt_frames=pack.corrupt_frames)
    watch = _wired(watch, inputs)
    known = watch.offset_a is not None and abs(watch.offset_a) <= settings.contactors.offset_max_a
    return watch if known else _offset(watch, pack, settings, inputs, at_rest, now_ms)


def _wired(watch: Watch, inputs: Inputs) -> Watch:
    """What is known now is wired, and every contact that is named: unknown later is no longer "not wired"."""
    estop, interlock = inputs.estop_ok is not None, inputs.interlock_ok is not None
    if not (inputs.feedback or estop or interlock):
        return watch
    fed_back = watch.fed_back.union(inputs.feedback)
    if estop <= watch.estop_seen and interlock <= watch.interlock_seen and fed_back == watch.fed_back:
        return watch
    return watch._replace(
        estop_seen=watch.estop_seen or estop, interlock_seen=watch.interlock_seen or interlock, fed_back=fed_back
    )  # fmt: skip


def _offset(
    watch: Watch, pack: BatterySnapshot, settings: Settings, inputs: Inputs, at_rest: bool, now_ms: int
) -> Watch:
    if not at_rest or pack.current_a is None or _something_closed(pack, settings, inputs):
        return watch if watch.since_ms is None else watch._replace(since_ms=None, sum_a=0.0, samples=0)
    since_ms = now_ms if watch.since_ms is None else watch.since_ms
    sum_a, samples = watch.sum_a + pack.current_a, watch.samples + 1
    if now_ms - since_ms >= OFFSET_MS:
        return watch._replace(offset_a=sum_a / samples, since_ms=None, sum_a=0.0, samples=0)
    return watch._replace(since_ms=since_ms, sum_a=sum_a, samples=samples)


def _something_closed(pack: BatterySnapshot, settings: Settings, inputs: Inputs) -> bool:
    """A contact fed back closed, a pack that does not say OPEN, a link that is not low: its current is no offset.

    Nor is that of a pack nobody can disconnect.
    """
    if settings.wiring == "none":
        return True
    if settings.wiring.startswith("pack") and pack.contactor_state is not PackContactor.OPEN:
        return True
    link_v = inputs.link_voltage_v
    high = settings.wiring == "own" and link_v is not None and link_v >= settings.contactors.open_link_v
    return high or any(inputs.feedback.values())


def _soc(watch: Watch, pack: BatterySnapshot, settings: Settings, now_ms: int) -> Watch:
    """Compare the SoC with the charge since the anchor, taken anew every minute. Unknown capacity explains nothing."""
    elapsed_ms, current_a = now_ms - watch.at_ms, pack.current_a
    charge_ah = watch.charge_ah + (0.0 if current_a is None else current_a * elapsed_ms / MS_PER_H)
    if pack.soc_pct is None:
        return watch._replace(charge_ah=charge_ah, at_ms=now_ms, jumped=False)
    if watch.soc_pct is None:
        return watch._replace(soc_pct=pack.soc_pct, charge_ah=0.0, anchor_ms=now_ms, at_ms=now_ms, jumped=False)
    if pack.soc_pct == watch.soc_pct and now_ms - watch.anchor_ms < ANCHOR_MS:
        return watch._replace(charge_ah=charge_ah, at_ms=now_ms, jumped=False)
    voltage_v = pack.pack_voltage_v if pack.pack_voltage_v else settings.pack.design_max_v
    full_wh = pack.energy_full_wh or settings.pack.energy_full_wh
    explained_pct = 100.0 * charge_ah * voltage_v / full_wh if full_wh else 0.0
    moved_pct = pack.soc_pct - watch.soc_pct
    jumped = abs(moved_pct) > abs(explained_pct) + SOC_SLACK_PCT or abs(moved_pct - explained_pct) > 2 * SOC_SLACK_PCT
    if jumped or now_ms - watch.anchor_ms >= ANCHOR_MS:
        return watch._replace(
            soc_pct=pack.soc_pct, charge_ah=0.0, anchor_ms=now_ms, at_ms=now_ms, jumped=jumped
        )  # fmt: skip
    return watch._replace(charge_ah=charge_ah, at_ms=now_ms, jumped=False)
