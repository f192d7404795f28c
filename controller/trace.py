"""What happened on each tick, as JSON lines: one line for each tick in which anything changed, plus one per second."""

from __future__ import annotations

import hashlib
import json
from operator import attrgetter
from typing import Protocol

from controller.core import CoreState
from controller.model.battery import SIGNALS, BatterySnapshot
from controller.model.events import Notice
from controller.ports import CanFrame, Outputs
from statecharts.supervisor import Contactor, State

LINE_EVERY_MS = 1000
_KEYS = tuple(f'"{name}":' for name in SIGNALS)
_VALUES = attrgetter(*SIGNALS)
_ORDER = {member: n for n, member in enumerate(Contactor)}
_dump = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, check_circular=False).encode


class Lines(Protocol):
    """Where lines go; a text file is one."""

    def write(self, line: str, /) -> object: ...


class Trace:
    """Writes the lines to `out` (None: nowhere) and keeps their hash, so that two runs can be compared.

    A line: {"t_ms", "state", "closed", "signals", "limits", "tx", "events"}; signals holds all, null is unknown.
    """

    def __init__(self, out: Lines | None = None) -> None:
        self.out = out
        self.lines = 0
        self._hash = hashlib.sha256()
        self._last_ms = 0
        self._beside: tuple[object, ...] = ()
        self._frame = ("", "")
        self._signals: tuple[object, ...] = ()
        self._words: list[str] = []

    def add(self, now_ms: int, core: CoreState, outputs: Outputs) -> tuple[object, ...]:
        """Take in one tick. Returns the value of every signal, in the order of SIGNALS."""
        signals = values_of(core.pack)
        limits, frames = core.limits, outputs.battery_frames + outputs.inverter_frames
        published = (int(limits.charge_w), int(limits.discharge_w), limits.charge_by, limits.discharge_by)
        beside = (core.supervisor.state, outputs.closed, published, frames, outputs.events)
        same = signals == self._signals and beside == self._beside
        if same and self.lines and now_ms - self._last_ms < LINE_EVERY_MS:
            return signals
        self._last_ms = now_ms
        if beside != self._beside:
            self._beside, self._frame = beside, _frame_of(*beside)
        before, after = self._frame
        line = f'{{"t_ms":{now_ms},{before},"signals":{{{self._worded(signals)}}},{after}}}\n'
        self.lines += 1
        self._hash.update(line.encode())
        if self.out is not None:
            self.out.write(line)
        return signals

    def _worded(self, signals: tuple[object, ...]) -> str:
        """The signals as the inside of a JSON object; only what changed since the last line is written anew."""
        words, before = self._words, self._signals
        if not words:
            self._words = words = [_word(n, value) for n, value in enumerate(signals)]
        elif signals is not before:
            for n, value in enumerate(signals):
                if value != before[n]:
                    words[n] = _word(n, value)
        self._signals = signals
        return ",".join(words)

    @property
    def sha256(self) -> str:
        """Of all lines so far, whether or not they are written."""
        return self._hash.hexdigest()


def values_of(pack: BatterySnapshot) -> tuple[object, ...]:
    """Every scalar signal in the order of SIGNALS; protocols round them to their resolution."""
    return _VALUES(pack)


def _word(n: int, value: object) -> str:
    return f"{_KEYS[n]}{value!r}" if type(value) is float else f"{_KEYS[n]}{_dump(value)}"


def _frame_of(
    state: State, closed: frozenset[Contactor], published: tuple[object, ...], frames: tuple[CanFrame, ...],
    events: tuple[Notice, ...],
) -> tuple[str, str]:  # fmt: skip
    """What stands before the signals of a line, and after them."""
    charge_w, discharge_w, charge_by, discharge_by = published
    tx = ",".join(f'"{frame.id:03X}#{frame.data.hex().upper()}"' for frame in frames)
    told = _dump([[e.id.value, e.severity.value, e.detail] for e in events]) if events else "[]"
    names = ",".join(f'"{c.value}"' for c in sorted(closed, key=_ORDER.__getitem__))
    limits = (
        f'{{"charge_w":{charge_w},"discharge_w":{discharge_w},'
        f'"charge_by":{_dump(charge_by)},"discharge_by":{_dump(discharge_by)}}}'
    )
    before = f'"state":"{state.value}","closed":[{names}]'
    return before, f'"limits":{limits},"tx":[{tx}],"events":{told}'
