"""Every frame of a recording with the names and values this project gives it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from controller.batteries.base import BatteryProtocol
from controller.inverters.base import InverterProtocol
from sim.identify import identify
from sim.recording import Recording, RecordingError, open_recording

Line = dict[str, object]


def lines(
    path: Path, name: str | None, batteries: Mapping[str, BatteryProtocol], inverters: Mapping[str, InverterProtocol]
) -> Iterator[Line]:
    """One line a frame: {t_s, id, name, signals, ok}. Foreign frames have no name; ok is False for a refused one.

    A recording of Modbus RTU is read as a Gen24's dialogue: {t_s, unit, function, name, signals, ok}.
    """
    recording = open_recording(path)
    if recording.format == "rtu":
        yield from _rtu(recording, inverters[name or "byd_modbus"])
        return
    if name in inverters:
        raise RecordingError(f"{path}: a recording of a CAN bus; {name} speaks Modbus")
    identity = identify(recording, batteries, name)
    if identity.battery is None:
        what = f"the inverter's side ({identity.partner})" if identity.partner else "no pack known here"
        raise RecordingError(f"{path}: {what}; to decode it all the same: --as NAME")
    yield from _can(recording, identity.battery)


def _can(recording: Recording, battery: BatteryProtocol) -> Iterator[Line]:
    for stamp_us, frame in recording:
        known = frame.id in battery.rx and not frame.extended
        readings = battery.explain(frame) if known else ()
        yield {
            "t_s": stamp_us / 1e6,
            "id": f"{frame.id:08X}" if frame.extended else f"{frame.id:03X}",
            "data": frame.data.hex().upper(),
            "name": readings[0][0] if readings else None,
            "signals": {key: value for _, values in readings for key, value in values.items()},
            "ok": bool(readings) or not known,
        }


def _rtu(recording: Recording, inverter: InverterProtocol) -> Iterator[Line]:
    for stamp_us, chunk in recording.chunks():
        yield {"t_s": stamp_us / 1e6, **inverter.explain_chunk(chunk)}


def text(line: Line) -> str:
    """One line for a person."""
    place = line.get("id") or f"unit {line.get('unit')} fc {line.get('function')}"
    signals = line["signals"]
    assert isinstance(signals, Mapping)
    words = " ".join(f"{name}={'–' if value is None else value}" for name, value in signals.items())
    mark = "" if line["ok"] else "  refused"
    return f"{line['t_s']:12.6f}  {place}  {line.get('data', '')}  {line['name'] or '-'}  {words}{mark}"
