"""Generated lives of a garage: a seed draws its options and its troubles, then everything is healed, then it is judged.

Safety phase: the faults happen, and every invariant holds on every tick. Healing phase (L1): all faults end, what broke
is replaced, a person acknowledges by name and enables; within 10 min it is RUNNING, or rests with its reason.

`campaign` runs many, on processes or a Dask cluster, with the same result for the same seeds. A failing life is shrunk
to fewer troubles and a shorter time; (seed, only, until_ms) is all it takes to live it again.
"""

from __future__ import annotations

import json
import multiprocessing
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from controller.model.events import Event
from controller.model.settings import ContactorSettings
from controller.ports import CanFrame, CommandKind, Outputs, Record
from controller.trace import Trace
from sim.faults import TRAPS, Fault, draw
from sim.garage import Build, Garage, LeafEnd, PlainEnd, TeslaEnd
from sim.invariants import BEHIND_FUSE, CAUSES, INVARIANTS
from sim.recording import write_candump
from statecharts.supervisor import SUPERVISOR, Contactor, State

LIVENESS_MS = 600_000
RESTING = (State.STANDBY, State.FAULT, State.LOCKED_OUT)
JUDGED, FULL = 100, 300
"""From so many lives on, a state or a premise that never came fails the campaign; from FULL on, a row too."""
REPEATED_EVERY = 25
"""Of so many lives one is lived twice, traced (I14)."""
MOST_TRIALS = 40
A_TRAP_EVERY = 3
"""Of so many lives one is laid a trap, each in its turn: chance alone does not find every row."""
ROW_OF = {row: n for n, row in enumerate(SUPERVISOR.rows)}


# --- one life ---


