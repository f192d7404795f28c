"""How fast a garage lives: simulated seconds for each second of processor time, and where a tick's time goes.

    python benchmarks/simulation.py [SECONDS]

Each wiring runs closed, with 2.5 kW flowing, every tick run and every invariant judged. Processor time, not the wall's:
other work on the machine does not count. Prints, judges nothing.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from controller.ports import CommandKind
from controller.trace import Trace
from sim.garage import Build, Garage
from statecharts.supervisor import State

BUILDS = (
    Build("own", hurried=True), Build("none", hurried=True), Build("pack", "tesla", hurried=True),
    Build("pack+inverter", "tesla", hurried=True),
)  # fmt: skip
SECONDS = 60


def running(build: Build, trace: Trace | None = None) -> Garage:
    """Closed, with power flowing."""
    garage = Garage(build, trace)
    garage.inverter.wish_w = 2_500.0
    garage.ask(CommandKind.ENABLE).until(State.RUNNING)
    return garage.run_ms(5_000)


class Stopwatch:
    """Wraps a method and adds up what its calls take."""

    def __init__(self, owner: Any, name: str) -> None:
        self.spent_s = 0.0
        inner: Callable[..., Any] = getattr(owner, name)

        def timed(*args: Any, **named: Any) -> Any:
            began_s = time.process_time()
            try:
                return inner(*args, **named)
            finally:
                self.spent_s += time.process_time() - began_s

        setattr(owner, name, timed)


def rate(build: Build, seconds: int, trace: Trace | None = None) -> float:
    """Simulated seconds for each second of processor time."""
    garage = running(build, trace)
    began_s = time.process_time()
    garage.run_ms(1000 * seconds)
    return seconds / (time.process_time() - began_s)


def stages(build: Build, seconds: int) -> dict[str, float]:
    """Microseconds of a tick in each stage; what is left over is the garage itself."""
    garage = running(build)
    watches = {
        "controller": Stopwatch(garage.loop, "tick"), "plant": Stopwatch(garage.plant, "step"),
        "pack": Stopwatch(garage.pack, "step"), "inverter": Stopwatch(garage.inverter, "step"),
        "invariants": Stopwatch(garage.invariants, "look"),
    }  # fmt: skip
    began_s = time.process_time()
    garage.run_ms(1000 * seconds)
    ticks = 100 * seconds
    spent = {name: 1e6 * watch.spent_s / ticks for name, watch in watches.items()}
    return {**spent, "the rest": 1e6 * (time.process_time() - began_s) / ticks - sum(spent.values())}


def main(seconds: int) -> None:
    print(f"{'wiring':<16} {'× real time':>12} {'traced':>8}   microseconds of a tick")
    for build in BUILDS:
        fast, traced = rate(build, seconds), rate(build, seconds, Trace())
        parts = ", ".join(f"{name} {us:.0f}" for name, us in stages(build, seconds).items())
        print(f"{build.wiring:<16} {fast:>12.0f} {traced:>8.0f}   {parts}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else SECONDS)
