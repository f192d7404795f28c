"""The live loop in simulated time: the real Live, Loop and Link over a pack model, and a clock moved by hand."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from controller import core
from controller.batteries.registry import BATTERIES
from controller.inverters.registry import INVERTERS
from controller.link import Link, Peer, listening
from controller.live import Ended, Live
from controller.loop import TICK_MS, Loop, Ports
from controller.model.settings import CHEMISTRIES, PackSettings, Settings
from controller.ports import Outputs, Record
from drivers.memory import HandClock, MemoryEvents, MemoryRecords, MemoryRelays
from drivers.systemd import Systemd
from statecharts.supervisor import State
from tests.live.world import Gen24, PackBus


class HandPace:
    """Moves the clock to the next deadline, later by `late_ms` once."""

    def __init__(self, clock: HandClock) -> None:
        self.clock, self.late_ms, self.spare = clock, 0, 5000

    def wait(self) -> int:
        late_ms, self.late_ms = self.late_ms, 0
        self.clock.ms += TICK_MS + late_ms
        return late_ms * 1000

    def spare_us(self) -> int:
        return self.spare


class HeardSystemd(Systemd):
    """What systemd would hear, with a watchdog of 2 s."""

    def __init__(self) -> None:
        super().__init__({"WATCHDOG_USEC": "2000000", "NOTIFY_SOCKET": "unused"})
        self.heard: list[str] = []

    def _send(self, message: str) -> None:
        self.heard.append(message)


class Rig:
    """`turns` runs it; what each tick decided is in `decided`, the journal in `events`."""

    def __init__(
        self, folder: Path, *, record: Record | None = None, shadow: bool = False, person: bool = True
    ) -> None:
        self.systemd, self.trouble = HeardSystemd(), ""
        pack = PackSettings(CHEMISTRIES["nca"], cells=96, max_charge_a=20.0, max_discharge_a=20.0)
        settings = Settings("tesla_model3", "byd_modbus", "pack", pack, max_power_w=5_000.0)
        self.clock = HandClock()
        self.pace, self.events, self.records = HandPace(self.clock), MemoryEvents(), MemoryRecords()
        self.records.record = record
        self.bus, self.relays = PackBus(self.clock), MemoryRelays()
        inverter = INVERTERS["byd_modbus"]
        state = core.start(settings, BATTERIES["tesla_model3"], inverter, record=record, shadow=shadow)
        ports = Ports(
            self.bus, self.relays, self.clock, self.events, self.records, registers=Gen24(self.clock)
        )  # fmt: skip
        self.path = folder / "control.sock"
        self.peers: list[Peer] = []
        self.link = Link(listening(self.path), lambda peer: self.peers.append(peer) or person)
        self.live = Live(
            Loop(state, ports), self.pace, self.link, self.systemd, "1.0", "controller.toml",
            stop_ms=45_000, trouble=lambda: self.trouble,
        )  # fmt: skip
        self.decided: list[Outputs] = []
        self.ended: Ended | None = None
        tick = self.live.loop.tick
        self.live.loop.tick = lambda: self._kept(tick())  # type: ignore[method-assign]

    def _kept(self, outputs: Outputs) -> Outputs:
        self.decided.append(outputs)
        return outputs

    @property
    def state(self) -> State:
        return self.live.loop.state.supervisor.state

    def turns(self, number: int = 1) -> Rig:
        for _ in range(number):
            if self.ended is None:
                self.ended = self.live.turn()
        return self

    def until(self, state: State, within: int = 6_000) -> Rig:
        for _ in range(within):
            if self.state is state:
                return self
            self.turns()
        raise AssertionError(f"{state.name} not reached: {self.state}, {self.live.loop.state.withheld}")

    def running(self) -> Rig:
        assert self.ask(do="enable")["done"]
        return self.until(State.RUNNING).turns(1_500)

    def told(self) -> list[str]:
        return [f"{notice.id.value}: {notice.detail}" for _, notice in self.events.seen]

    # --- the other end of the socket ---

    def connect(self) -> Caller:
        return Caller(self)

    def ask(self, **message: Any) -> dict[str, Any]:
        """One message on a connection of its own, and its answer."""
        with self.connect() as caller:
            return caller.ask(**message)


class Caller:
    """One client. It never waits: the rig's turns move the world while it reads."""

    def __init__(self, rig: Rig) -> None:
        self.rig, self.rest = rig, b""
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.setblocking(False)  # a full queue is a BlockingIOError
        self.socket.connect(str(rig.path))

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def ask(self, **message: Any) -> dict[str, Any]:
        return self.say(json.dumps({"version": 1} | message).encode() + b"\n").hear()

    def say(self, data: bytes) -> Caller:
        self.socket.sendall(data)
        return self

    def hear(self, within: int = 300) -> dict[str, Any]:
        """The next line; an empty object when it was hung up."""
        for _ in range(within):
            if b"\n" in self.rest:
                line, _, self.rest = self.rest.partition(b"\n")
                return json.loads(line)
            self.rig.turns()
            try:
                data = self.socket.recv(1_000_000)
            except BlockingIOError:
                continue
            except ConnectionResetError:
                return {}
            if not data:
                return {}
            self.rest += data
        raise AssertionError("no answer")
