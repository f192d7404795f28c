"""Tells from the first seconds of a recording which pack speaks in it, and what kind of pack it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile

from controller.batteries.base import BatteryProtocol, PackKind
from sim.recording import EXTENDED, Recording, RecordingError, open_recording

LOOK_US = 10_000_000
LOOK_FRAMES = 50_000
LOOK_TICKS = 50
ENOUGH = 3

INVERTER_SIDE: Mapping[str, frozenset[int]] = {
    "a BYD battery and its inverter on CAN": frozenset({0x110, 0x150, 0x1D0, 0x190, 0x210, 0x250, 0x290, 0x2D0}),
    "an inverter that greets a BYD battery on CAN": frozenset({0x091, 0x0D1, 0x111, 0x151, 0x191}),
}
"""Ids of inverter-side conversations; protocols/inverters/byd-can.md."""


@dataclass(frozen=True)
class Identity:
    """Who speaks. battery: None when no known pack does. partner: who is on an inverter's side, None on a pack's."""

    battery: BatteryProtocol | None
    kind: PackKind
    partner: str | None
    ids: tuple[int, ...]


def identify(recording: Recording, batteries: Mapping[str, BatteryProtocol], only: str | None = None) -> Identity:
    """Look at the first seconds. `only`: the battery the user says it is; then just its kind is looked for."""
    if recording.format == "rtu":
        return Identity(None, PackKind(None, None), "an inverter (Modbus RTU on RS485)", ())
    if only is not None and (kind := _kind(recording, batteries[only])) is not None:
        return Identity(batteries[only], kind, None, ())
    ids = _ids(recording)
    battery = None if only is not None else _best(frozenset(ids), batteries)
    if battery is None:
        return Identity(None, PackKind(None, None), _partner(frozenset(ids)), ids)
    return Identity(battery, _kind(recording, battery) or PackKind(None, None), None, ids)


def _ids(recording: Recording) -> tuple[int, ...]:
    """The 11-bit ids of the first seconds, in order of their first sight."""
    return tuple(ident for ident in recording.first_ids(LOOK_US, LOOK_FRAMES) if ident < EXTENDED)


def _best(ids: frozenset[int], batteries: Mapping[str, BatteryProtocol]) -> BatteryProtocol | None:
    """The battery most of whose telling ids are seen; at least ENOUGH of them."""
    seen = {name: len(battery.telling & ids) for name, battery in batteries.items()}
    name = max(seen, key=lambda n: (seen[n], n))
    return batteries[name] if seen[name] >= ENOUGH else None


def _partner(ids: frozenset[int]) -> str | None:
    for partner, known in INVERTER_SIDE.items():
        if ids and (len(known & ids) >= 3 or ids <= known):
            return partner
    return None


def _kind(recording: Recording, battery: BatteryProtocol) -> PackKind | None:
    """What the pack says of itself in the first seconds; None when it says nothing at all."""
    state, kind, looked, tick = battery.start(), PackKind(None, None), 0, 0
    batches = open_recording(recording.path, ids=battery.rx.keys()).batches()
    try:
        for tick, frames in takewhile(lambda batch: batch[0] * 10_000 <= LOOK_US, batches):
            state = state.receive(frames, tick * 10)
            if tick - looked < LOOK_TICKS:
                continue
            looked = tick
            kind = battery.kind(state.snapshot(tick * 10))
            if kind.cells is not None and kind.chemistry is not None:
                break
        else:
            kind = battery.kind(state.snapshot(tick * 10))
    except RecordingError:
        pass
    return kind if state.snapshot(tick * 10).decoded_frames else None
