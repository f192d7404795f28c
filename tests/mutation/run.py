"""make mutation: cosmic-ray's mutants of the safety core, each put into a copy of the tree and judged by its tests.

python -m tests.mutation.run [--sample N] [--seed S] [--workers W] [--unit-only] [FILE ...]

mutmut 3 changes the bodies of functions only, and most of this core is tables. Of cosmic-ray's operators those are
used whose mutant can live: the neighbour and the opposite of a comparison, a number one up and one down, and so on.
The others raise TypeErrors and would flatter the score. What lives since it changes nothing stands in equivalent.toml.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import multiprocessing
import os
import random
import resource
import shlex
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cosmic_ray.commands.init import _all_work_items
from cosmic_ray.mutating import mutate_code, use_mutation
from cosmic_ray.plugins import get_operator
from cosmic_ray.work_item import MutationSpec

from tests.mutation.copies import BENCH, CHART, FAST, ROOT, UNIT, copy_tree

EQUIVALENT = Path(__file__).with_name("equivalent.toml")
TARGET_PCT = 95.0
SPARE_S, PATIENCE = 60.0, 10.0
"""A mutant's tests may take so much longer than without it; what takes longer is a loop that never ends."""
TRIES = 5
MEMORY_BYTES = 4 << 30
"""A mutant that loops may also eat: it gets no more than this, and its tests fail."""

REPLACED = (
    "Lt_LtE", "Lt_GtE", "LtE_Lt", "LtE_Gt", "Gt_GtE", "Gt_LtE", "GtE_Gt", "GtE_Lt", "Eq_NotEq", "NotEq_Eq", "Is_IsNot",
    "IsNot_Is", "Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul", "BitOr_BitAnd", "BitAnd_BitOr", "Delete_Not", "Delete_USub",
)  # fmt: skip
OTHERS = (
    "AddNot", "NumberReplacer", "ReplaceAndWithOr", "ReplaceOrWithAnd", "ReplaceTrueWithFalse", "ReplaceFalseWithTrue",
    "ZeroIterationForLoop", "ReplaceBreakWithContinue", "ReplaceContinueWithBreak", "RemoveDecorator",
)  # fmt: skip

FIRST = {"rules": 0, "situation": 2, "monitor": 1, "supervisor": 2, "envelope": 3, "gate": 4}
CHECKED_ONLY = ("statecharts/explore.py", "statecharts/interlocks.py")
"""They judge the chart and run nowhere else."""


@dataclass(frozen=True)
class Mutant:
    """One change: the file, the line it stands in, and what was and is there."""

    spec: MutationSpec
    file: str
    line: int
    was: str
    now: str

    @property
    def key(self) -> tuple[str, str, str]:
        return self.file, self.was, self.now

    def __str__(self) -> str:
        return f"{self.file}:{self.line}\n    - {self.was}\n    + {self.now}"


def files() -> list[Path]:
    """The core whose mutants are judged."""
    found = [*(ROOT / "statecharts").glob("*.py"), *(ROOT / "controller/safety").glob("*.py")]
    kept = sorted(path for path in found if path.name not in ("__init__.py", "render.py"))
    return [*kept, ROOT / "controller/supervisor.py"]


