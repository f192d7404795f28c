"""Tells from the first seconds of a recording which pack speaks in it, and its kind; or which inverter's side it is."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile

from controller.batteries.base import BatteryProtocol, PackKind
from controller.codec.rtu import Frame
from controller.inverters.base import InverterProtocol
from controller.inverters.registry import INVERTERS
from controller.model.settings import NO_OPTIONS, OptionValue
from sim.recording import EXTENDED, Recording, RecordingError, open_recording

LOOK_US = 10_000_000
LOOK_FRAMES = 50_000
LOOK_TICKS = 50
ENOUGH = 3


@dataclass(frozen=True)
class Identity:
    """Who speaks. battery: None when no known pack does.

    On an inverter's side inverter is its protocol and partner says in words who speaks; None where that is not known.
    """

    battery: BatteryProtocol | None
    kind: PackKind
    partner: str | None
    ids: tuple[int, ...]
    inverter: InverterProtocol | None = None


def identify(
    recording: Recording, batteries: Mapping[str, BatteryProtocol], only: str | None = None,
    inverters: Mapping[str, InverterProtocol] = INVERTERS, options: Mapping[str, OptionValue] = NO_OPTIONS,
) -> Identity:  # fmt: skip
    """Look at the first seconds. `only`: the battery the user says it is, set so; just its kind is looked for then."""
    if recording.format == "rtu":
        inverter, partner = _on_rs485(recording, inverters)
        return Identity(None, PackKind(None, None), partner, (), inverter)
    if only is not None and (kind := _kind(recording, batteries[only], options)) is not None:
        return Identity(batteries[only], kind, None, ())
    ids = _ids(recording)
    battery = None if only is not None else _best(frozenset(ids), batteries)
    if battery is None:
        inverter, partner = _on_can(recording, frozenset(ids), inverters)
        return Identity(None, PackKind(None, None), partner, ids, inverter)
    return Identity(battery, _kind(recording, battery) or PackKind(None, None), None, ids)


def _ids(recording: Recording) -> tuple[int, ...]:
    """The 11-bit ids of the first seconds, in order of their first sight."""
    return tuple(ident for ident in recording.first_ids(LOOK_US, LOOK_FRAMES) if ident < EXTENDED)


def _best(ids: frozenset[int], batteries: Mapping[str, BatteryProtocol]) -> BatteryProtocol | None:
    """The battery most of whose telling ids are seen; at least ENOUGH of them."""
    seen = {name: len(battery.telling & ids) for name, battery in batteries.items()}
    name = max(seen, key=lambda n: (seen[n], n))
    return batteries[name] if seen[name] >= ENOUGH else None


Partner = tuple[InverterProtocol | None, str | None]


def _on_can(recording: Recording, ids: frozenset[int], inverters: Mapping[str, InverterProtocol]) -> Partner:
    """The inverter to whose conversation most of the ids belong."""
    seen = {name: len((inverter.tx | inverter.rx) & ids) for name, inverter in inverters.items()}
    name = max(seen, key=lambda n: (seen[n], n))
    if not seen[name] or 2 * seen[name] < len(ids):
        return None, None
    inverter = inverters[name]
    return inverter, _partner(inverter, bool(inverter.rx & ids), bool(inverter.tx & ids), _brand(recording, inverter))


def _on_rs485(recording: Recording, inverters: Mapping[str, InverterProtocol]) -> Partner:
    """Modbus RTU: told by the unit that is asked."""
    frames = [piece for _, piece in takewhile(_early, recording.modbus()) if isinstance(piece, Frame)]
    units = sorted({frame.unit for frame in frames})
    for inverter in inverters.values():
        asked = [frame.request for frame in frames if frame.unit == inverter.unit]
        if inverter.line is not None and asked:
            return inverter, _partner(inverter, True in asked, False in asked)
    return None, f"Modbus RTU of nobody known here, units {', '.join(map(str, units)) or '–'}"


def _partner(inverter: InverterProtocol, asks: bool, answers: bool, brand: str | None = None) -> str:
    who = f"inverter ({brand})" if brand else "inverter"
    heard = " and ".join(name for name, there in ((who, asks), ("battery", answers)) if there)
    return f"{inverter.title}, {inverter.name}; heard: {heard}"


def _brand(recording: Recording, inverter: InverterProtocol) -> str | None:
    """What the inverter calls itself in the first seconds."""
    frames = takewhile(_early, open_recording(recording.path, ids=inverter.rx))
    with suppress(RecordingError):
        for _, frame in frames:
            for _, values in inverter.explain_frame(frame):
                if values.get("brand_text"):
                    return str(values["brand_text"])
    return None


def _early(entry: tuple[int, object]) -> bool:
    return entry[0] <= LOOK_US


def _kind(
    recording: Recording, battery: BatteryProtocol, options: Mapping[str, OptionValue] = NO_OPTIONS
) -> PackKind | None:
    """What the pack says of itself in the first seconds; None when it says nothing at all."""
    state, kind, looked, tick = battery.start(options), PackKind(None, None), 0, 0
    batches = open_recording(recording.path, ids=battery.ids(options)).batches()
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
