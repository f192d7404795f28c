"""Incident bundles: opened, checked, and replayed tick by tick. What is in one: `controller.blackbox`.

    bundle = open_bundle("0007-20261101T120003Z-1f0c2a9b-fault.zip")
    replay = BundleReplay(bundle)
    result = replay.run()
    assert replay.differs is None                       # the live trace, byte by byte

A bundle may come from anywhere: it is data, checked before anything is made of it, and never code.
"""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from controller import core
from controller.blackbox import BATTERY_BUS, INVERTER_BUS, SCHEMA, STEADY, VOCABULARY
from controller.codec.frozen import FrozenError
from controller.core import CoreState
from controller.model.events import Event
from controller.ports import CanFrame, Command, CommandKind, Inputs, Outputs, RegisterWrite
from controller.safety.situation import missing_feeds
from controller.trace import Trace
from sim.replay import Active, Result, StateChange, Tally, Watcher
from statecharts.supervisor import Contactor, State

MAGIC = b"PK\x03\x04"
SMALL = 16 * 1024 * 1024
LARGE = 1024 * 1024 * 1024
"""The most that a bundle's files may unpack to, the two streams and all others."""
STREAMS = ("frames.log", "ticks.jsonl")
_FRAME = re.compile(rb"\((\d{1,12})\.(\d{3})000\) (can0|can1) ([0-9A-F]{3}|[0-9A-F]{8})#((?:[0-9A-F]{2}){0,64})\n")
_BROKEN = (zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError, RuntimeError)


class BundleError(Exception):
    """The file is no bundle, or not whole, or not of this program. One line that names it."""


class Tick(NamedTuple):
    """inputs: None when the tick broke before they were read. crc: of the trace line it added live, None for none."""

    now_ms: int
    inputs: Inputs | None
    crc: int | None
    by: str = ""


class Row(NamedTuple):
    """A chunk of the manifest: the tick it begins with, its state, and what its trace must add up to."""

    state: str
    tick: int
    ticks: int
    from_ms: int
    trace_sha256: str


@dataclass(frozen=True)
class Bundle:
    """A whole bundle of this program. Every method raises BundleError."""

    path: Path
    manifest: Mapping[str, Any]
    chunks: tuple[Row, ...]
    config: str

    @property
    def from_ms(self) -> int:
        return self.chunks[0].from_ms

    def state(self, chunk: int) -> CoreState:
        """The core before the first tick of a chunk."""
        try:
            state = VOCABULARY.loads(_member(self.path, self.chunks[chunk].state))
        except FrozenError as error:
            raise BundleError(f"{self.path}: its state is not of this program: {error}; written by packwarden "
                              f"{self.manifest.get('program')}") from None  # fmt: skip
        if not isinstance(state, CoreState):
            raise BundleError(f"{self.path}: {self.chunks[chunk].state} is no state of the core")
        return state

    def ticks(self, begin: int = 0) -> Iterator[Tick]:
        """Every tick from number `begin` on."""
        with _reading(self.path) as archive, archive.open(STREAMS[0]) as log, archive.open(STREAMS[1]) as lines:
            steady: dict[str, Any] = {}
            for number, line in enumerate(lines):
                try:
                    said = json.loads(line)
                    steady = {name: said[name] for name in ("feedback", *STEADY)} if "feedback" in said else steady
                    counts = said.get(BATTERY_BUS, 0), said.get(INVERTER_BUS, 0)
                    if number < begin:
                        for _ in islice(log, sum(counts)):
                            pass
                    else:
                        yield _tick(said, steady, log)
                except (ValueError, LookupError, TypeError, AttributeError, RecursionError, StopIteration) as error:
                    reason = " ".join(str(error).split())[:80]
                    raise BundleError(
                        f"{self.path}: ticks.jsonl, line {number + 1} cannot be read ({reason})"
                    ) from None


