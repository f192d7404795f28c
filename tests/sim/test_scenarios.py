"""Each story ends where it says, no invariant broken, and the picture shows what matters."""

import pytest

from controller.cli_sim import plot_data, recording_into
from sim.plot import PlotRecorder, page
from sim.scenarios import SCENARIOS, run

SHORT = [name for name, scenario in SCENARIOS.items() if scenario.duration_ms <= 60_000]
LONG = [name for name in SCENARIOS if name not in SHORT]


def told(name: str) -> None:
    scenario = SCENARIOS[name]
    result, garage = run(scenario)
    assert result.final_state == scenario.ends.value
    assert garage.broken == []


@pytest.mark.parametrize("name", SHORT)
def test_a_short_story_ends_where_it_says(name: str):
    told(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", LONG)
def test_a_long_story_ends_where_it_says(name: str):
    told(name)


def test_a_story_told_twice_leaves_the_same_trace_and_noise_another_one():
    scenario = SCENARIOS["own-relays"]
    hashes = [run(scenario)[0].trace_sha256, run(scenario)[0].trace_sha256]
    assert hashes[0] == hashes[1]


def test_the_picture_shows_link_resistor_and_every_relay():
    scenario, recorder = SCENARIOS["own-relays"], PlotRecorder()
    result, _ = run(scenario, watchers=[recording_into(recorder)])
    watts = [value for _, value in recorder.series()["resistor_w"][1] if value is not None]
    assert max(watts) == pytest.approx(360.0**2 / 100.0, rel=0.15)
    assert {"negative relay", "precharge relay", "positive relay"} <= set(recorder.bands())
    assert "resistor" in page(plot_data(scenario, result, recorder))
