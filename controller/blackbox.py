"""The black box: every input of the last ten minutes, in bounded memory, so that a replay decides the same again.

A ring of chunks of 20 s, the oldest dropped. Each holds the core's state before its first tick and, compressed, what
every tick went by. A bundle is a zip of them; `sim.bundle` reads it:

    manifest.json      who wrote it, when and why; the chunks, each with the SHA-256 of its trace lines
    config.toml        as it was read, secrets removed
    states/<n>.json    the core's state before tick n of ticks.jsonl (codec.frozen)
    frames.log         candump text: battery bus can0, inverter bus can1; stamps in s of the loop's clock
    ticks.jsonl        a line for each tick: {"t_ms": 81230, "can0": 4, "crc": 2868340001}

A tick's line: t_ms its time; can0, can1 how many of the next frames it took in, can0 first; bytes, writes, polls,
commands (by: who gave them) and breakdowns whatever else came; feedback, estop_ok, interlock_ok, link_voltage_v,
link_at_ms, stored_seq all together when one of them changed, and in the first tick of a chunk. error: it broke; blind:
before its inputs were read. crc: CRC-32 of the line it added to the trace, missing when it added none.
"""

from __future__ import annotations

import json
import sys
import zlib
from collections import deque
from collections.abc import Iterable
from functools import lru_cache
from operator import attrgetter
from typing import Any, Final, NamedTuple

from controller import core, ports, precharge, schedule, supervisor, watch, weld
from controller.batteries.registry import BATTERIES
from controller.codec import dbc, isotp
from controller.codec.frozen import Vocabulary
from controller.core import CoreState
from controller.inverters.registry import INVERTERS
from controller.model import battery, events, inverter, reading, settings
from controller.ports import CanFrame, Inputs, Outputs
from controller.safety import envelope, gate, monitor
from controller.trace import Trace
from statecharts import chart, shadow
from statecharts import supervisor as machine

SCHEMA: Final = 1
LIMIT_BYTES: Final = 12 * 1024 * 1024
SPAN_MS: Final = 600_000
CHUNK_MS: Final = 20_000
STATE_BYTES: Final = 64 * 1024
"""What the state at the beginning of a chunk is reckoned with."""
LEVEL: Final = 4
"""Of zlib: 6 to 7 bytes a frame of a recorded car; higher ones cost twice as much and save a tenth."""
BATTERY_BUS, INVERTER_BUS = "can0", "can1"
STEADY: Final = ("estop_ok", "interlock_ok", "link_voltage_v", "link_at_ms", "stored_seq")
_STEADY = attrgetter(*STEADY)

_OWN = [sys.modules[type(protocol).__module__] for protocol in (*BATTERIES.values(), *INVERTERS.values())]
VOCABULARY: Final = Vocabulary(
    (core, ports, precharge, schedule, supervisor, watch, weld, battery, events, inverter, reading, settings, envelope,
     gate, monitor, dbc, isotp, chart, machine, shadow, *_OWN)
)  # fmt: skip
"""Everything a state is made of."""


class Chunk(NamedTuple):
    """state: before the first tick. log, lines: the text of its frames and ticks, as zlib has it."""

    state: CoreState
    from_ms: int
    to_ms: int
    ticks: int
    frames: int
    log: bytes
    lines: bytes
    trace_sha256: str

    @property
    def size(self) -> int:
        return len(self.log) + len(self.lines) + STATE_BYTES


class Decided(NamedTuple):
    """One tick that is over. by: who gave its command, error: what broke it; both empty otherwise."""

    before: CoreState
    after: CoreState
    outputs: Outputs
    now_ms: int
    by: str = ""
    error: str = ""


