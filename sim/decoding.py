"""Every frame of a recording with the names and values this project gives it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from controller.batteries.base import BatteryProtocol
from controller.codec.rtu import Frame, encode
from controller.inverters.base import InverterProtocol
from controller.ports import CanFrame
from sim.identify import identify
from sim.recording import Recording, RecordingError, open_recording

Line = dict[str, object]
Readings = Sequence[tuple[str, Mapping[str, object]]]
"""What a frame says: (message, its values)."""


def lines(
    path: Path, name: str | None, batteries: Mapping[str, BatteryProtocol], inverters: Mapping[str, InverterProtocol]
) -> Iterator[Line]:
    """One line a frame: {t_s, id, data, name, signals, ok}. Foreign frames have no name; ok is False for a refused one.

    name: the battery or inverter it is; None is told from the recording. Modbus RTU: unit and function instead of id.
    """
    recording = open_recording(path)
    serial = recording.format == "rtu"
    if name is not None and serial is not (name in inverters and inverters[name].line is not None):
        kind = "a serial line (Modbus RTU)" if serial else "a CAN bus"
        raise RecordingError(f"{path}: a recording of {kind}; {name} does not speak on one")
    inverter, battery = inverters.get(name or ""), None
    if inverter is None:
        identity = identify(recording, batteries, name, inverters)
        battery, inverter = identity.battery, None if name else identity.inverter
    if serial:
        yield from _modbus(recording, inverter)
    elif battery is not None:
        yield from _can(recording, battery.rx.keys(), battery.explain)
    elif inverter is not None:
        yield from _can(recording, inverter.tx | inverter.rx, inverter.explain_frame)
    elif name is not None:
        raise RecordingError(f"{path}: {name} says nothing in it")
    else:
        yield from _can(recording, (), lambda _: ())


def _can(recording: Recording, ids: Collection[int], explain: Callable[[CanFrame], Readings]) -> Iterator[Line]:
    for stamp_us, frame in recording:
        known = frame.id in ids and not frame.extended
        readings = explain(frame) if known else ()
        yield {
            "t_s": stamp_us / 1e6,
            "id": f"{frame.id:08X}" if frame.extended else f"{frame.id:03X}",
            "data": frame.data.hex().upper(),
            "name": readings[0][0] if readings else None,
            "signals": {key: _tidy(value) for _, values in readings for key, value in values.items()},
            "ok": bool(readings) or not known,
        }


def _tidy(value: object) -> object:
    """A float without the tail of its binary fraction."""
    return round(value, 6) if isinstance(value, float) else value


def _modbus(recording: Recording, inverter: InverterProtocol | None) -> Iterator[Line]:
    """A listener hears both sides in one stream: an answer means what was asked for last."""
    asked: Frame | None = None
    for stamp_us, piece in recording.modbus():
        line: Line = {"t_s": stamp_us / 1e6, "unit": None, "function": None, "name": None, "signals": {}}
        if isinstance(piece, bytes):
            yield {**line, "data": piece.hex().upper(), "ok": False}
            continue
        line |= {"data": encode(piece.unit, piece.pdu).hex().upper(), "unit": piece.unit, "function": piece.pdu[0]}
        name, register, words = _meaning(piece, asked)
        known = inverter if inverter is not None and inverter.unit == piece.unit else None
        yield {**line, "name": name, "signals": _named(known, register, words), "ok": True}
        if piece.request is not False:
            asked = None if name.startswith("written") else piece


def _meaning(frame: Frame, asked: Frame | None) -> tuple[str, int, tuple[int, ...]]:
    """What a frame is, the register it begins at (0: none), and the words it carries."""
    pdu, function = frame.pdu, frame.pdu[0]
    numbers = _words(pdu[1:9])
    match function, frame.request:
        case 3 | 4, True:
            return f"read {1 + numbers[0]} x{numbers[1]}", 0, ()
        case 3 | 4 | 23, False:
            if asked is None or (asked.unit, asked.pdu[0]) != (frame.unit, function):
                return "unasked", 0, ()
            wire, count = _words(asked.pdu[1:5])
            return (
                (f"answer {1 + wire} x{count}", 1 + wire, _words(pdu[2:]))
                if pdu[1] == 2 * count
                else ("unasked", 0, ())
            )
        case 6, _:
            return ("written" if frame == asked else "write") + f" {1 + numbers[0]} x1", 1 + numbers[0], numbers[1:2]
        case 16, True:
            return f"write {1 + numbers[0]} x{numbers[1]}", 1 + numbers[0], _words(pdu[6:])
        case 16, _:
            return f"written {1 + numbers[0]} x{numbers[1]}", 0, ()
        case 23, _:
            wire, count = numbers[2:4]
            return f"write {1 + wire} x{count}, read {1 + numbers[0]} x{numbers[1]}", 1 + wire, _words(pdu[10:])
    return (f"exception {pdu[1]}" if function & 0x80 else f"function {function}"), 0, ()


def _words(data: bytes) -> tuple[int, ...]:
    return tuple(int.from_bytes(data[n : n + 2], "big") for n in range(0, len(data) - 1, 2))


def _named(inverter: InverterProtocol | None, register: int, words: tuple[int, ...]) -> Mapping[str, object]:
    """Whole blocks by the names of the inverter's table, anything else by register number."""
    named: Mapping[int, Mapping[str, object]] = {}
    if inverter is not None:
        with suppress(KeyError, ValueError):
            named = inverter.explain({register: words})
    return named.get(register) or {str(register + n): word for n, word in enumerate(words)}


def text(line: Line) -> str:
    """One line for a person."""
    place = line.get("id") or f"unit {line.get('unit')} fc {line.get('function')}"
    signals = line["signals"]
    assert isinstance(signals, Mapping)
    words = " ".join(f"{name}={'–' if value is None else value}" for name, value in signals.items())
    mark = "" if line["ok"] else "  refused"
    return f"{line['t_s']:12.6f}  {place}  {line.get('data', '')}  {line['name'] or '–'}  {words}{mark}"