def _tick(said: Mapping[str, Any], steady: Mapping[str, Any], log: Any) -> Tick:
    now_ms, crc = int(said["t_ms"]), said.get("crc")
    if said.get("blind"):
        return Tick(now_ms, None, crc)
    inputs = Inputs(
        battery_frames=_frames(log, said.get(BATTERY_BUS, 0), BATTERY_BUS),
        battery_bytes=bytes.fromhex(said.get("bytes", "")),
        inverter_frames=_frames(log, said.get(INVERTER_BUS, 0), INVERTER_BUS),
        register_writes=[RegisterWrite(register, tuple(words)) for register, words in said.get("writes", ())],
        register_polls=said.get("polls", 0),
        commands=[Command(**{**wish, "kind": CommandKind(wish["kind"])}) for wish in said.get("commands", ())],
        breakdowns=[Event(name) for name in said.get("breakdowns", ())],
        **{**steady, "feedback": {Contactor(name): closed for name, closed in steady["feedback"].items()}},
    )
    return Tick(now_ms, inputs, crc, said.get("by", ""))


def _frames(log: Any, count: int, bus: str) -> list[CanFrame]:
    return [_frame(next(log), bus.encode()) for _ in range(count)]


def _frame(line: bytes, bus: bytes) -> CanFrame:
    found = _FRAME.fullmatch(line)
    if found is None or found[3] != bus:
        raise ValueError(f"frames.log: {line[:60]!r} is no frame of {bus.decode()}")
    return CanFrame(int(found[4], 16), bytes.fromhex(found[5].decode()), int(found[1] + found[2]), len(found[4]) == 8)


# --- opening ---


