"""What Prometheus reads, parsed by its own parser, and the Grafana dashboard made for it."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from controller.gateway.hub import Hub
from controller.gateway.metrics import Exporter
from controller.gateway.wall import Stamp
from statecharts.supervisor import State
from tests.gateway import statuses

ROOT = Path(__file__).parents[2]
DASHBOARD = json.loads((ROOT / "controller/share/grafana-packwarden.json").read_text(encoding="utf-8"))


class Read:
    """One scrape: samples by name and labels, without those of every sample."""

    def __init__(self, hub: Hub) -> None:
        self.text = Exporter(hub, "garage", "left").text().decode()
        self.families = {family.name: family for family in text_string_to_metric_families(self.text)}
        self.samples = {
            (s.name, tuple(sorted((k, v) for k, v in s.labels.items() if k not in ("site", "pack")))): s.value
            for family in self.families.values() for s in family.samples
        }  # fmt: skip

    def __getitem__(self, key: str | tuple[str, ...]) -> float:
        name, *labels = (key,) if isinstance(key, str) else key
        return self.samples[(f"packwarden_{name}", tuple(sorted(zip(labels[::2], labels[1::2], strict=True))))]


class Clock:
    now_s = 100.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def hub(clock: Clock) -> Hub:
    return Hub(now_s=lambda: clock.now_s, clock=lambda: Stamp(1_796_000_000.0, True))


def test_values_are_in_base_units(hub: Hub):
    hub.publish(statuses.running())
    read = Read(hub)
    assert read["pack_volts"] == 362.4
    assert read["soc_ratio"] == pytest.approx(0.55)
    assert read["isolation_ohms"] == 6_000_000
    assert read["energy_full_joules"] == 72_500 * 3600
    assert read["limit_watts", "direction", "charge"] == 5000
    assert read["limited_by", "direction", "charge", "by", "max_power_w"] == 1
    assert read["cell_volts", "cell", "96"] > 3
    assert read["hvil_closed"] == 1


def test_exactly_one_state_is_one(hub: Hub):
    hub.publish(statuses.running())
    read = Read(hub)
    assert {state: read["state", "state", state.value] for state in State} == {s: s is State.RUNNING for s in State}


def test_every_sample_carries_site_and_pack(hub: Hub):
    hub.publish(statuses.held())
    for family in Read(hub).families.values():
        for sample in family.samples:
            assert (sample.labels["site"], sample.labels["pack"]) == ("garage", "left")


def test_every_metric_says_what_it_is_and_only_counts_are_counters(hub: Hub):
    hub.publish(statuses.held())
    read = Read(hub)
    assert {name for name, family in read.families.items() if family.type == "counter"} == {
        "packwarden_bus", "packwarden_charged_joules", "packwarden_discharged_joules",
    }  # fmt: skip
    assert all(family.documentation.endswith(".") for family in read.families.values())


def test_what_is_unknown_is_absent_and_nothing_is_nan(hub: Hub):
    hub.publish(statuses.unheard())
    read = Read(hub)
    assert not [sample for sample in read.samples if sample[0] in ("packwarden_pack_volts", "packwarden_pack_watts")]
    assert not [value for value in read.samples.values() if math.isnan(value)]
    assert read["up"] == 1


def test_a_lost_control_process_takes_every_value_with_it(hub: Hub):
    hub.publish(statuses.running())
    hub.lose("gone")
    read = Read(hub)
    assert read["up"] == 0
    assert [name for name, _ in read.samples] == ["packwarden_up"]


def test_ages_grow_while_nothing_comes(hub: Hub, clock: Clock):
    hub.publish(statuses.running())
    fresh = Read(hub)["signal_age_seconds", "signal", "soc_pct"]
    clock.now_s += 7
    assert Read(hub)["signal_age_seconds", "signal", "soc_pct"] == pytest.approx(fresh + 7)
    assert Read(hub)["status_age_seconds"] == pytest.approx(7)


def test_a_held_cause_is_there_and_does_not_act(hub: Hub):
    hub.publish(statuses.held())
    assert Read(hub)["fault", "id", "hvil-open", "severity", "open", "held", "true"] == 0


def test_the_dashboard_asks_only_for_what_there_is(hub: Hub):
    hub.publish(statuses.running())
    known = {name for name, _ in Read(hub).samples}
    hub.publish(statuses.held())
    known |= {name for name, _ in Read(hub).samples}
    asked = set(re.findall(r"packwarden_\w+", json.dumps(DASHBOARD)))
    assert asked
    assert asked <= known


def test_every_panel_follows_the_selectors_of_site_and_pack():
    assert [variable["name"] for variable in DASHBOARD["templating"]["list"]] == ["datasource", "site", "pack"]
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            metrics = re.findall(r"packwarden_\w+(.*?)(?=packwarden_|$)", target["expr"])
            assert all('site=~"$site", pack=~"$pack"' in selector for selector in metrics), target["expr"]