class BlackBox:
    """`took` is the loop's recorder, `decided` is told of the tick when it is over."""

    def __init__(self, limit_bytes: int = LIMIT_BYTES, span_ms: int = SPAN_MS, chunk_ms: int = CHUNK_MS) -> None:
        self.limit_bytes, self._span_ms, self._chunk_ms = limit_bytes, span_ms, chunk_ms
        self._chunks: deque[Chunk] = deque()
        self._held = 0
        self._writing: _Writing | None = None
        self._taken: tuple[Inputs, int] | None = None

    def took(self, inputs: Inputs, now_ms: int) -> None:
        """What the tick will go by."""
        self._taken = inputs, now_ms

    def decided(self, tick: Decided) -> None:
        """What it made of it. Its time counts only when it broke before it took anything."""
        (inputs, now_ms), self._taken = self._taken or (None, tick.now_ms), None
        if now_ms != tick.now_ms:
            tick = tick._replace(now_ms=now_ms)
        if self._writing is None:
            self._writing = _Writing(tick.before, tick.now_ms)
        writing = self._writing
        writing.add(inputs, tick)
        full = writing.size >= STATE_BYTES + max(STATE_BYTES, self.limit_bytes // 16)
        if full or tick.now_ms - writing.from_ms >= self._chunk_ms:
            self._close()
        while self._chunks and self._drops(tick.now_ms):
            self._held -= self._chunks.popleft().size

    def _drops(self, now_ms: int) -> bool:
        """Whether the oldest chunk goes: there is no room for it, or the others reach back far enough."""
        following = self._chunks[1].from_ms if len(self._chunks) > 1 else now_ms
        return self.size > self.limit_bytes or now_ms - following >= self._span_ms

    def cut(self) -> tuple[Chunk, ...]:
        """Everything that is held, oldest first. What follows begins a chunk."""
        self._close()
        return tuple(self._chunks)

    def _close(self) -> None:
        if self._writing is not None:
            self._chunks.append(chunk := self._writing.finished())
            self._held += chunk.size
            self._writing = None

    @property
    def size(self) -> int:
        """Bytes held."""
        return self._held + (self._writing.size if self._writing else 0)

    @property
    def span_ms(self) -> int:
        """How long the time is that is held."""
        oldest = self._chunks[0] if self._chunks else self._writing
        newest = self._writing or (self._chunks[-1] if self._chunks else None)
        return newest.to_ms - oldest.from_ms if oldest and newest else 0


class _Writing:
    """The chunk being written. Text is compressed as it comes, so that no tick pays for the others."""

    def __init__(self, state: CoreState, now_ms: int) -> None:
        self.state, self.from_ms, self.to_ms = state, now_ms, now_ms
        self.ticks = self.frames = 0
        self.size = STATE_BYTES
        self._log, self._lines = _Deflated(), _Deflated()
        self._trace = Trace(self)
        self._steady: list[Any] = []
        self._crc: int | None = None

    def write(self, line: str) -> None:
        """The line that this tick adds to the trace."""
        self._crc = zlib.crc32(line.encode())

    def add(self, inputs: Inputs | None, tick: Decided) -> None:
        self._crc = None
        self._trace.add(tick.now_ms, tick.after, tick.outputs)
        if inputs is not None and (inputs.battery_frames or inputs.inverter_frames):
            text = _candump(inputs.battery_frames, BATTERY_BUS) + _candump(inputs.inverter_frames, INVERTER_BUS)
            self.size += self._log.add(text)
            self.frames += len(inputs.battery_frames) + len(inputs.inverter_frames)
        self.size += self._lines.add(self._line(inputs, tick))
        self.ticks += 1
        self.to_ms = tick.now_ms

    def _line(self, inputs: Inputs | None, tick: Decided) -> str:
        crc = "" if self._crc is None else f',"crc":{self._crc}'
        if inputs is None:
            return f'{{"t_ms":{tick.now_ms},"blind":true,"error":{json.dumps(tick.error)}{crc}}}\n'
        head = f'{{"t_ms":{tick.now_ms}'
        if inputs.battery_frames:
            head += f',"{BATTERY_BUS}":{len(inputs.battery_frames)}'
        if inputs.inverter_frames:
            head += f',"{INVERTER_BUS}":{len(inputs.inverter_frames)}'
        more = _rare(inputs, tick)
        feedback, *others = steady = [dict(inputs.feedback), *_STEADY(inputs)]
        if steady != self._steady:
            self._steady = steady
            more["feedback"] = {member.value: closed for member, closed in feedback.items()}
            more |= zip(STEADY, others, strict=True)
        rest = f",{json.dumps(more, ensure_ascii=False, separators=(',', ':'))[1:-1]}" if more else ""
        return f"{head}{rest}{crc}}}\n"

    def finished(self) -> Chunk:
        return Chunk(
            self.state, self.from_ms, self.to_ms, self.ticks, self.frames, self._log.finished(), self._lines.finished(),
            self._trace.sha256,
        )  # fmt: skip


def _rare(inputs: Inputs, tick: Decided) -> dict[str, Any]:
    """What most ticks do not have."""
    said = {
        "bytes": inputs.battery_bytes.hex(),
        "writes": [[write.register, list(write.values)] for write in inputs.register_writes],
        "polls": inputs.register_polls,
        "commands": [command._asdict() | {"kind": command.kind.value} for command in inputs.commands],
        "by": tick.by,
        "breakdowns": [event.value for event in inputs.breakdowns],
        "error": tick.error,
    }
    return {name: value for name, value in said.items() if value}


@lru_cache(maxsize=1024)
def _ident(can_id: int, extended: bool) -> str:
    return f"{can_id:08X}" if extended else f"{can_id:03X}"


def _candump(frames: Iterable[CanFrame], bus: str) -> str:
    """`(81.230000) can0 132#7D83D5FFE23FFF0F`, a line each."""
    lines, stamp_ms, front = [], None, ""
    for can_id, data, at_ms, extended in frames:
        if at_ms != stamp_ms:
            stamp_ms, front = at_ms, f"({at_ms // 1000}.{at_ms % 1000:03d}000) {bus} "
        lines.append(f"{front}{_ident(can_id, extended)}#{data.hex().upper()}\n")
    return "".join(lines)


class _Deflated:
    """Text, compressed as it comes."""

    def __init__(self) -> None:
        self._stream, self._parts = zlib.compressobj(LEVEL), bytearray()

    def add(self, text: str) -> int:
        """By how many bytes it grew."""
        more = self._stream.compress(text.encode())
        self._parts += more
        return len(more)

    def finished(self) -> bytes:
        return bytes(self._parts + self._stream.flush())