def is_bundle(path: Path) -> bool:
    """Does the file begin as a bundle does? False when it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def open_bundle(path: str | Path) -> Bundle:
    """Read what it says of itself, and check every byte of it. Raises BundleError."""
    path = Path(path)
    manifest = manifest_of(path)
    try:
        chunks = tuple(Row(*(row[name] for name in Row._fields)) for row in manifest["chunks"])
        digests = dict(manifest["sha256"])
        typed = [Row(str(c.state), int(c.tick), int(c.ticks), int(c.from_ms), str(c.trace_sha256)) == c for c in chunks]
        if not chunks or not all(typed) or not {"config.toml", *STREAMS} <= digests.keys():
            raise ValueError
    except (ValueError, KeyError, TypeError):
        raise BundleError(f"{path}: its manifest says nothing that can be replayed") from None
    _check(path, digests, [chunk.state for chunk in chunks])
    return Bundle(path, manifest, chunks, _member(path, "config.toml").decode("utf-8", "replace"))


def manifest_of(path: Path) -> dict[str, Any]:
    """What a bundle says of itself, its files unchecked. Raises BundleError."""
    try:
        manifest = json.loads(_member(path, "manifest.json"))
        schema = manifest["schema"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise BundleError(f"{path}: this is no incident bundle (its manifest cannot be read)") from None
    if type(schema) is not int or schema < 1:
        raise BundleError(f"{path}: this is no incident bundle (its manifest has no schema)")
    if schema > SCHEMA:
        raise BundleError(f"{path}: a bundle of version {schema}, this program reads {SCHEMA}: update the program")
    return dict(manifest)


def _check(path: Path, digests: Mapping[str, Any], states: list[str]) -> None:
    """Every file the manifest names is there, no other is, and each is what it was when it was written."""
    with _reading(path) as archive:
        names = [info.filename for info in archive.infolist()]
        if sorted(names) != sorted({*digests, "manifest.json"}) or not set(states) <= digests.keys():
            raise BundleError(f"{path}: it does not hold the files its manifest names")
        if sum(info.file_size for info in archive.infolist()) > LARGE:
            raise BundleError(f"{path}: it is larger than any bundle can be")
        for name, digest in digests.items():
            total = hashlib.sha256()
            with archive.open(name) as member:
                while piece := member.read(1 << 18):
                    total.update(piece)
            if total.hexdigest() != digest:
                raise BundleError(f"{path}: {name} is not as it was written (its checksum is wrong)")


def _member(path: Path, name: str) -> bytes:
    with _reading(path) as archive:
        try:
            if archive.getinfo(name).file_size > SMALL:
                raise BundleError(f"{path}: {name} is too large")
            return archive.read(name)
        except KeyError:
            raise BundleError(f"{path}: this is no incident bundle (there is no {name} in it)") from None


@contextmanager
def _reading(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except _BROKEN as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is torn or damaged"
        raise BundleError(f"{path}: {reason}") from None


# --- replaying ---


class _Lines:
    """Hands the trace on, and keeps the CRC of the line a tick added."""

    def __init__(self, out: TextIO | None) -> None:
        self.out, self.crc = out, None  # type: TextIO | None, int | None
        self.all = hashlib.sha256()

    def write(self, line: str) -> None:
        data = line.encode()
        self.crc = zlib.crc32(data)
        self.all.update(data)
        if self.out is not None:
            self.out.write(line)


class BundleReplay:
    """The core, given again what it went by. differs: the time of the first tick whose trace is not the live one.

    pace: called with each tick's time since the beginning, to wait for it. begin: the chunk to start from.
    """

    def __init__(self, bundle: Bundle, trace: TextIO | None = None, begin: int = 0) -> None:
        self.bundle, self.begin = bundle, begin
        self.state = bundle.state(begin)
        self.from_ms = bundle.chunks[begin].from_ms
        self.differs: int | None = None
        self.pace: Callable[[int], None] | None = None
        self._lines = _Lines(trace)

    def run(self, watchers: tuple[Watcher, ...] = ()) -> Result:
        """Every tick; times in the result count from the first. Raises BundleError."""
        try:
            return self._run(watchers)
        except (BundleError, OSError):
            raise
        except Exception as error:
            raise BundleError(f"{self.bundle.path}: its state is none a core can have ({error!r:.80})") from error

    def _run(self, watchers: tuple[Watcher, ...]) -> Result:
        sup = self.state.supervisor
        result, tally = Result(states=[StateChange(0, sup.state.value, sup.cause)]), Tally()
        last_cells: dict[int, float] = {}
        for t_ms, outputs, signals in self._decisions():
            state = self.state
            tally.add(signals)
            if state.supervisor.state.value != result.final_state:
                result.states.append(StateChange(t_ms, state.supervisor.state.value, state.supervisor.cause))
            result.events += [(t_ms, notice) for notice in outputs.events]
            result.registers = outputs.registers or result.registers
            last_cells.update((n, volts) for n, volts in enumerate(state.pack.cells_v) if volts is not None)
            if state.supervisor.state is State.RUNNING and not state.faults.held:
                result.active = Active(t_ms, state.limits, outputs.registers, _to_inverter(state))
            for watch in watchers:
                watch(t_ms, state, outputs)
            result.ticks += 1
        result.signals = tally.finished()
        settings = self.state.setup.settings
        result.cells_v = tuple(last_cells.get(n) for n in range(settings.pack.cells))
        result.frames = _to_inverter(self.state)
        result.missing = tuple(f.value for f in missing_feeds(self.state.pack, settings, self.state.limits.at_ms))
        result.trace_sha256, result.core = self._lines.all.hexdigest(), self.state
        return result

    def _decisions(self) -> Iterator[tuple[int, Outputs, tuple[object, ...]]]:
        """Time since the beginning, outputs and signals of each tick; looks whether they are what they were live."""
        chunks = self.bundle.chunks[self.begin :]
        ticks = self.bundle.ticks(chunks[0].tick)
        for chunk in chunks:
            trace = Trace(self._lines)
            last_ms = chunk.from_ms
            for tick in islice(ticks, chunk.ticks):
                t_ms, last_ms = tick.now_ms - self.from_ms, tick.now_ms
                if self.pace is not None:
                    self.pace(t_ms)
                outputs = self._step(tick)
                self._lines.crc = None
                signals = trace.add(tick.now_ms, self.state, outputs)
                if self._lines.crc != tick.crc and self.differs is None:
                    self.differs = tick.now_ms
                yield t_ms, outputs, signals
            if trace.sha256 != chunk.trace_sha256 and self.differs is None:
                self.differs = last_ms

    def _step(self, tick: Tick) -> Outputs:
        """As the loop has it: what breaks opens, and the state stays."""
        if tick.inputs is None:
            return Outputs()
        try:
            self.state, outputs = core.step(self.state, tick.inputs, tick.now_ms)
        except Exception:  # noqa: BLE001 - it broke live as well, or the trace differs here
            return Outputs()
        return outputs


def _to_inverter(state: CoreState) -> tuple[CanFrame, ...]:
    return () if state.view is None else state.inverter.image(state.view)
