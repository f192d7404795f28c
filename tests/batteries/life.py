"""The whole controller over memory ports, a small pack at one end, at the other a Gen24 that polls and gives its go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from controller import config, core
from controller.batteries.registry import BATTERIES
from controller.config import Catalogue
from controller.inverters.registry import INVERTERS
from controller.loop import Loop, Ports
from controller.model.battery import BatterySnapshot
from controller.model.events import Event
from controller.model.settings import OptionValue
from controller.ports import Command, CommandKind, RegisterWrite
from drivers.memory import HandClock, MemoryCan, MemoryEvents, MemoryLine, MemoryRecords, MemoryRegisters, MemoryRelays
from sim.small_packs import KgShunt, VatShunt, WatchMon
from statecharts.supervisor import State

CATALOGUE = Catalogue(BATTERIES, INVERTERS)
ACTIVE, FAULT = 3, 4
"""What register 301 says of the battery (byd-modbus-rtu.md, 2.3)."""


class Life:
    """One controller with this pack at the other end; enabled and permitted from the start."""

    def __init__(
        self, name: str, pack: WatchMon | VatShunt | KgShunt, *, chemistry: str = "nca", cells: int = 96,
        **options: OptionValue,
    ) -> None:  # fmt: skip
        self.pack = pack
        settings = config.defaults_for(name, chemistry, cells, "none", "byd_modbus", CATALOGUE)
        own = replace(settings.pack, energy_full_wh=36_000.0)
        stated = {**settings.battery_options, "energy_full_wh": 36_000.0, **options}
        settings = replace(settings, pack=own, battery_options=stated)
        self.bus, self.line, self.registers = MemoryCan(), MemoryLine(), MemoryRegisters()
        self.clock, self.events, self.relays = HandClock(), MemoryEvents(), MemoryRelays()
        ports = Ports(
            self.bus, self.relays, self.clock, self.events, MemoryRecords(), registers=self.registers,
            battery_line=self.line,
        )  # fmt: skip
        self.loop = Loop(core.start(settings, BATTERIES[name], INVERTERS["byd_modbus"]), ports)
        self.loop.commands.append(Command(CommandKind.ENABLE))
        self.asked = b""

    def tick(self) -> None:
        self.clock.ms += 10
        if isinstance(self.pack, WatchMon):
            self.bus.inbox = self.pack.frames(self.clock.ms)
        else:
            self.pack.pass_ms(10)
            self.asked += self.line.outbox
            self.line.inbox += self.pack.hear(self.line.outbox)
            self.line.outbox = b""
        self.registers.polls = int(self.clock.ms % 5000 == 0)
        if self.clock.ms == 2000:
            self.registers.writes.append(RegisterWrite(401, (2,)))
        self.loop.tick()
        assert self.loop.error is None

    def run_ms(self, ms: int) -> Life:
        for _ in range(ms // 10):
            self.tick()
        return self

    def until(self, state: State, within_ms: int = 30_000) -> Life:
        for _ in range(within_ms // 10):
            if self.state is state:
                return self
            self.tick()
        raise AssertionError(f"{state.name} not reached: {self.state}, {self.loop.state.withheld}, {self.told}")

    def running(self) -> Life:
        """RUNNING, its limits fully up."""
        return self.until(State.RUNNING).run_ms(15_000)

    @property
    def state(self) -> State:
        return self.loop.state.supervisor.state

    @property
    def snapshot(self) -> BatterySnapshot:
        return self.loop.state.pack

    @property
    def limits(self) -> tuple[float, float]:
        return self.loop.state.limits.charge_w, self.loop.state.limits.discharge_w

    @property
    def told(self) -> Mapping[Event, int]:
        """Every event and when it came first."""
        return {notice.id: at_ms for at_ms, notice in reversed(self.events.seen)}

    @property
    def status(self) -> int:
        return self.registers.blocks[301][0]

    @property
    def offered(self) -> tuple[int, int]:
        """Registers 308 and 307: what the Gen24 reads as its charge and discharge limit."""
        live = self.registers.blocks[301]
        return live[7], live[6]
