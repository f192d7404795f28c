"""Tells from the first seconds of a recording which pack speaks in it, and what kind of pack it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile

from controller.batteries.base import BatteryProtocol, PackKind
from controller.model.battery import BatterySnapshot
from sim.recording import Recording, RecordingError, open_recording

LOOK_US = 15_000_000
LOOK_FRAMES = 50_000
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
    ids = _ids(recording)
    battery = batteries[only] if only else _best(ids, batteries)
    if battery is None:
        return Identity(None, PackKind(None, None), _partner(ids), tuple(ids))
    return Identity(battery, _kind(recording, battery), None, tuple(ids))


def _ids(recording: Recording) -> dict[int, int]:
    """The ids of the first seconds, in order of their first sight, with their counts."""
    ids: dict[int, int] = {}
    try:
        for n, (stamp_us, frame) in enumerate(open_recording(recording.path)):
            if stamp_us > LOOK_US or n > LOOK_FRAMES:
                break
            if not frame.extended:
                ids[frame.id] = ids.get(frame.id, 0) + 1
    except RecordingError:
        if not ids:
            raise
    return ids


def _best(ids: Mapping[int, int], batteries: Mapping[str, BatteryProtocol]) -> BatteryProtocol | None:
    """The battery most of whose telling ids are seen; at least ENOUGH of them."""
    seen = {name: len(battery.telling & ids.keys()) for name, battery in batteries.items()}
    name = max(seen, key=lambda n: (seen[n], n))
    return batteries[name] if seen[name] >= ENOUGH else None


def _partner(ids: Mapping[int, int]) -> str | None:
    for partner, known in INVERTER_SIDE.items():
        if ids and (len(known & ids.keys()) >= 3 or set(ids) <= known):
            return partner
    return None


def _kind(recording: Recording, battery: BatteryProtocol) -> PackKind:
    """What the pack says of itself in the first seconds."""
    state, pack, kind = battery.start(), BatterySnapshot(), PackKind(None, None)
    batches = open_recording(recording.path, ids=battery.rx.keys()).batches()
    try:
        for tick, frames in takewhile(lambda batch: batch[0] * 10_000 <= LOOK_US, batches):
            state = state.receive(frames, tick * 10)
            pack = state.snapshot(tick * 10)
            kind = battery.kind(pack)
            if kind.cells is not None and kind.chemistry is not None:
                break
    except RecordingError:
        pass
    return kind
