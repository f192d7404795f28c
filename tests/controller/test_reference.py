"""No event lacks its words, no rule its row, and the committed pages are those of the running tables."""

from pathlib import Path

import pytest

from controller.model.events import Event
from controller.model.texts import TEXTS
from controller.reference import PAGES
from controller.safety.rules import RULES

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("name", PAGES)
def test_the_committed_page_is_current(name: str):
    assert (DOCS / name).read_text(encoding="utf-8") == PAGES[name](), "stale: run `make docs`"


def test_every_event_says_what_why_and_what_to_do():
    assert set(TEXTS) == set(Event)
    assert all(part.endswith(".") for text in TEXTS.values() for part in text)


def test_every_rule_has_an_event_of_its_own_and_a_reason():
    ids = [rule.id for rule in RULES]
    assert len(ids) == len(set(ids))
    assert all(rule.why.endswith(".") and rule.threshold for rule in RULES)


def test_a_rule_that_opens_declares_how_fast_or_follows_the_round_of_its_source():
    by_round = {Event.CELL_DATA_LOST, Event.TEMPERATURE_DATA_LOST, Event.CONTACTOR_DATA_LOST, Event.HVIL_DATA_LOST}
    at_rest = {Event.PACK_REFUSES, Event.PRECHARGE_TRIES_SPENT, Event.UNCLEAN_RESTART, Event.UNCLEAN_RESTARTS_SPENT}
    opening = [rule for rule in RULES if rule.severity.value in ("graceful", "open")]
    assert len(opening) > 20
    for rule in opening:
        assert rule.budget_ms or rule.id in by_round | at_rest, rule.id


def test_debounce_and_wait_fit_into_the_budget():
    for rule in RULES:
        if rule.budget_ms is not None and not rule.id.value.endswith(("-lost", "-silent")):
            assert rule.hold_ms + rule.wait_ms + 120 * bool(rule.wait_ms) <= rule.budget_ms, rule.id
