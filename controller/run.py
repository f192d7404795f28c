"""`controller run`: puts the live controller together, in the order that is safe to fail in, and takes it apart again.

config → one instance only → relays off → record → control socket → devices → core → loop → devices closed (relays off)
"""

from __future__ import annotations

import gc
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from controller import core
from controller.batteries.registry import BATTERIES
from controller.blackbox import BlackBox
from controller.client import socket_path
from controller.coils import coils_of, keep, switch_off
from controller.config import Config
from controller.incident import Keeper
from controller.inverters.base import InverterProtocol
from controller.inverters.registry import INVERTERS
from controller.link import Link, listening
from controller.live import STORE_MS, Live, Signals
from controller.loop import TICK_MS, Loop, Ports
from controller.model.events import Event, Notice, Severity
from controller.model.settings import Settings
from controller.model.texts import TEXTS
from controller.ports import Record
from controller.version import program
from drivers.event_log import EventLog, sink
from drivers.exclusive import Exclusive
from drivers.incidents import Incidents
from drivers.monotonic import MonotonicClock
from drivers.pacer import Pacer, favour_this_thread
from drivers.record_files import Found, OsDisk, RecordFiles, find
from drivers.systemd import Systemd

STATE_FOLDER: Final = Path("/var/lib/packwarden")
SLACK_MS: Final = 1000
CLOSE_S: Final = 2.0
MIB: Final = 1024 * 1024
BUNDLE_S: Final = 10.0
"""How long the bundle of a stop is waited for, with everything off and closed."""
SWITCH_S: Final = 0.0005
COUNTED: Final = ("received", "lost", "unsent")
Wired = Callable[..., AbstractContextManager[Ports]]
"""See controller.wiring.wired."""


@dataclass(frozen=True)
class Options:
    """What the command line and the environment say. folder: where the record is kept."""

    config: Path
    socket: Path
    folder: Path
    listen_only: bool = False


def options(
    config: Path, environ: Mapping[str, str], *, socket: Path | None = None, listen_only: bool = False
) -> Options:
    """The record is kept in the folder systemd made for the unit (StateDirectory=), else where that would be."""
    state = environ.get("STATE_DIRECTORY", "").partition(":")[0]
    return Options(config, socket_path(socket, environ), Path(state) if state else STATE_FOLDER, listen_only)


def stop_ms(settings: Settings, inverter: InverterProtocol) -> int:
    """How long a graceful stop may take: limits zero, the inverter follows, the fuse, break order, verdict, record."""
    times = settings.contactors
    verdict_ms = max(times.verify_ms, times.pack_open_ms + 1000)
    return inverter.follow_ms + times.fuse_ms + times.break_ms + verdict_ms + STORE_MS + SLACK_MS


def run(given: Options, config: Config, wired: Wired, environ: Mapping[str, str]) -> int:
    """Until it is told to stop; the exit status. Raises PortError."""
    signals = Signals()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signals)
    with ExitStack() as stack:
        live = stack.enter_context(_assembled(given, config, wired, environ))
        live.signals = signals
        gc.collect()
        gc.freeze()
        gc.disable()
        sys.setswitchinterval(SWITCH_S)  # a bundle being written must not hold the tick up
        return live.run()


