"""Small memories beside the supervisor: the current's offset, and whether the SoC moves as the charge does."""

from __future__ import annotations

from typing import NamedTuple

from controller.model.battery import BatterySnapshot, PackContactor
from controller.model.settings import Settings

OFFSET_MS = 1000
SOC_SLACK_PCT = 0.5
MS_PER_H = 3_600_000.0


class Watch(NamedTuple):
    """offset_a: the mean current of 1 s with everything open, None until measured. charge_ah: charge since soc_pct.

    jumped: the SoC moved in this tick by more than the charge explains. corrupt: refused frames in this tick.
    """

    offset_a: float | None = None
    sum_a: float = 0.0
    samples: int = 0
    since_ms: int | None = None
    soc_pct: float | None = None
    charge_ah: float = 0.0
    at_ms: int = 0
    jumped: bool = False
    corrupt_frames: int = 0
    corrupt: int = 0


def step(watch: Watch, pack: BatterySnapshot, settings: Settings, live: bool, now_ms: int) -> Watch:
    """One tick. `live`: the pack may be connected by our doing, so its current is no offset."""
    watch = _soc(watch, pack, settings, now_ms)
    corrupt = pack.corrupt_frames - watch.corrupt_frames
    if corrupt or watch.corrupt:
        watch = watch._replace(corrupt=corrupt, corrupt_frames=pack.corrupt_frames)
    known = watch.offset_a is not None and abs(watch.offset_a) <= settings.contactors.offset_max_a
    return watch if known else _offset(watch, pack, settings, live, now_ms)


def _offset(watch: Watch, pack: BatterySnapshot, settings: Settings, live: bool, now_ms: int) -> Watch:
    closed = settings.wiring.startswith("pack") and pack.contactor_state is not PackContactor.OPEN
    if live or closed or pack.current_a is None:
        return watch if watch.since_ms is None else watch._replace(since_ms=None, sum_a=0.0, samples=0)
    since_ms = now_ms if watch.since_ms is None else watch.since_ms
    sum_a, samples = watch.sum_a + pack.current_a, watch.samples + 1
    if now_ms - since_ms >= OFFSET_MS:
        return watch._replace(offset_a=sum_a / samples, since_ms=None, sum_a=0.0, samples=0)
    return watch._replace(since_ms=since_ms, sum_a=sum_a, samples=samples)


def _soc(watch: Watch, pack: BatterySnapshot, settings: Settings, now_ms: int) -> Watch:
    """Compare each step of the SoC with the charge since the last one. Unknown capacity or current explains nothing."""
    elapsed_ms, current_a = now_ms - watch.at_ms, pack.current_a
    charge_ah = watch.charge_ah + (0.0 if current_a is None else abs(current_a) * elapsed_ms / MS_PER_H)
    if pack.soc_pct is None or pack.soc_pct == watch.soc_pct:
        return watch._replace(charge_ah=charge_ah, at_ms=now_ms, jumped=False)
    jumped = False
    if watch.soc_pct is not None:
        voltage_v = pack.pack_voltage_v if pack.pack_voltage_v else settings.pack.design_max_v
        full_ah = pack.energy_full_wh / voltage_v if pack.energy_full_wh else None
        explained_pct = 0.0 if full_ah is None else 100.0 * charge_ah / full_ah
        jumped = abs(pack.soc_pct - watch.soc_pct) > explained_pct + SOC_SLACK_PCT
    return watch._replace(soc_pct=pack.soc_pct, charge_ah=0.0, at_ms=now_ms, jumped=jumped)
