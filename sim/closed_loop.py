"""The real loop against the pack model: how the shipped recording was made, and is made again.

python -m sim.closed_loop sim/logs/m3-michael.log
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from controller import core
from controller.batteries.registry import BATTERIES
from controller.inverters.registry import INVERTERS
from controller.loop import Loop, Ports
from controller.model.events import Notice
from controller.model.settings import CHEMISTRIES, PackSettings, Settings
from controller.ports import CanFrame, Command, CommandKind, RegisterWrite
from drivers.memory import HandClock, MemoryCan, MemoryEvents, MemoryRecords, MemoryRegisters, MemoryRelays
from sim import michael
from sim.recording import write_candump

POLL_MS = 5_000
GO_MS = 2_000


class Controller:
    """The whole controller over memory ports, as the partner of a pack: frames in, frames out.

    A Gen24 polls it and gives its go; a person's wishes come from the story.
    """

    def __init__(self) -> None:
        pack = PackSettings(CHEMISTRIES["nca"], cells=96, max_charge_a=20.0, max_discharge_a=20.0)
        settings = Settings("tesla_model3", "byd_modbus", "pack", pack, max_power_w=5_000.0)
        self.bus, self.registers, self.clock, self.events = MemoryCan(), MemoryRegisters(), HandClock(), MemoryEvents()
        state = core.start(settings, BATTERIES["tesla_model3"], INVERTERS["byd_modbus"])
        ports = Ports(
            self.bus, MemoryRelays(), self.clock, self.events, MemoryRecords(), registers=self.registers
        )  # fmt: skip
        self.loop = Loop(state, ports)
        self.states = [(0, state.supervisor.state, state.supervisor.cause)]

    def __call__(self, frames: Sequence[CanFrame], now_ms: int) -> Sequence[CanFrame]:
        self.bus.inbox, self.bus.outbox, self.clock.ms = list(frames), [], now_ms
        for action in michael.story(now_ms)[1]:
            if action is not michael.Action.HVIL_OPENS:
                self.loop.commands.append(Command(CommandKind(action.value)))
        self.registers.polls = int(now_ms % POLL_MS == 0)
        if now_ms == GO_MS:
            self.registers.writes.append(RegisterWrite(401, (2,)))
        self.loop.tick()
        supervisor = self.loop.state.supervisor
        if supervisor.state is not self.states[-1][1]:
            self.states.append((now_ms, supervisor.state, supervisor.cause))
        return self.bus.outbox

    @property
    def notices(self) -> list[tuple[int, Notice]]:
        return self.events.seen


def main(path: Path) -> None:
    partner = Controller()
    frames = write_candump(path, michael.record(partner, michael.pack()))
    print(f"{path}: {frames} frames")
    for now_ms, state, cause in partner.states:
        print(f"{now_ms / 1000:9.2f} s  {state.value:<16}  {cause}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
