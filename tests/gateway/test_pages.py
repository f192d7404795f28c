"""What the page says, as text: every value with its age, unknown as –, old as old, and why, in words."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from controller.catalogue import CATALOGUE
from controller.config import parse, show
from controller.gateway.history_store import LEVEL_OF, Chart, Told
from controller.gateway.pages import diagram, papers, view
from controller.gateway.pages.view import Seen
from controller.model.events import Event
from controller.safety import envelope
from statecharts.shadow import SHADOW
from statecharts.supervisor import SUPERVISOR, State
from tests.gateway import statuses
from tests.live.world import CONFIG

PIECES = (view.state, view.charge, view.limits, view.spread, view.health)
RUNNING, HELD, UNHEARD = statuses.running(), statuses.held(), statuses.unheard()


def text(html: str) -> str:
    """What a person reads of it."""
    parts: list[str] = []
    parser = HTMLParser()
    parser.handle_data = parts.append  # type: ignore[method-assign]
    parser.feed(html)
    return re.sub(r"\s+", " ", " ".join(parts))


def now(status: statuses.Status | None = RUNNING, age_s: float = 0.4, lost: str = "") -> Seen:
    return Seen(status, age_s, lost)


def test_every_value_has_an_age():
    for html in (view.values(now(), view.PACK), view.limits(now()), view.charge(now()), view.spread(now())):
        values = html.count("<b>") if "huge" not in html else html.count('class="huge"')
        assert values
        assert html.count('class="age"') >= values - html.count("mV</b>")


def test_the_age_is_that_of_the_signal_and_of_the_status_together():
    aged = {**RUNNING, "ages_s": {**RUNNING["ages_s"], "pack_voltage_v": 2.0}}
    assert "362.40 V 5.5 s" in text(view.values(now(aged, 3.5), view.PACK))


def test_what_is_unknown_is_a_dash_without_an_age():
    read = text(view.values(now(UNHEARD), view.PACK))
    assert "Voltage – V –" in read
    assert "Interlock loop –" in read
    assert not re.search(r"\bnan|None\b", read, re.IGNORECASE)


@pytest.mark.parametrize("seen", [now(age_s=30.0), now(age_s=3.0, lost="no controller answers")])
def test_what_is_old_is_never_shown_as_it_is_now(seen: Seen):
    assert "OLD VALUES" in text(view.banner(seen))
    assert text(view.chip(seen)) == "RUNNING ?"
    for piece in (view.charge, view.limits, view.spread):
        assert " old" in piece(seen).split(">")[0] or 'class="old"' in piece(seen)
    assert " old" in view.values(seen, view.PACK).split(">")[0]


def test_what_is_fresh_has_no_banner():
    assert view.banner(now()) == ""
    assert text(view.chip(now())) == "RUNNING"


def test_before_anything_was_heard_nothing_is_made_up():
    seen = Seen(None, 0.0, "no controller answers")
    assert "Nothing is known" in text(view.banner(seen))
    assert [piece(seen) for piece in PIECES] == [""] * len(PIECES)


def test_a_state_says_why_it_is_there_and_what_it_waits_for():
    standby = {**RUNNING, "state": "STANDBY", "withheld": ["battery: unknown soc_pct", "<script>"], "closed": []}
    html = view.state(now(standby))
    assert "It waits for: battery: unknown soc_pct" in text(html)
    assert "<script>" not in html
    assert "hvil-open: The pack reports its high-voltage interlock loop open." in text(view.state(now(HELD)))


def test_a_fault_says_what_likely_is_behind_it_and_what_to_do():
    read = text(view.fault(now(HELD), HELD["faults"][0]))
    for words in ("interlock loop open", "open, gone, held", "Likely: A high-voltage connector", "Do: Switch the DC"):
        assert words in read


def test_everything_that_can_bound_the_power_is_said_in_words():
    source = Path(envelope.__file__).read_text(encoding="utf-8")
    names = {*re.findall(r'\("([^"]+)",', source), "mean cell"} - {"max_charge_w"}
    assert {"max_power_w", "operator cap", "unknown SoC", "BMS current", "highest cell", "starting"} <= names
    assert [name for name in names if view.bounded_by(name) == name] == []
    for name in (*State.__members__, *(event.value for event in Event)):
        assert len(view.bounded_by(name)) > len(name)
    assert view.bounded_by("rising to BMS") == "a slow rise, towards what the pack's BMS allows"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(None, "–"), (0.04, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (99, "99 s"), (600, "10 min"), (7200, "2 h"),
     (259_200, "3 d")],
)  # fmt: skip
def test_ages_are_short(seconds: float | None, said: str):
    assert view.ago(seconds) == said


# --- the machine ---


@pytest.mark.parametrize("wiring", SUPERVISOR.wirings)
def test_the_drawing_has_the_states_of_the_wiring_and_marks_the_present_one(wiring: str):
    drawn = diagram.mermaid(SUPERVISOR, wiring, "RUNNING")
    assert drawn.endswith("class RUNNING present")
    for row in diagram.rows_of(SUPERVISOR.name, wiring):
        if row.source is not row.target:
            assert f"{row.source.name} --> {row.target.name} : " in drawn
            assert row.cause in drawn
    assert ("PRECHARGING" in drawn) is (wiring == "own")


def test_listening_only_is_drawn_by_the_chart_that_then_runs():
    assert diagram.chart_of(True) is SHADOW
    assert "recorded-closed" in diagram.mermaid(SHADOW, "pack", "STANDBY")


@pytest.mark.parametrize("state", State)
def test_every_state_tells_its_ways_out_in_words(state: State):
    rows = [row for row in diagram.rows_of(SUPERVISOR.name, "own") if row.source is state]
    read = text(diagram.ways_out(SUPERVISOR, "own", state.value))
    assert all(row.cause in read for row in rows)
    assert all(str(guard.value).replace("  ", " ") in read for row in rows for guard in row.reads)


# --- what needs the web libraries ---

pages = pytest.importorskip("controller.gateway.pages.events")


def told(at_s: float, name: str, severity: str, detail: str) -> Told:
    return Told(1, at_s, at_s, None, name, severity, detail)


def test_an_event_says_how_long_the_reaction_took():
    html = pages.table(
        [told(10.12, "state-changed", "info", "RUNNING → VERIFYING_OPEN: open-now"),
         told(10.0, "hvil-open", "open", "CLOSED a090")]
    )  # fmt: skip
    assert "VERIFYING_OPEN after 0.12 s" in text(html)
    assert "Do: Switch the DC breaker off" in text(html)


def test_a_detail_cannot_bring_markup_into_the_page():
    assert "<img" not in pages.table([told(1.0, "<img src=x>", "info", "<img src=x>")])


def test_a_chart_draws_the_discharge_limit_below_zero_and_gaps_as_gaps():
    from controller.gateway.pages import history

    band = ([1000.0, None], [2000.0, None], [3000.0, None])
    chart = Chart(LEVEL_OF["minutes"], 60.0, [0.0, 60.0], {"limit_discharge_w": band}, True)
    mean, low, wide = (s["data"] for s in history.option(chart, {"limit_discharge_w": "discharge limit"})["series"])
    assert mean == [[0, -2000.0], [60_000, None]]
    assert (low[0][1], low[0][1] + wide[0][1]) == (-3000.0, -1000.0)


def test_the_config_is_shown_as_it_is_written():
    shown = show(parse(CONFIG, "controller.toml", CATALOGUE))
    names = ("inverter.off_grid", "battery.energy_full_wh", "battery.cells")
    read = [text(papers._section({name: shown[name]})) for name in names]
    assert [line.rstrip().rpartition(" ")[2] for line in read] == ["false", "–", "96"]