def annotations(source: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """From where to where annotations stand: they are never evaluated here."""
    nodes = ast.walk(ast.parse(source))
    found = [each for node in nodes for name in ("annotation", "returns") if (each := getattr(node, name, None))]
    return [((each.lineno, each.col_offset), (each.end_lineno, each.end_col_offset)) for each in found]


def specs_of(path: Path) -> list[tuple[Path, MutationSpec]]:
    """Where a file can be changed so that it may still run."""
    source = path.read_text(encoding="utf-8")
    lines, unread, found = source.splitlines(), annotations(source), []
    for item in _all_work_items([path], {}):
        spec = item.mutations[0]
        name = spec.operator_name.removeprefix("core/")
        row, column = spec.start_pos
        start = (row, len(lines[row - 1][:column].encode()))
        chosen = name in OTHERS or any(name.endswith(f"_{pair}") for pair in REPLACED)
        if chosen and not any(begin <= start < end for begin, end in unread):
            found.append((path, spec))
    return found


def mutants(specs: Iterable[tuple[Path, MutationSpec]]) -> Iterator[Mutant]:
    """The mutant of each spec, none twice."""
    seen: set[tuple[Path, str]] = set()
    for path, spec in specs:
        source = path.read_text(encoding="utf-8")
        mutated = mutate_code(source, get_operator(spec.operator_name)(), spec.occurrence)
        if mutated in (None, source) or (path, mutated) in seen:
            continue
        seen.add((path, mutated))
        changed = list(difflib.unified_diff(source.splitlines(), mutated.splitlines(), n=0, lineterm=""))[2:]
        was = " ".join(line[1:].strip() for line in changed if line.startswith("-"))
        now = " ".join(line[1:].strip() for line in changed if line.startswith("+"))
        if "slots=False" in now:  # what an object weighs, not what it does
            continue
        yield Mutant(spec, str(path.relative_to(ROOT)), spec.start_pos[0], was, now)


def stages(file: str, unit_only: bool) -> Iterator[str]:
    """The commands that judge a mutant of this file, quickest first. A test that fails ends it."""
    pytest = f"{sys.executable} -m pytest -x -q -p no:cacheprovider --no-header"
    chosen = f"-m {FAST}"
    if file in CHECKED_ONLY:
        yield f"{pytest} {chosen} {' '.join(CHART)}"
        return
    first = FIRST.get(Path(file).stem) if file.startswith("controller") else None
    unit = UNIT if first is None else (UNIT[first], *UNIT[:first], *UNIT[first + 1 :])
    chart = CHART[1:3] if file.startswith("statecharts") else ()
    yield f"{pytest} {chosen} {' '.join((*chart, *unit))}"
    if not unit_only:
        yield f"{pytest} {chosen} {' '.join(BENCH)}"


def at_home(unit_only: bool, folder: str, longest_s: float) -> None:
    """A worker's own copy, in which it stays."""
    global _unit_only, _longest_s
    _unit_only, _longest_s = unit_only, longest_s
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    copy = copy_tree(folder)
    os.chdir(copy)
    os.environ["PYTHONPATH"] = str(copy)


_unit_only, _longest_s = False, 0.0


def judged(mutant: Mutant) -> tuple[Mutant, str]:
    """killed, timeout or survived."""
    operator = get_operator(mutant.spec.operator_name)()
    with use_mutation(Path(mutant.file), operator, mutant.spec.occurrence):
        for command in stages(mutant.file, _unit_only):
            if outcome := tried(shlex.split(command)):
                return mutant, outcome
    return mutant, "survived"


def tried(command: list[str]) -> str:
    """What the tests say: "" when they pass. A run that somebody else ended says nothing and is tried again."""
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    for _ in range(TRIES):
        try:
            done = subprocess.run(command, env=environment, capture_output=True, timeout=_longest_s, check=False)
        except subprocess.TimeoutExpired:
            return "timeout"
        if done.returncode >= 0:
            return "killed" if done.returncode else ""
    return "killed"


def equivalents() -> dict[tuple[str, str, str], str]:
    """What changes nothing: (file, was, now) → why."""
    listed = tomllib.loads(EQUIVALENT.read_text(encoding="utf-8")).get("mutant", [])
    return {(each["file"], each["was"], each["now"]): each["why"] for each in listed}


def main() -> int:
    parser = argparse.ArgumentParser(description="Mutation run over the safety core.")
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--sample", type=int, default=0, help="so many mutants, spread over all files; 0: all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--unit-only", action="store_true", help="leave the bench tests out: quicker, kills less")
    parser.add_argument("--list", action="store_true", help="only count them")
    args = parser.parse_args()
    specs = [spec for path in [path.resolve() for path in args.files] or files() for spec in specs_of(path)]
    if args.sample:
        random.Random(args.seed).shuffle(specs)
    known, met = equivalents(), set()
    alive: list[Mutant] = []
    for mutant in mutants(specs):
        if mutant.key in known:
            met.add(mutant.key)
        else:
            alive.append(mutant)
        if args.sample and len(alive) == args.sample:
            break
    print(f"{len(alive)} mutants, {len(met)} more are known to change nothing", flush=True)
    print(", ".join(f"{file} {n}" for file, n in sorted(Counter(m.file for m in alive).items())), flush=True)
    if args.list:
        return 0
    stale = set(known) - met if not args.sample and not args.files else set()
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        slowest_s = healthy_s(alive, args.unit_only, folder)
        if slowest_s is None:
            return 1
        done = run(alive, args.workers, args.unit_only, folder, SPARE_S + PATIENCE * slowest_s)
    return report(done, stale)


def healthy_s(alive: list[Mutant], unit_only: bool, folder: str) -> float | None:
    """How long the slowest command takes without any change; None when one fails: all would seem to be killed."""
    copy, slowest_s = copy_tree(folder), 0.0
    for command in dict.fromkeys(command for mutant in alive for command in stages(mutant.file, unit_only)):
        began = time.monotonic()
        environment = os.environ | {"PYTHONPATH": str(copy)}
        done = subprocess.run(
            shlex.split(command), cwd=copy, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            print(f"the tests fail without a mutant:\n{done.stdout[-3000:]}")
            return None
        slowest_s = max(slowest_s, time.monotonic() - began)
    return slowest_s


def run(alive: list[Mutant], workers: int, unit_only: bool, folder: str, longest_s: float) -> list[tuple[Mutant, str]]:
    """Judge them all, telling how far it is."""
    began, done = time.monotonic(), []
    with multiprocessing.Pool(workers, at_home, (unit_only, folder, longest_s)) as pool:
        for mutant, outcome in pool.imap_unordered(judged, alive):
            done.append((mutant, outcome))
            if outcome != "killed":
                print(f"{outcome}: {mutant}", flush=True)
            if len(done) % 10 == 0:
                print(f"{len(done)} of {len(alive)}, {time.monotonic() - began:.0f} s", flush=True)
    return done


def report(done: list[tuple[Mutant, str]], stale: set[tuple[str, str, str]]) -> int:
    """The score, and what to do something about. A mutant that ran out of time counts as killed and is counted."""
    counted = Counter(outcome for _, outcome in done)
    killed = len(done) - counted["survived"]
    score = 100.0 * killed / len(done) if done else 100.0
    print(f"score {score:.1f} %: {killed} of {len(done)} killed, {counted['timeout']} of these by time")
    for file, was, now in sorted(stale):
        print(f"no such mutant any more, take it out of {EQUIVALENT.name}: {file}\n    - {was}\n    + {now}")
    return 0 if score >= TARGET_PCT and not stale else 1


if __name__ == "__main__":
    sys.exit(main())
