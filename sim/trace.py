"""What happened on each tick, as JSON lines: one line for each tick in which anything changed, plus one per second."""

from __future__ import annotations

import hashlib
import json
from operator import attrgetter
from typing import TextIO

from controller.core import CoreState
from controller.model.battery import RESOLUTION, SIGNALS
from controller.ports import CanFrame, Outputs
from statecharts.supervisor import Contactor

LINE_EVERY_MS = 1000
_NAMES = tuple(name for name in SIGNALS if name in RESOLUTION)
_DECIMALS = tuple(RESOLUTION[name] or None for name in _NAMES)
_NUMBERS = attrgetter(*_NAMES)
_ORDER = {member: n for n, member in enumerate(Contactor)}
_dump = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, check_circular=False).encode


class Trace:
    """Writes the lines to `out` (None: nowhere) and keeps their hash, so that two runs can be compared.

    A line: {"t_ms", "state", "closed", "signals", "limits", "tx", "events"}; signals holds all, null is unknown.
    """

    def __init__(self, out: TextIO | None = None) -> None:
        self.out = out
        self.lines = 0
        self._hash = hashlib.sha256()
        self._last: tuple[object, ...] | None = None
        self._last_ms = 0
        self._pack: object = None
        self._signals: dict[str, object] = {}

    def add(self, now_ms: int, core: CoreState, outputs: Outputs) -> dict[str, object]:
        """Take in one tick. Returns the signals by name."""
        if core.pack is not self._pack:
            self._pack, self._signals = core.pack, _signals(core)
        limits, frames = core.limits, outputs.battery_frames + outputs.inverter_frames
        state = core.supervisor.state.value
        published = (int(limits.charge_w), int(limits.discharge_w), limits.charge_by, limits.discharge_by)
        what = (state, outputs.closed, self._signals, published, frames, outputs.events)
        if what == self._last and now_ms - self._last_ms < LINE_EVERY_MS:
            return self._signals
        self._last, self._last_ms = what, now_ms
        line = _dump(
            {
                "t_ms": now_ms,
                "state": state,
                "closed": [c.value for c in sorted(outputs.closed, key=_ORDER.__getitem__)],
                "signals": self._signals,
                "limits": dict(zip(("charge_w", "discharge_w", "charge_by", "discharge_by"), published, strict=True)),
                "tx": [_frame(frame) for frame in frames],
                "events": [[e.id.value, e.severity.value, e.detail] for e in outputs.events],
            }
        )
        self.lines += 1
        self._hash.update(line.encode() + b"\n")
        if self.out is not None:
            self.out.write(line + "\n")
        return self._signals

    @property
    def sha256(self) -> str:
        """Of all lines so far, whether or not they are written."""
        return self._hash.hexdigest()


def _signals(core: CoreState) -> dict[str, object]:
    """Every scalar signal, rounded to its resolution."""
    pack = core.pack
    values: dict[str, object] = {
        name: None if value is None else round(value, decimals)
        for name, decimals, value in zip(_NAMES, _DECIMALS, _NUMBERS(pack), strict=True)
    }
    values["contactor_state"] = None if pack.contactor_state is None else pack.contactor_state.value
    values["hvil_ok"] = pack.hvil_ok
    return values


def _frame(frame: CanFrame) -> str:
    return f"{frame.id:03X}#{frame.data.hex().upper()}"
