"""`controller run` over memory ports: a Tesla pack model and a Gen24 that polls and gives its go, in real time.

python -m tests.live.world CONFIG SOCKET [FRAMES_PER_S]

With FRAMES_PER_S the pack repeats itself until the bus carries that many.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from controller import config as configs
from controller import run
from controller.catalogue import CATALOGUE
from controller.config import ConfigError
from controller.loop import Ports
from controller.ports import CanFrame, ClockPort, PortError, RegisterWrite
from drivers.memory import MemoryRegisters, MemoryRelays
from sim.tesla_pack import TeslaPack

POLL_MS = 1000
CONFIG = """\
schema = 1
[battery]
name = "tesla_model3"
chemistry = "nca"
cells = 96
[inverter]
name = "byd_modbus"
[wiring]
kind = "pack"
[limits]
max_charge_a = 20.0
max_discharge_a = 20.0
max_power_w = 5000.0
"""


class PackBus:
    """The pack at the far end of the cable."""

    def __init__(self, clock: ClockPort, frames_per_s: int = 0) -> None:
        self.pack, self._clock, self._began_ms = TeslaPack(), clock, clock.now_ms()
        self.received, self._frames_a_tick = 0, frames_per_s // 100

    def receive(self) -> Sequence[CanFrame]:
        now_ms = self._clock.now_ms()
        frames = repeated(self.pack.step(now_ms - self._began_ms), self._frames_a_tick)
        self.received += len(frames)
        return [frame._replace(at_ms=now_ms) for frame in frames]

    def send(self, frames: Sequence[CanFrame]) -> None:
        self.pack.receive(frames, self._clock.now_ms() - self._began_ms)


def repeated(frames: list[CanFrame], wanted: int) -> list[CanFrame]:
    """The same frames again and again, until there are as many."""
    return (frames * -(-wanted // len(frames)))[:wanted] if frames and wanted > len(frames) else frames


class Gen24(MemoryRegisters):
    """Polls once a second, and gives its go at once."""

    def __init__(self, clock: ClockPort) -> None:
        super().__init__()
        self._clock, self._next_ms = clock, clock.now_ms()
        self.writes.append(RegisterWrite(401, (2,)))

    def requests(self) -> tuple[Sequence[RegisterWrite], int]:
        if self._clock.now_ms() >= self._next_ms:
            self._next_ms += POLL_MS
            self.polls += 1
        return super().requests()


frames_per_s = 0


@contextmanager
def wired(config: Any, battery: Any, inverter: Any, *, clock: ClockPort, events: Any, records: Any, listen_only: bool
          ) -> Iterator[Ports]:  # fmt: skip
    """As controller.wiring.wired."""
    yield Ports(PackBus(clock, frames_per_s), MemoryRelays(), clock, events, records, registers=Gen24(clock))


def main(config: str, socket: str) -> int:
    given = run.options(Path(config), os.environ, socket=Path(socket))
    try:
        return run.run(given, configs.read(given.config, CATALOGUE), wired, os.environ)
    except (ConfigError, PortError) as error:
        print(f"controller: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    frames_per_s = int(sys.argv[3]) if sys.argv[3:] else 0
    sys.exit(main(*sys.argv[1:3]))
