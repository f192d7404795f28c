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
        if name in batteries:
            raise RecordingError(f"{path}: a recording of a serial line, {name} speaks on CAN")
        yield from _rtu(recording, inverters[name or "byd_modbus"])
        return
    if name in inverters:
        raise RecordingError(f"{path}: a recording of a CAN bus; {name} speaks Modbus")
    identity = identify(recording, batteries, name)
    if identity.battery is None:
        what = f"the inverter's side ({identity.partner})" if identity.partner else "no pack known here"
        raise RecordingError(f"{path}: {what}" + (f" ({name} says nothing in it)" if name else ""))
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
            "signals": {key: _tidy(value) for _, values in readings for key, value in values.items()},
            "ok": bool(readings) or not known,
        }


def _tidy(value: object) -> object:
    """A float without the tail of its binary fraction."""
    return round(value, 6) if isinstance(value, float) else value


def _rtu(recording: Recording, inverter: InverterProtocol) -> Iterator[Line]:
    """A listener hears both sides in one stream: an answer is told from a request by its length and what was asked."""
    asked: tuple[int, int, int] | None = None
    for stamp_us, chunk in recording.chunks():
        line: Line = {"t_s": stamp_us / 1e6, "data": chunk.hex().upper(), "unit": None, "function": None}
        body = chunk[:-2]
        if len(chunk) < 5 or _crc16(body) != int.from_bytes(chunk[-2:], "little"):
            yield {**line, "name": None, "signals": {}, "ok": False}
            continue
        unit, function = body[0], body[1]
        line |= {"unit": unit, "function": function}
        request = function == 3 and len(chunk) == 8
        if request:
            asked = (unit, 1 + int.from_bytes(body[2:4], "big"), int.from_bytes(body[4:6], "big"))
        name, register, words = _meaning(body, request, asked)
        yield {**line, "name": name, "signals": _named(inverter, register, words), "ok": True}


def _meaning(body: bytes, request: bool, asked: tuple[int, int, int] | None) -> tuple[str, int, tuple[int, ...]]:
    """What a chunk is, the register it begins at (0: none), and the words it carries."""
    function = body[1]
    if request:
        return f"read {1 + int.from_bytes(body[2:4], 'big')} x{int.from_bytes(body[4:6], 'big')}", 0, ()
    if function == 3 and asked is not None and body[0] == asked[0] and body[2] == 2 * asked[2] == len(body) - 3:
        return f"answer {asked[1]} x{asked[2]}", asked[1], _words(body[3:])
    if function == 16:
        register, count = 1 + int.from_bytes(body[2:4], "big"), int.from_bytes(body[4:6], "big")
        if len(body) == 6:
            return f"written {register} x{count}", 0, ()
        return f"write {register} x{count}", register, _words(body[7:])
    return ("exception" if function & 0x80 else "unasked"), 0, ()


def _words(data: bytes) -> tuple[int, ...]:
    return tuple(int.from_bytes(data[n : n + 2], "big") for n in range(0, len(data) - 1, 2))


def _named(inverter: InverterProtocol, register: int, words: tuple[int, ...]) -> Mapping[str, object]:
    """Whole blocks by the names of the inverter's table, anything else by register number."""
    try:
        named = inverter.explain({register: words})
    except (KeyError, ValueError):
        named = {}
    return named.get(register) or {str(register + n): word for n, word in enumerate(words)}


def _crc16(data: bytes) -> int:
    """CRC-16/Modbus (Modbus over serial line V1.02, 6.2.2)."""
    crc = 0xFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ 0xA001 if crc & 1 else crc >> 1
    return crc


def text(line: Line) -> str:
    """One line for a person."""
    place = line.get("id") or f"unit {line.get('unit')} fc {line.get('function')}"
    signals = line["signals"]
    assert isinstance(signals, Mapping)
    words = " ".join(f"{name}={'–' if value is None else value}" for name, value in signals.items())
    mark = "" if line["ok"] else "  refused"
    return f"{line['t_s']:12.6f}  {place}  {line.get('data', '')}  {line['name'] or '-'}  {words}{mark}"