@dataclass(frozen=True, slots=True)
class Life:
    """A life that can be lived again. only: which of the drawn troubles happen, None = all. until_ms: when healing
    begins, None = as drawn."""

    seed: int
    only: tuple[int, ...] | None = None
    until_ms: int | None = None

    def drawn(self) -> tuple[Build, list[Fault], int]:
        """Its garage, its troubles and how long they last; fresh objects every time."""
        dice = random.Random(f"life {self.seed}")
        build = _build(dice)
        trap = TRAPS[self.seed // A_TRAP_EVERY % len(TRAPS)] if self.seed % A_TRAP_EVERY == 0 else None
        if trap is not None:
            build = trap.suited(build)
        trouble_ms = dice.choice((20_000, 30_000, 40_000, 60_000, 100_000) if dice.random() < 0.97 else (700_000,))
        faults = draw(dice, build, trouble_ms) if trap is None or dice.random() < 0.5 else []
        if trap is not None:
            faults = [*trap.laid(dice, build, trouble_ms), *faults]
        if self.only is not None:
            faults = [faults[n] for n in self.only]
        return build, faults, trouble_ms if self.until_ms is None else self.until_ms

    @property
    def command(self) -> str:
        """The line that lives it again."""
        only = "" if self.only is None else f" --only {','.join(map(str, self.only)) or 'none'}"
        until = "" if self.until_ms is None else f" --until {self.until_ms / 1000:g}"
        return f"controller sim --campaign 1 --seed {self.seed}{only}{until}"


def _build(dice: random.Random) -> Build:
    wiring = dice.choices(("own", "pack", "pack+inverter", "none"), (40, 25, 20, 15))[0]
    own, relays = wiring == "own", wiring in ("own", "pack+inverter")
    unverified, sensor = own and dice.random() < 0.15, dice.random() < 0.92
    pack = "tesla" if wiring.startswith("pack") else "leaf" if own and dice.random() < 0.35 else "plain"
    stuck = frozenset({dice.choice(_BOARD if own else _BOARD[2:])}) if relays and dice.random() < 0.05 else frozenset()
    return Build(
        wiring, pack=pack, inverter=dice.choices(("registers", "gen24", "byd_can"), (50, 25, 25))[0],
        soc=dice.choice((0.5, 0.5, 0.7, 0.98, 0.2, 0.03)), hurried=dice.random() < 0.75, unverified=unverified,
        sensor=sensor, blind=relays and dice.random() < 0.15, pins=dice.random() < 0.8, off_grid=dice.random() < 0.1,
        auto_enable=dice.random() < 0.1, link_f=dice.choice((0.001, 0.001, 0.0005, 0.002)),
        bleed_ohm=dice.choice((5_000.0, 20_000.0)), disk_ms=dice.choice((0, 30, 30, 400)), record=_record(dice),
        residual_v=dice.choice((0.0, 0.0, 0.0, 0.0, 150.0, 355.0)), welded=stuck, seed=dice.getrandbits(32),
    )  # fmt: skip


_BOARD = (Contactor.NEGATIVE, Contactor.PRECHARGE, Contactor.POSITIVE)


def _record(dice: random.Random) -> Record | None:
    """What an earlier life left behind."""
    left = (
        Record(7, closed=True, closings_age_ms=(50_000,)), Record(9, latched=(Event.BMS_FAULT.value,)),
        Record(4, locked_out=True, latched=(Event.WELD_REPORTED.value,)),
        Record(8, closings_age_ms=tuple(range(60_000, 360_001, 60_000))),
        Record(3, tries=2, precharges_age_ms=((20_000, 2_000), (60_000, 2_000))),
        Record(6, closed=True, unclean_age_ms=(1_000_000, 2_000_000)),
    )  # fmt: skip
    return dice.choice(left) if dice.random() < 0.2 else None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a life showed. broken: what was violated, in words. rows: numbers of the chart's rows that fired. met: how
    often each invariant had something to judge. worst_ms: the longest reaction to each cause. ended: where healing got
    it, with the reason where it rests. repeated: whether it was lived twice for I14."""

    life: Life
    broken: tuple[str, ...]
    states: frozenset[str]
    rows: frozenset[int]
    closings: int
    met: dict[str, int]
    worst_ms: dict[str, int]
    ended: str
    ticks: int
    build: Build
    troubles: tuple[str, ...]
    repeated: bool = False


Watch = Callable[[Garage, Outputs], None]


def live(life: Life, trace: Trace | None = None, watch: Watch | None = None) -> Verdict:
    """Live it. It stops at the first tick in which something is violated."""
    build, faults, until_ms = life.drawn()
    garage = Garage(build, trace)
    if watch is not None:
        garage.observers.append(watch)
    garage.inverter.wish_w = 2_500.0
    garage.ask(CommandKind.ENABLE).plan(*faults)
    while garage.now_ms < until_ms and not garage.broken:
        garage.tick()
    ended = "" if garage.broken else _healed(garage)
    invariants = garage.invariants
    return Verdict(
        life, tuple(garage.broken), frozenset(change.state.value for change in garage.states),
        frozenset(ROW_OF[row] for row in garage.rows), sum(_begins(garage)), dict(invariants.met),
        dict(invariants.worst_ms), ended, garage.now_ms // 10, build,
        tuple(map(str, faults)),
    )  # fmt: skip


def _begins(garage: Garage) -> Iterator[bool]:
    """Whether each change of state was the beginning of a closing."""
    return (change.cause == "ready" for change in garage.states)


def _healed(garage: Garage) -> str:
    """Heal it and let a person insist; where it ends, in words. A liveness that fails is added to what is broken."""
    repair(garage.end_all())
    end_ms = garage.now_ms + LIVENESS_MS
    while garage.now_ms < end_ms and not garage.broken:
        garage.tick()
        if garage.at is State.RUNNING:
            return "RUNNING"
        if garage.now_ms % 1_000 == 0:
            if garage.state.supervisor.exiting and garage.down_until_ms is None and garage.at in RESTING:
                garage.cut_power(1_000)  # the service has stopped; it is started again
            garage.acknowledge_all().ask(CommandKind.ENABLE)
    if garage.broken:
        return ""
    if garage.at not in RESTING or not garage.reason:
        garage.broken.append(f"L1 at {garage.now_ms} ms: healed, and {garage.at.value} without a reason")
    return f"{garage.at.value}: {garage.reason}"


def repair(garage: Garage) -> None:
    """Replace what broke: relays, fuse, the pack's own contactors; charge the pack, start the inverter anew."""
    for relay in garage.plant.relays.values():
        relay.welded = relay.stuck_open = False
    garage.plant.fuse_blown = False
    garage.inverter.reboot(garage.now_ms)
    garage.inverter.wish_w = 1_000.0
    garage.sensor_on = garage.build.wiring == "own"
    if isinstance(garage.pack, TeslaEnd):
        pack = garage.pack.pack
        pack._welded.clear()
        pack.soc_pct, pack.load_on_link, pack.bms_fault, pack.reset_required = 50.0, False, False, False
    elif isinstance(garage.pack, LeafEnd):
        garage.pack.pack.soc_pct = 50.0
    elif isinstance(garage.pack, PlainEnd):
        garage.pack.cells.charge_to(0.5)


def lived(seed_or_life: int | Life, repeat: bool = False) -> Verdict:
    """A life by its seed; with `repeat` it is lived twice and must leave the same trace (I14)."""
    life = Life(seed_or_life) if isinstance(seed_or_life, int) else seed_or_life
    if not repeat:
        return live(life)
    first, second = Trace(), Trace()
    verdict = live(life, first)
    live(life, second)
    broken = verdict.broken
    if first.sha256 != second.sha256:
        broken = (*broken, f"I14: {first.sha256[:12]} and {second.sha256[:12]} from one seed")
    return replace(verdict, broken=broken, repeated=True)


# --- a failing life, made small ---


def number(broken: str) -> str:
    """`I5` of `I5 at 100 ms: …`."""
    return broken.split()[0].rstrip(":")


def shrink(verdict: Verdict) -> Verdict:
    """The shortest life found that still violates the same invariant: fewer troubles first, then no time after it."""
    wanted, best = number(verdict.broken[0]), verdict
    trials = MOST_TRIALS

    def fails(life: Life) -> bool:
        nonlocal best, trials
        if trials <= 0:
            return False
        trials -= 1
        trial = live(life)
        if trial.broken and number(trial.broken[0]) == wanted:
            best = trial
            return True
        return False

    only = list(verdict.life.only or range(len(verdict.troubles)))
    for n in list(reversed(only)):
        fewer = tuple(m for m in only if m != n)
        if fails(Life(verdict.life.seed, fewer, verdict.life.until_ms)):
            only.remove(n)
    broken_ms, healing_ms = best.ticks * 10, best.life.drawn()[2]
    if broken_ms < healing_ms:  # nothing after the violation is needed
        fails(replace(best.life, until_ms=broken_ms))
        return best
    for share in (0.125, 0.25, 0.5, 0.75):
        shorter_ms = int(healing_ms * share) // 1_000 * 1_000
        if shorter_ms and fails(replace(best.life, until_ms=shorter_ms)):
            break
    return best


def export(life: Life, folder: Path) -> tuple[Path, Path]:
    """Its frames as a candump log, and every input that is no frame as JSON lines; the paths of both."""
    folder.mkdir(parents=True, exist_ok=True)
    frames: list[tuple[int, CanFrame]] = []
    lines: list[str] = []
    before: dict[str, object] = {}

    def keep(garage: Garage, outputs: Outputs) -> None:
        nonlocal before
        heard, now_ms = garage.heard, garage.now_ms
        both = [*heard.battery_frames, *outputs.battery_frames]
        frames.extend((now_ms * 1000 + n * min(250, 10_000 // len(both)), frame) for n, frame in enumerate(both))
        said: dict[str, object] = {
            "feedback": {member.value: closed for member, closed in heard.feedback.items()},
            "estop_ok": heard.estop_ok, "interlock_ok": heard.interlock_ok, "link_voltage_v": heard.link_voltage_v,
            "stored_seq": heard.stored_seq, "register_polls": heard.register_polls,
            "register_writes": [[w.register, list(w.values)] for w in heard.register_writes],
            "commands": [[c.kind.value, c.name] for c in heard.commands],
            "breakdowns": [event.value for event in heard.breakdowns],
            "state": garage.at.value, "closed": sorted(c.value for c in outputs.closed),
        }  # fmt: skip
        news = {name: value for name, value in said.items() if value != before.get(name)}
        before = said
        if news:
            lines.append(json.dumps({"t_ms": now_ms, **news}))

    verdict = live(life, watch=keep)
    log, inputs = folder / f"life-{life.seed}.log", folder / f"life-{life.seed}.jsonl"
    write_candump(log, frames)
    head = {"schema": 1, "command": life.command, "broken": verdict.broken, "build": str(verdict.build),
            "troubles": verdict.troubles}  # fmt: skip
    inputs.write_text("\n".join([json.dumps(head), *lines]) + "\n", encoding="utf-8")
    return log, inputs


# --- many ---


@dataclass
class Summary:
    """What a campaign showed. Equal for equal seeds, whoever lived them and in which order."""

    seeds: int = 0
    ticks: int = 0
    closings: int = 0
    repeated: int = 0
    states: Counter[str] = field(default_factory=Counter)
    rows: Counter[int] = field(default_factory=Counter)
    met: Counter[str] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)
    wirings: Counter[str] = field(default_factory=Counter)
    worst_ms: dict[str, tuple[int, int]] = field(default_factory=dict)
    """(ms, seed) of the slowest reaction to each cause."""
    failures: list[Verdict] = field(default_factory=list)

    def add(self, verdict: Verdict) -> None:
        self.seeds += 1
        self.ticks += verdict.ticks
        self.closings += verdict.closings
        self.repeated += verdict.repeated
        self.states.update(dict.fromkeys(verdict.states, 1))
        self.rows.update(dict.fromkeys(verdict.rows, 1))
        self.met.update({name: int(met > 0) for name, met in verdict.met.items()})
        self.met["I14"] += verdict.repeated
        self.met["L1"] += bool(verdict.ended)
        self.ended.update([verdict.ended or "broken"])
        self.wirings.update([verdict.build.wiring])
        for name, ms in verdict.worst_ms.items():
            self.worst_ms[name] = max(self.worst_ms.get(name, (-1, 0)), (ms, -verdict.life.seed))
        if verdict.broken:
            self.failures.append(verdict)

    @property
    def states_missing(self) -> list[str]:
        return [state.value for state in State if not self.states[state.value]]

    @property
    def rows_missing(self) -> list[str]:
        """L3: each row that never fired, as source → target (cause)."""
        return [
            f"{row.source.value} → {row.target.value} ({row.cause}: {', '.join(g.name for g in row.when)})"
            for n, row in enumerate(SUPERVISOR.rows)
            if not self.rows[n]
        ]

    @property
    def unmet(self) -> list[str]:
        """Invariants whose premise was never true."""
        return [name for name in (*(o.id for o in INVARIANTS), "I14", "L1") if not self.met[name]]

    @property
    def holes(self) -> list[str]:
        """What the campaign was too small, or too tame, to see."""
        holes = [f"state {name} never reached" for name in self.states_missing]
        holes += [f"premise of {name} not met" for name in self.unmet]
        return holes + [f"row never fired: {row}" for row in self.rows_missing]

    @property
    def tame(self) -> bool:
        """It has a hole that a campaign of its size must not have."""
        blind = self.seeds >= JUDGED and bool(self.states_missing or self.unmet)
        return blind or (self.seeds >= FULL and bool(self.rows_missing))

    @property
    def failed(self) -> bool:
        return bool(self.failures) or self.tame


BUDGETS_MS = {cause.id.value: cause.budget_ms for cause in CAUSES} | {
    cause.id.value + BEHIND_FUSE: cause.budget_ms + ContactorSettings().fuse_ms for cause in CAUSES
}


def _one(task: tuple[Life, bool]) -> Verdict:
    life, repeat = task
    return lived(life, repeat)


def tasks(lives: int, seed: int) -> list[tuple[Life, bool]]:
    """The lives of a campaign: seeds from `seed` on."""
    return [(Life(seed + n), n % REPEATED_EVERY == 0) for n in range(lives)]


def campaign(
    work: Sequence[tuple[Life, bool]], workers: int = 1, dask: str | None = None,
    told: Callable[[Verdict], None] = lambda verdict: None,
) -> Summary:  # fmt: skip
    """Live them all. dask: the address of a scheduler instead of `workers` processes. told: of each, as it ends."""
    verdicts: list[Verdict] = []
    for verdict in _spread(work, workers, dask):
        told(verdict)
        verdicts.append(verdict)
    summary = Summary()
    for verdict in sorted(verdicts, key=lambda v: v.life.seed):
        summary.add(verdict)
    return summary


def _spread(work: Sequence[tuple[Life, bool]], workers: int, dask: str | None) -> Iterator[Verdict]:
    """Verdicts in the order they come."""
    if dask is not None:
        yield from _on_dask(work, dask)
    elif workers <= 1:
        yield from map(_one, work)
    else:
        with multiprocessing.Pool(workers) as pool:
            yield from pool.imap_unordered(_one, work)


def _on_dask(work: Sequence[tuple[Life, bool]], address: str) -> Iterator[Verdict]:
    """On the workers of a Dask scheduler; a life whose worker dies is lived on another one."""
    from distributed import Client, as_completed

    with Client(address) as client:  # type: ignore[no-untyped-call]
        futures = client.map(_one, list(work), pure=False, retries=3)
        for future in as_completed(futures):  # type: ignore[no-untyped-call]
            yield future.result()


def first_of_each(failures: Iterable[Verdict], most: int = 5) -> list[Verdict]:
    """One failing life for each invariant violated."""
    found: dict[str, Verdict] = {}
    for verdict in failures:
        found.setdefault(number(verdict.broken[0]), verdict)
    return list(islice(found.values(), most))
