"""Bugs as people make them, each planted in a copy of the tree: the fast tests find every one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.mutation.copies import CHART, FAST, UNIT, copy_tree

BENCH = [f"tests/requirements/test_{name}.py" for name in ("records", "recovery", "closing", "attacks", "stopping")]


class Bug(NamedTuple):
    """What is planted: in this file, this text (once) becomes that."""

    name: str
    file: str
    was: str
    now: str


CHARGED = '    Row(S.PRECHARGING, (G.LINK_CHARGED,), S.CLOSING_POSITIVE, "link-charged", unless=(G.SUSPECTED,)),\n'
FAILED = '    Row(S.PRECHARGING, (G.PRECHARGE_FAILED,), S.COOLING_DOWN, "precharge-failed"),\n'
OVERDUE = '    Row(S.PRECHARGING, (G.PRECHARGE_OVERDUE,), S.COOLING_DOWN, "precharge-overdue"),\n'
BUGS = (
    Bug("two rows are swapped", "statecharts/supervisor.py", FAILED + OVERDUE + CHARGED, CHARGED + FAILED + OVERDUE),
    Bug("a state is exempt from a stop", "statecharts/supervisor.py",
        '*(Row(s, (G.OPEN_NOW,), S.VERIFYING_OPEN, "open-now") for s in ENERGISED)',
        '*(Row(s, (G.OPEN_NOW,), S.VERIFYING_OPEN, "open-now") for s in ENERGISED if s is not S.PRECHARGING)'),
    Bug("unknown counts as low enough", "controller/safety/rules.py",
        "def _reaches(value: float | None, bound: float) -> bool | None:\n    return None if value is None",
        "def _reaches(value: float | None, bound: float) -> bool | None:\n    return False if value is None"),
    Bug("an unknown signal stops no ladder", "controller/supervisor.py",
        "return sup.state in LADDER and bool(missing_feeds(s.pack, s.settings, s.now_ms))", "return False"),
    Bug("an unknown link voltage is a charged one", "controller/precharge.py",
        "level = fraction >= enough and abs(pack_v - link_v) <= settings.charged_gap_v", "level = True"),
    Bug("an unknown SoC is no bound", "controller/safety/envelope.py", 'up.append(("unknown SoC", 0.0))', "pass"),
    Bug("an emergency stop that cannot be read any more is not wired", "controller/core.py",
        "estop_ok = False if seen.estop_seen and inputs.estop_ok is None else inputs.estop_ok",
        "estop_ok = inputs.estop_ok"),
    Bug("a debounce starts anew with every bad tick", "controller/safety/monitor.py",
        "bad_since_ms = now_ms if track.bad_since_ms is None else track.bad_since_ms", "bad_since_ms = now_ms"),
    Bug("a second cause restarts the wait", "controller/supervisor.py",
        "return min([sup.unload_by_ms, *waits])", "return min(waits) if waits else sup.unload_by_ms"),
    Bug("the fuse's time starts anew with every tick", "controller/supervisor.py",
        "if wants_open != (sup.fuse_since_ms is not None):", "if wants_open:"),
    Bug("an SoC jump raises the limit", "controller/safety/envelope.py",
        'name, limit_w = "soc-jump", limit_w / 2', 'name, limit_w = "soc-jump", limit_w * 2'),
    Bug("a held cause no longer forbids charging", "controller/safety/monitor.py",
        "return tuple(r for r in self._acting if r.charge and _limits(r))",
        "return tuple(r for r in self._acting if r.charge and _limits(r) and not self.tracks[r.id].held)"),
    Bug("one fault hides another", "controller/safety/monitor.py",
        "            news.append(Notice(rule.id, rule.severity, rule.detail(situation)))",
        "            news.append(Notice(rule.id, rule.severity, rule.detail(situation)))\n"
        "            changed[rule.id] = after\n            break"),
    Bug("a persisted latch is forgotten", "controller/core.py", "monitor.start(kept.latched)", "monitor.start(())"),
    Bug("only what still acts is persisted", "controller/core.py",
        "latched = tuple(rule.id.value for rule in faults.held)",
        "latched = tuple(r.id.value for r in faults.held if faults.active_since_ms(r.id) is not None)"),
    Bug("a lock-out is forgotten over a restart", "controller/core.py", "locked=kept.locked_out, ", ""),
    Bug("the ladder waits for no record", "controller/supervisor.py",
        "return sup.recorded_seq is not None and sup.stored_seq >= sup.recorded_seq and not withheld(s, sup, faults)",
        "return not withheld(s, sup, faults)"),
    Bug("a recovery charge masks heat too", "controller/safety/rules.py",
        "lambda s: _reaches(s.pack.temp_max_c, s.settings.pack.temp_max_c + 5.0)",
        "lambda s: False if s.recovering else _reaches(s.pack.temp_max_c, s.settings.pack.temp_max_c + 5.0)"),
    Bug("what is still there can be acknowledged", "controller/safety/monitor.py",
        "if track.active_since_ms is not None or track.good_since_ms is None:", "if track.good_since_ms is None:"),
    Bug("the gate only warns", "controller/safety/gate.py",
        "wanted = wanted._replace(\n            closed=frozenset(), ", "wanted = wanted._replace(\n            "),
    Bug("a weld after opening is not believed", "controller/weld.py",
        "return replace(watch, suspected=elapsed_ms >= AUX_MS)", "return replace(watch, proven_open=True)"),
)  # fmt: skip


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_tree(tmp_path_factory.mktemp("planted"))


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_what_would_be_planted_is_still_there(bug: Bug):
    source = (Path(__file__).parents[2] / bug.file).read_text(encoding="utf-8")
    assert source.count(bug.was) == 1


@pytest.mark.slow
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_found_by_the_fast_tests(bug: Bug, copy: Path):
    path = copy / bug.file
    source = path.read_text(encoding="utf-8")
    path.write_text(source.replace(bug.was, bug.now), encoding="utf-8")
    try:
        judged = run_in(copy)
        while judged.returncode < 0:  # somebody else ended it
            judged = run_in(copy)
    finally:
        path.write_text(source, encoding="utf-8")
    assert judged.returncode == 1, judged.stdout[-2000:]
    assert "FAILED" in judged.stdout  # a test says so; it is no mere crash at import


def run_in(copy: Path) -> subprocess.CompletedProcess[str]:
    """The fast tests, until the first one fails."""
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", "-m", FAST.strip('"')]
    return subprocess.run(
        [*command, *UNIT, *CHART, *BENCH], cwd=copy, env=os.environ | {"PYTHONPATH": str(copy)}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