@contextmanager
def _assembled(given: Options, config: Config, wired: Wired, environ: Mapping[str, str]) -> Iterator[Live]:
    battery, inverter = BATTERIES[config.settings.battery], INVERTERS[config.settings.inverter]
    clock = MonotonicClock()
    with ExitStack() as stack:
        exclusive = Exclusive()
        stack.callback(exclusive.close)
        exclusive.take(f"records {given.folder.resolve()}")
        exclusive.take(f"socket {given.socket.resolve()}")
        if not given.listen_only:
            switch_off(coils_of(config))  # before anything can keep us from starting
        events = EventLog(sink(environ, _words))
        stack.callback(events.close, CLOSE_S)
        incidents = Incidents(given.folder / "incidents", config.values["incidents.disk_mib"] * MIB)
        stack.callback(incidents.close, BUNDLE_S)
        found, records = _records(given)
        stack.callback(records.close, CLOSE_S)
        link = Link(listening(given.socket))
        stack.callback(given.socket.unlink, missing_ok=True)
        stack.callback(link.close)
        ports = stack.enter_context(
            wired(config, battery, inverter, clock=clock, events=events, records=records,
                  listen_only=given.listen_only)
        )  # fmt: skip
        if not given.listen_only:
            with suppress(OSError):  # then the record cannot be stored either, and says so
                keep(coils_of(config), given.folder)
        state = core.start(
            config.settings, battery, inverter, record=_start_from(found), shadow=given.listen_only,
            now_ms=clock.now_ms(),
        )  # fmt: skip
        events.write(Beginning(given, found, favour_this_thread()).notices(), clock.now_ms())
        box = BlackBox(config.values["incidents.memory_mib"] * MIB)
        keeper = Keeper(box, incidents, program(), _text(given.config))
        loop = Loop(state, ports, recorder=keeper.took)
        yield Live(
            loop, Pacer(TICK_MS), link, Systemd(environ), program(), str(given.config),
            stop_ms(config.settings, inverter), lambda: records.trouble, lambda: counts(ports),
            keeper,
        )  # fmt: skip


def _text(path: Path) -> str:
    """The config as it stands in the file; it was read before."""
    with suppress(OSError):
        return path.read_text(encoding="utf-8-sig", errors="replace")
    return ""


def _words(event: Event) -> str:
    return f"{TEXTS[event].what} {TEXTS[event].todo}"


def _records(given: Options) -> tuple[Found, RecordFiles]:
    """What is on disk, and the writer. A copy that is spoilt is written anew at once. Raises RecordError."""
    if not given.listen_only:
        with suppress(OSError):  # then it cannot be stored either, and says so
            given.folder.mkdir(parents=True, exist_ok=True)
    disk = OsDisk(given.folder)
    found = find(disk)
    records = RecordFiles(disk, found.record.seq if found.record else 0)
    if found.spoilt and found.record is not None and not given.listen_only:
        records.store(found.record)
    return found, records


def _start_from(found: Found) -> Record | None:
    """A lost record is a lock-out: a latched cause or a weld may have been on it."""
    return Record(locked_out=True, latched=(Event.RECORD_LOST.value,)) if found.lost else found.record


@dataclass(frozen=True)
class Beginning:
    """What there is to tell at the start. refused: what the operating system did not permit."""

    given: Options
    found: Found
    refused: list[str]

    def notices(self) -> list[Notice]:
        found = self.found
        record = "no readable record" if found.lost else "a first start"
        if found.record is not None:
            record = f"record {found.record.seq}"
        without = f", without {', '.join(self.refused)}" if self.refused else ""
        listening_only = ", listening only" if self.given.listen_only else ""
        about = f"packwarden {program()}, {self.given.config}, {record}{listening_only}{without}"
        notices = [Notice(Event.STARTED, Severity.INFO, about)]
        if found.lost:
            notices.append(Notice(Event.RECORD_LOST, Severity.LOCK_OUT, f"{self.given.folder}: {found.lost}"))
        elif found.spoilt:
            notices.append(Notice(Event.RECORD_SPOILT, Severity.WARNING, f"{self.given.folder}: {found.spoilt}"))
        return notices


def counts(ports: Ports) -> dict[str, dict[str, int]]:
    """What the ports count, by port and counter; ports that count nothing are left out."""
    named = {
        "battery_bus": ports.battery_bus, "battery_line": ports.battery_line, "inverter_bus": ports.inverter_bus,
        "registers": ports.registers,
    }  # fmt: skip
    counted = {
        name: {what: getattr(port, what) for what in COUNTED if isinstance(getattr(port, what, None), int)}
        for name, port in named.items()
    }
    return {name: found for name, found in counted.items() if found}
