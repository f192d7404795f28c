"""The generated pages docs/protocols/*.md: every protocol as its running tables have it, frames drawn as text.

What a protocol's module holds is drawn: its docstring, the .dbc files beside it, `Block`s of registers, tables of what
is sent (rows with `can_id` and `payloads`), FROZEN frames, and its constants UNCERTAIN and RECORDINGS.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from itertools import groupby
from pathlib import Path
from string import ascii_letters
from types import ModuleType
from typing import Any, NamedTuple

import cantools
from cantools.database.can import Message, Signal

from controller.batteries.base import BatteryProtocol
from controller.batteries.registry import BATTERIES
from controller.codec.dbc import Layout
from controller.codec.registers import Block, Register, RegisterError
from controller.inverters.base import InverterProtocol
from controller.inverters.registry import INVERTERS
from controller.model.settings import Option
from controller.ports import RegisterWrite
from controller.schedule import Beat

AnyProtocol = BatteryProtocol | InverterProtocol
NO = "–"


def module_of(protocol: AnyProtocol) -> ModuleType:
    return sys.modules[type(protocol).__module__]


def page(protocol: AnyProtocol, module: ModuleType) -> str:
    """One protocol's page."""
    sections = [
        f"# {protocol.title}",
        f"Generated from `{_sources(protocol, module)}` by `make docs`.",
        (module.__doc__ or "").strip(),
        _facts(_battery_facts(protocol) if isinstance(protocol, BatteryProtocol) else _inverter_facts(protocol)),
        _recordings(module),
        _uncertain(module),
        _options(protocol.options),
        *_frames(module, dbc_files(protocol, module)),
        *_sent_tables(module),
        *_frozen(module),
        *_blocks(protocol, module),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def dbc_files(protocol: AnyProtocol, module: ModuleType) -> list[Path]:
    return sorted(Path(str(module.__file__)).parent.glob(f"{protocol.name}*.dbc"))


def _sources(protocol: AnyProtocol, module: ModuleType) -> str:
    folder = "batteries" if isinstance(protocol, BatteryProtocol) else "inverters"
    names = [f"controller/{folder}/{protocol.name}.py", *(path.name for path in dbc_files(protocol, module))]
    return "`, `".join(names)


# --- what it is ------------------------------------------------------------------------------------------------------


def _battery_facts(battery: BatteryProtocol) -> dict[str, str]:
    return {
        "in the config": f'`[battery] name = "{battery.name}"`',
        "wirings": ", ".join(f"`{wiring}`" for wiring in battery.wirings),
        "chemistries": ", ".join(battery.chemistries),
        "line": _line(battery),
        "cannot give": "; ".join(feed.value for feed in sorted(battery.lacks)) or NO,
        "told from others by": _ids(battery.telling),
        "may be sent": _ids(battery.tx),
    }


def _line(battery: BatteryProtocol) -> str:
    """CAN, or how its serial line is set with each choice."""
    if battery.line is None:
        return "CAN"
    choices = [(option.name, choice) for option in battery.options for choice in option.choices]
    bauds = {f"{name} {choice}": battery.line({name: choice}).baud for name, choice in choices}
    different = {battery.line({}).baud} | set(bauds.values())
    if len(different) == 1:
        return f"serial, {different.pop()} baud, 8N1"
    return "serial, 8N1; " + ", ".join(f"{choice}: {baud} baud" for choice, baud in bauds.items())


def _inverter_facts(inverter: InverterProtocol) -> dict[str, str]:
    line = "" if inverter.line is None else f"Modbus RTU, unit {inverter.unit}, {inverter.line.baud} baud, 8N1"
    return {
        "in the config": f'`[inverter] name = "{inverter.name}"`',
        "line": line or f"CAN, {inverter.bitrate} bit/s",
        "gives its go before we close": "yes" if inverter.asks else "no",
        "limits are 0 after its silence of": _time(inverter.zero_ms),
        "we open after its silence of": _time(inverter.silent_ms),
        "follows a new limit within": _time(inverter.follow_ms),
        "is offered at most": f"{inverter.max_w:g} W",
        "says": _ids(inverter.rx),
        "may be told": _ids(inverter.tx),
    }


def _facts(facts: Mapping[str, str]) -> str:
    return _table(("", ""), [(name, value) for name, value in facts.items() if value != NO])


def _ids(ids: Iterable[int]) -> str:
    return _runs(ids, "0x{:03X}") or NO


def _recordings(module: ModuleType) -> str:
    """What it was checked with, and where that comes from. Nothing in RECORDINGS: none is public."""
    origins: Mapping[str, str] = getattr(module, "RECORDINGS", {})
    pinned = [f"- `{name}`, from {origin}" for name, origin in origins.items()] or ["None: no public one is known."]
    return "## Recordings that pin it\n\n" + "\n".join(pinned)


def _uncertain(module: ModuleType) -> str:
    doubts = getattr(module, "UNCERTAIN", ())
    return "## Uncertain\n\n" + "\n".join(f"- {doubt}" for doubt in doubts) if doubts else ""


def _options(options: Sequence[Option]) -> str:
    if not options:
        return ""
    rows = [(f"`{o.name}`", _default(o), _bounds(o), o.unit or NO, o.text) for o in options]
    return "## Options\n\n" + _table(("key", "default", "may be", "unit", ""), rows)


def _default(option: Option) -> str:
    if option.yours:
        return "yours to set"
    if isinstance(option.default, str):
        return f"`{option.default}`" if option.default else NO
    return f"`{str(option.default).lower()}`"


def _bounds(option: Option) -> str:
    if option.choices:
        return ", ".join(f"`{choice}`" for choice in option.choices)
    if isinstance(option.default, bool):
        return "`true`, `false`"
    if option.low is not None or option.high is not None:
        low, high = (NO if bound is None else f"{bound:g}" for bound in (option.low, option.high))
        return f"{low} … {high}"
    return f"`{option.pattern}`" if option.pattern else NO


# --- frames ----------------------------------------------------------------------------------------------------------


class Drawn(NamedTuple):
    """One drawing: the signals of a message, or of multiplexer values that are laid out alike.

    indices: those values, empty without a multiplexer. signals: those of the first; names: of all, by place.
    """

    indices: tuple[int, ...]
    signals: tuple[Signal, ...]
    names: tuple[tuple[str, ...], ...]


def _frames(module: ModuleType, files: Sequence[Path]) -> Iterator[str]:
    for path in files:
        database: Any = cantools.database.load_file(str(path), database_format="dbc")
        yield f"## Frames of {path.name}"
        if comment := _file_comment(path):
            yield comment
        for message in sorted(database.messages, key=lambda message: message.frame_id):
            yield _frame(message, module.TABLES.layouts.get(message.name))


def _file_comment(path: Path) -> str:
    """The comment of a .dbc as a whole, which cantools does not keep."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return next((line[5:-2] for line in lines if line.startswith('CM_ "') and line.endswith('";')), "")


def _frame(message: Message, layout: Layout | None) -> str:
    """One message; layout: as it is used, None when it is documented only."""
    parts = [f"### 0x{message.frame_id:03X} {message.name}", f"Source: {message.comment}"]
    parts[1:1] = ["Documented only: it is not read."] if layout is None else _use(message, layout)
    for drawn in _drawn(message):
        if drawn.indices:
            parts.append(f"Multiplexer {_runs(drawn.indices)}:")
        parts += [_drawing(message.length, drawn.signals), _signals(drawn)]
    return "\n\n".join(parts)


def _use(message: Message, layout: Layout) -> Iterator[str]:
    round_ms = next(iter(layout.pages.values())).round_ms
    facts = [
        f"{message.length} bytes" + (", no other length" if layout.exact else ""),
        f"every {_time(layout.cycle_ms)}" if layout.cycle_ms else "when it has something to say",
        f"all pages in {_time(round_ms)}" if round_ms != layout.cycle_ms else "",
        "other pages than these are ignored" if layout.unlisted else "",
        f"from {' and '.join(message.senders)}" if message.senders else "",
    ]
    yield "; ".join(fact for fact in facts if fact) + "."
    if layout.check is not None:
        yield "Refused unless: " + " ".join((layout.check.__doc__ or layout.check.__name__).split())


def _drawn(message: Message) -> list[Drawn]:
    common = [signal for signal in message.signals if not signal.multiplexer_ids]
    indices = sorted({index for signal in message.signals for index in signal.multiplexer_ids or ()})
    if not indices:
        return [_alike((), [_sorted(common)])]
    pages = [_sorted([*common, *(s for s in message.signals if i in (s.multiplexer_ids or ()))]) for i in indices]
    groups = groupby(zip(indices, pages, strict=True), key=lambda page: [_shape(signal) for signal in page[1]])
    return [_alike(*zip(*group, strict=True)) for _, group in groups]


def _alike(indices: Sequence[int], pages: Sequence[Sequence[Signal]]) -> Drawn:
    names = zip(*([signal.name for signal in page] for page in pages), strict=True)
    return Drawn(tuple(indices), tuple(pages[0]), tuple(names))


def _sorted(signals: Iterable[Signal]) -> list[Signal]:
    """By the first bit on the wire."""
    return sorted(signals, key=lambda signal: (min(_bits(signal), key=_place), signal.length, signal.name))


def _place(bit: tuple[int, int]) -> tuple[int, int]:
    return bit[0], -bit[1]


def _shape(signal: Signal) -> tuple[object, ...]:
    choices = tuple((raw, str(name)) for raw, name in (signal.choices or {}).items())
    name = re.sub(r"\d+", "#", signal.name)
    return name, signal.start, signal.length, signal.byte_order, signal.is_signed, signal.scale, signal.offset, choices


def _bits(signal: Signal) -> list[tuple[int, int]]:
    """Byte and bit (7: the highest) of each. A DBC starts little-endian at the lowest bit, big-endian at the top."""
    if signal.byte_order == "little_endian":
        return [divmod(bit, 8) for bit in range(signal.start, signal.start + signal.length)]
    first = 8 * (signal.start // 8) + 7 - signal.start % 8
    return [(place // 8, 7 - place % 8) for place in range(first, first + signal.length)]


def _letter(index: int) -> str:
    return ascii_letters[index % len(ascii_letters)]


def _drawing(length: int, signals: Sequence[Signal]) -> str:
    """A byte a line, its highest bit first; a letter for each signal, a dot for a bit nobody explains."""
    cells = {bit: _letter(index) for index, signal in enumerate(signals) for bit in _bits(signal)}
    rows = [[cells.get((byte, bit), ".") for bit in range(7, -1, -1)] for byte in range(length)]
    lines = [f"{byte:4}  {' '.join(row)}" for byte, row in enumerate(rows)]
    return "\n".join(("```text", "byte  7 6 5 4 3 2 1 0", *lines, "```"))


def _signals(drawn: Drawn) -> str:
    rows = [
        (_letter(index), _name(names), _notation(signal), _value(signal), _unknown(signal), _remarks(signal))
        for index, (signal, names) in enumerate(zip(drawn.signals, drawn.names, strict=True))
    ]
    return _table(("", "signal", "bits", "value", "unknown", "remarks"), rows)


def _name(names: Sequence[str]) -> str:
    different = list(dict.fromkeys(names))
    if len(different) <= 3:
        return ", ".join(f"`{name}`" for name in different)
    return f"`{different[0]}`, `{different[1]}` … `{different[-1]}`"


def _notation(signal: Signal) -> str:
    """As in the .dbc: start, length, byte order (1 little-endian), sign."""
    order, sign = int(signal.byte_order == "little_endian"), "-" if signal.is_signed else "+"
    return f"`{signal.start}|{signal.length}@{order}{sign}`"


def _value(signal: Signal) -> str:
    factor = "" if signal.scale == 1 else f"× {signal.scale:g}"
    offset = "" if not signal.offset else f"{'+' if signal.offset > 0 else '−'} {abs(signal.offset):g}"
    unit = {"degC": "°C"}.get(signal.unit or "", signal.unit or "")
    return " ".join(part for part in (factor, offset, unit) if part) or NO


def _unknown(signal: Signal) -> str:
    mask = (1 << signal.length) - 1
    raws = [raw & mask for raw, name in (signal.choices or {}).items() if str(name) == "SNA"]
    return ", ".join(f"0x{raw:X}" for raw in raws) or NO


def _remarks(signal: Signal) -> str:
    names = [f"{raw} {name}" for raw, name in (signal.choices or {}).items() if str(name) != "SNA"]
    said = "multiplexer" if signal.is_multiplexer else ""
    return "; ".join(part for part in (said, ", ".join(names), signal.comment or "") if part) or NO


# --- what is sent ----------------------------------------------------------------------------------------------------


def _sent_tables(module: ModuleType) -> Iterator[str]:
    """Every table of the module whose rows are periodic frames."""
    for name, rows in vars(module).items():
        if (
            isinstance(rows, tuple)
            and rows
            and all(hasattr(row, "payloads") and hasattr(row, "can_id") for row in rows)
        ):
            fields = [field for field in rows[0]._fields if field not in ("can_id", "payloads")]
            head = ("id", *(field.removesuffix("_ms") for field in fields), "frames in turn", "the first")
            yield f"## Sent: {name}\n\n" + _table(head, [_sent(row, fields) for row in rows])


def _sent(row: Any, fields: Sequence[str]) -> tuple[str, ...]:
    told = [_told(getattr(row, field), field) for field in fields]
    return f"0x{row.can_id:03X}", *told, str(len(row.payloads)), f"`{_hex(row.payloads[0])}`"


def _told(value: object, field: str) -> str:
    if isinstance(value, Beat):
        return _time(value.period_ms) + (f", first after {_time(value.phase_ms)}" if value.phase_ms else "")
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, bool):
        return "yes" if value else NO
    return _time(value) if isinstance(value, int) and field.endswith("_ms") else str(value or NO)


def _frozen(module: ModuleType) -> Iterator[str]:
    frozen: Mapping[int, tuple[bytes, ...]] = getattr(module, "FROZEN", {})
    if frozen:
        rows = [(f"0x{can_id:03X}", f"`{_hex(data)}`") for can_id, payloads in frozen.items() for data in payloads]
        yield "## Frozen frames\n\n" + _table(("id", "always"), rows)


def _hex(data: bytes) -> str:
    return data.hex(" ").upper()


# --- registers -------------------------------------------------------------------------------------------------------


def _blocks(protocol: AnyProtocol, module: ModuleType) -> Iterator[str]:
    for value in vars(module).values():
        if isinstance(value, Block) and isinstance(protocol, InverterProtocol):
            last = value.first + value.length - 1
            who = "written and read by the inverter" if _writable(protocol, value) else "read by the inverter"
            title = f"## Registers {value.first} to {last}, {who}"
            if not value.registers:
                yield f"{title}\n\nAll 0."
                continue
            rows = [_register(row) for row in value.registers]
            yield (
                f"{title}\n\n" + _table(("register", "name", "value", "type", "until told"), rows) + "\n\nOthers are 0."
            )


def _writable(protocol: InverterProtocol, block: Block) -> bool:
    try:
        protocol.check_write(RegisterWrite(block.first, (0,)))
    except RegisterError:
        return False
    return True


def _register(row: Register) -> tuple[str, ...]:
    last = row.number + row.words - 1
    numbers = str(row.number) if row.words == 1 else f"{row.number} to {last}"
    value = " ".join(part for part in ("" if row.scale == 1 else f"× {row.scale:g}", row.unit) if part)
    kind = f"{row.words * 2} characters" if row.text else f"{'int' if row.signed else 'uint'}{row.width}"
    return numbers, f"`{row.name}`", value or NO, kind, f"`{row.preset}`" if row.preset else "0"


# --- text ------------------------------------------------------------------------------------------------------------


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def _runs(numbers: Iterable[int], shown: str = "{}") -> str:
    """0 … 36, 40, 41: three and more in a row as a range."""
    runs = groupby(enumerate(sorted(numbers)), key=lambda place: place[1] - place[0])
    texts: list[str] = []
    for _, run in runs:
        texts_of_run = [shown.format(number) for _, number in run]
        texts += texts_of_run if len(texts_of_run) < 3 else [f"{texts_of_run[0]} … {texts_of_run[-1]}"]
    return ", ".join(texts)


def _time(ms: int) -> str:
    return f"{ms} ms" if ms < 1000 or ms % 100 else f"{ms / 1000:g} s"


def _page_of(protocol: AnyProtocol) -> Callable[[], str]:
    return lambda: page(protocol, module_of(protocol))


EVERY: tuple[AnyProtocol, ...] = (*BATTERIES.values(), *INVERTERS.values())
PAGES: Mapping[str, Callable[[], str]] = {f"protocols/{each.name}.md": _page_of(each) for each in EVERY}
