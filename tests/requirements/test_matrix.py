"""No requirement without a test, no safety test without a requirement, and the reviewer's page is that of today."""

from pathlib import Path

import pytest

from controller.hazards import ASSUMPTIONS, FAILURES, HAZARDS
from controller.model.events import Severity
from controller.safety.rules import RULES
from sim import faults
from tests.requirements.matrix import marked_modules, matrix, proofs_of, report
from tests.requirements.requirements import requirements

ROOT = Path(__file__).parents[2]
WISHES = {faults.Ambush, faults.Asks, faults.Insists, faults.Wish}
"""Of the troubles of a simulated life, those that are no failure: what a person wants, and when others happen."""


@pytest.fixture(scope="module")
def proofs():
    return matrix()


def test_every_requirement_has_a_test(proofs):
    assert [name for name in requirements() if not proofs[name]] == []


def test_no_test_names_a_requirement_nobody_knows(proofs):
    assert set(proofs) == set(requirements())


def test_every_safety_test_names_a_requirement():
    here = [module for module in marked_modules() if module.__name__.startswith("tests.requirements.")]
    assert len(here) > 8
    free = [f"{m.__name__}::{name}" for m in here for name, ids in proofs_of(m) if not ids and m.__name__ != __name__]
    assert free == []


def test_the_peers_thirteen_have_a_test_of_their_own_name(proofs):
    for number in range(1, 14):
        named = [test for test in proofs[f"P{number}"] if f"_p{number}_" in test]
        assert named, number


def test_the_committed_report_is_current():
    assert (ROOT / "docs" / "safety.md").read_text(encoding="utf-8") == report(), "stale: run `make docs`"


def test_every_cause_that_stops_is_in_a_failure_and_in_a_hazard():
    stops = {rule.id for rule in RULES if rule.severity in (Severity.GRACEFUL, Severity.OPEN, Severity.LOCK_OUT)}
    assert stops - {event for failure in FAILURES for event in failure.told_by} == set()
    assert stops - {event for hazard in HAZARDS for event in hazard.causes} == set()


def test_every_fault_class_of_the_simulation_is_in_a_failure():
    def leaves(kind: type) -> set[type]:
        return {kind} if not kind.__subclasses__() else {leaf for sub in kind.__subclasses__() for leaf in leaves(sub)}

    ours = {kind for kind in leaves(faults.Fault) if kind.__module__ == faults.__name__} - WISHES
    tried = {name for failure in FAILURES for name in failure.tried_by}
    assert {kind.__name__ for kind in ours} - tried == set()


def test_what_the_report_leans_on_the_readme_tells_the_user_to_provide():
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    for words in ("authority over its contactors", "pack fuse", "DC breaker", "emergency stop in the coil supply",
                  "pull-downs on relay inputs", "external relay watchdog"):  # fmt: skip
        assert words in readme
        assert any(words in assumption for assumption in ASSUMPTIONS), words
