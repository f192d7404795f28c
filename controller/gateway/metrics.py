"""The status as Prometheus reads it: base units, labels site and pack, and no sample for what is unknown.

InfluxDB reads the same page by Telegraf's `prometheus` input. The only file that knows prometheus_client.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from controller.gateway.hub import Hub, Status
from controller.model.battery import PackContactor
from statecharts.supervisor import Contactor, State

PREFIX: Final = "packwarden"
CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
MILLI: Final = 1e-3


class Shown(NamedTuple):
    """A signal as a metric: its name there, what it is, and how many base units one of ours is."""

    name: str
    text: str
    scale: float = 1.0


SIGNALS: Final[Mapping[str, Shown]] = {
    "pack_voltage_v": Shown("pack_volts", "Voltage of the pack."),
    "current_a": Shown("pack_amperes", "Current; positive is charging."),
    "soc_pct": Shown("soc_ratio", "State of charge, 0 to 1.", 0.01),
    "soh_pct": Shown("soh_ratio", "State of health, 0 to 1.", 0.01),
    "cell_min_v": Shown("cell_min_volts", "Voltage of the lowest cell."),
    "cell_max_v": Shown("cell_max_volts", "Voltage of the highest cell."),
    "temp_min_c": Shown("temperature_min_celsius", "Temperature of the coldest sensor."),
    "temp_max_c": Shown("temperature_max_celsius", "Temperature of the hottest sensor."),
    "max_charge_w": Shown("bms_charge_watts", "What the pack's BMS allows for charging."),
    "max_discharge_w": Shown("bms_discharge_watts", "What the pack's BMS allows for discharging."),
    "energy_full_wh": Shown("energy_full_joules", "Energy of the full pack, by its BMS.", 3600.0),
    "energy_remaining_wh": Shown("energy_remaining_joules", "Energy left, by its BMS.", 3600.0),
    "isolation_kohm": Shown("isolation_ohms", "Isolation resistance, by its BMS.", 1000.0),
    "link_voltage_v": Shown("link_volts", "Voltage on the inverter's side of the contactors."),
    "lv_supply_v": Shown("lv_supply_volts", "The 12 V supply of the pack."),
    "hvil_ok": Shown("hvil_closed", "1 while the pack's high-voltage interlock loop is closed."),
}
LATENESS: Final = ("p50", "p99", "p99.9", "max")
COUNTERS: Final[Mapping[str, Shown]] = {
    "charged_wh": Shown("charged_joules", "Energy charged in the pack's life, by its BMS.", 3600.0),
    "discharged_wh": Shown("discharged_joules", "Energy discharged in the pack's life, by its BMS.", 3600.0),
}


class Exporter(Collector):
    """One look at the hub."""

    def __init__(self, hub: Hub, site: str, pack: str) -> None:
        self._hub, self._labels = hub, {"site": site, "pack": pack}
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def text(self) -> bytes:
        """As it goes over HTTP."""
        return generate_latest(self._registry)

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        newest, age_s = self._hub.newest, self._hub.age_s()
        yield self._gauge("up", "1 while the control process is heard.", [({}, float(newest is not None))])
        if newest is None or age_s is None:
            return
        yield self._gauge("status_age_seconds", "How long ago the control process told this.", [({}, age_s)])
        yield from self._signals(newest.status, age_s)
        yield from self._machine(newest.status)
        yield from self._limits(newest.status)
        yield from self._health(newest.status)

    def _signals(self, status: Status, age_s: float) -> Iterator[Metric]:
        signals = status["signals"]
        for name, shown in SIGNALS.items():
            yield self._gauge(shown.name, shown.text, _known({}, signals.get(name), shown.scale))
        volts, amperes = signals["pack_voltage_v"], signals["current_a"]
        watts = None if volts is None or amperes is None else volts * amperes
        yield self._gauge("pack_watts", "Power; positive is charging.", _known({}, watts))
        for name, shown in COUNTERS.items():
            yield self._counter(shown.name, shown.text, _known({}, signals.get(name), shown.scale))
        cells = [sample for i, volts in enumerate(status["cells_v"], 1) for sample in _known({"cell": str(i)}, volts)]
        yield self._gauge("cell_volts", "Last known voltage of each cell.", cells)
        told = [({"signal": name}, s + age_s) for name, s in status["ages_s"].items() if s is not None]
        yield self._gauge("signal_age_seconds", "How long ago the signal was last valid.", told)

    def _machine(self, status: Status) -> Iterator[Metric]:
        states = [({"state": state.value}, float(state.value == status["state"])) for state in State]
        yield self._gauge("state", "1 for the state the controller is in.", states)
        yield self._gauge("state_seconds", "For how long it has been there.", _known({}, status["since_s"]))
        closed = [({"contactor": one.value}, float(one.value in status["closed"])) for one in Contactor]
        yield self._gauge("contactor_commanded", "1 while the contactor is energised.", closed)
        told = status["signals"].get("contactor_state")
        pack = [({"says": one.value}, float(one.value == told)) for one in PackContactor] if told else []
        yield self._gauge("pack_contactors", "1 for what the pack says of its contactors.", pack)
        yield self._gauge("enabled", "1 while a person has enabled it.", [({}, float(status["enabled"]))])
        yield self._gauge("withheld", "How many permissions are missing.", [({}, float(len(status["withheld"])))])
        faults = [
            ({"id": fault["id"], "severity": fault["severity"], "held": str(fault["held"]).lower()},
             float(fault["active"])) for fault in status["faults"]
        ]  # fmt: skip
        yield self._gauge("fault", "1 while the cause acts, 0 while it is only held.", faults)

    def _limits(self, status: Status) -> Iterator[Metric]:
        limits, ways = status["limits"], ("charge", "discharge")
        watts = [({"direction": way}, float(limits[f"{way}_w"])) for way in ways]
        yield self._gauge("limit_watts", "What the inverter may do now.", watts)
        by = [({"direction": way, "by": str(limits[f"{way}_by"])}, 1.0) for way in ways]
        yield self._gauge("limited_by", "1, with what bounds each direction as a label.", by)

    def _health(self, status: Status) -> Iterator[Metric]:
        heard = _known({}, status["inverter"]["heard_s"])
        yield self._gauge("inverter_heard_seconds", "How long ago the inverter was heard.", heard)
        go = _known({}, status["inverter"]["go"])
        yield self._gauge("inverter_go", "1 while the inverter gives its go.", go)
        closings, spans = status["closings"], ("hour", "day")
        yield self._gauge("closings", "Closings within the span.", [({"span": s}, float(closings[s])) for s in spans])
        late = status["lateness_ms"]
        ticks = [sample for name in LATENESS for sample in _known({"of": name}, late.get(name), MILLI)]
        yield self._gauge("tick_late_seconds", "How late the control loop's ticks are.", ticks)
        counts = [
            ({"port": port, "counter": name}, float(value))
            for port, counters in status["bus"].items() for name, value in counters.items() if _number(value)
        ]  # fmt: skip
        yield self._counter("bus", "What the ports count.", counts)

    def _gauge(self, name: str, text: str, samples: list[tuple[dict[str, str], float]]) -> Metric:
        names = [*self._labels, *(samples[0][0] if samples else ())]
        family = GaugeMetricFamily(f"{PREFIX}_{name}", text, labels=names)
        for labels, value in samples:
            family.add_metric([*self._labels.values(), *labels.values()], value)
        return family

    def _counter(self, name: str, text: str, samples: list[tuple[dict[str, str], float]]) -> Metric:
        names = [*self._labels, *(samples[0][0] if samples else ())]
        family = CounterMetricFamily(f"{PREFIX}_{name}", text, labels=names)
        for labels, value in samples:
            family.add_metric([*self._labels.values(), *labels.values()], value)
        return family


def _number(value: Any) -> bool:
    return isinstance(value, int | float)


def _known(labels: dict[str, str], value: Any, scale: float = 1.0) -> list[tuple[dict[str, str], float]]:
    """One sample, or none for what is unknown."""
    return [(labels, float(value) * scale)] if _number(value) else []
