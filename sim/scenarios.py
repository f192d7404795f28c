"""Stories a person can watch: a garage, what happens in it, and where it ends. One entry for each.

controller sim --scenario precharge-fails --plot out/precharge.html
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TextIO

from controller.ports import CommandKind, Outputs
from controller.safety.situation import missing_feeds
from controller.trace import Trace, values_of
from sim.faults import (
    Asks,
    Fault,
    InTheInverter,
    LeakyLink,
    Loss,
    PinOpens,
    PowerCut,
    StuckOpen,
    Weld,
    Wish,
)
from sim.garage import Build, Garage
from sim.replay import Active, Result, StateChange, Tally
from statecharts.supervisor import Contactor, State

Watch = Callable[[Garage, Outputs], None]
POSITIVE = Contactor.POSITIVE
DAY_MS = 600_000


@dataclass(frozen=True)
class Scenario:
    """A story. text: what one sees. ends: the state at the end. happens: fresh faults every time it is told."""

    name: str
    text: str
    build: Build
    duration_ms: int
    ends: State
    happens: Callable[[], Sequence[Fault]]


def sun_w(now_ms: int) -> float:
    """House and sun over a day told in ten minutes: the night is drawn from the pack, the day fills it, W."""
    hour = 24.0 * now_ms / DAY_MS
    sun = max(0.0, math.sin(math.pi * (hour - 6.0) / 12.0))
    evening = math.exp(-((hour - 19.5) ** 2) / 4.0)
    return 5_500.0 * sun - 450.0 - 2_500.0 * evening


def _day() -> Sequence[Fault]:
    return [Wish(at_ms, at_ms, watts=sun_w(at_ms)) for at_ms in range(1_000, DAY_MS, 1_000)]


OWN, PACK, BOTH = Build("own"), Build("pack", "tesla"), Build("pack+inverter", "tesla")
CHARGING = Wish(0, 0, watts=3_000.0)


def _told(*faults: Fault) -> Callable[[], Sequence[Fault]]:
    """Copies: a fault remembers what it did."""
    return lambda: [replace(fault) for fault in (Asks(10, 10, kind=CommandKind.ENABLE), CHARGING, *faults)]


SCENARIOS: Mapping[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        Scenario("cold-start", "A Tesla pack wakes, the Gen24 gives its go, the pack closes itself, 3 kW flow in.",
                 PACK, 40_000, State.RUNNING, _told()),
        Scenario("own-relays", "Negative, precharge, positive: the link is charged through 100 Ω and measured.",
                 OWN, 40_000, State.RUNNING, _told()),
        Scenario("behind-a-relay", "The Tesla pack closes itself, then our relay to the inverter.",
                 BOTH, 40_000, State.RUNNING, _told()),
        Scenario("precharge-fails", "A load holds the link at half the pack's voltage: three tries, then held.",
                 OWN, 100_000, State.FAULT, _told(LeakyLink(0, 100_000, ohm=100.0))),
        Scenario("weld", "The positive relay welds in use; the stop finds it out, and it is locked out.",
                 OWN, 60_000, State.LOCKED_OUT,
                 _told(Weld(20_000, 60_000, member=POSITIVE), Asks(25_000, 25_000, kind=CommandKind.STOP))),
        Scenario("stuck-open", "The positive relay never conducts, and its feedback says so.",
                 OWN, 40_000, State.FAULT, _told(StuckOpen(0, 40_000, member=POSITIVE))),
        Scenario("inverter-revokes", "The inverter takes its go back under load, and gives it again.",
                 OWN, 120_000, State.RUNNING, _told(InTheInverter(25_000, 40_000, attribute="revoked"))),
        Scenario("estop", "The emergency stop is pressed during the precharge, released and acknowledged.",
                 OWN, 90_000, State.RUNNING,
                 _told(PinOpens(10_400, 20_000), Asks(25_000, 25_000, kind=CommandKind.ACKNOWLEDGE,
                                                      event="e-stop-open"))),
        Scenario("frame-loss", "The Tesla pack's voltage and current frame is lost for 20 s; it recovers by itself.",
                 PACK, 120_000, State.RUNNING, _told(Loss(20_000, 40_000, ids=(0x132,)))),
        Scenario("power-cut", "The Pi loses its supply while closed, and comes back 5 s later.",
                 OWN, 120_000, State.STANDBY, _told(PowerCut(20_000, 20_000, for_ms=5_000))),
        Scenario("day-of-sun", "A day in ten minutes: night, sun, a full pack's taper, evening.",
                 Build("pack", "tesla", soc=0.6), DAY_MS, State.RUNNING,
                 lambda: [Asks(10, 10, kind=CommandKind.ENABLE), *_day()]),
    )
}  # fmt: skip


def run(
    scenario: Scenario, seed: int | None = None, trace: TextIO | None = None, watchers: Sequence[Watch] = (),
) -> tuple[Result, Garage]:  # fmt: skip
    """Tell it. seed: of the sensors' noise, None = none. The second is the garage as it was left."""
    garage = Garage(replace(scenario.build, seed=seed), Trace(trace))
    garage.plan(*scenario.happens())
    result, tally = Result(), Tally()
    last: Mapping[int, tuple[int, ...]] = {}

    def follow(garage: Garage, outputs: Outputs) -> None:
        nonlocal last
        core, last = garage.state, outputs.registers
        tally.add(values_of(core.pack))
        if garage.at is State.RUNNING and not core.faults.held:
            result.active = Active(garage.now_ms, core.limits, outputs.registers)
        result.ticks += 1

    garage.observers += [follow, *watchers]
    garage.run_ms(scenario.duration_ms)
    result.states = [StateChange(change.at_ms, change.state.value, change.cause) for change in garage.states]
    result.events, result.signals = garage.notices, tally.finished()
    result.registers, result.core = last, garage.state
    result.cells_v = garage.state.pack.cells_v
    result.missing = tuple(
        feed.value for feed in missing_feeds(garage.state.pack, garage.settings, garage.now_ms)
    )  # fmt: skip
    assert garage.trace is not None
    result.trace_sha256 = garage.trace.sha256
    return result, garage
