"""The gateway's life: its residents side by side, each started again when it fails, none taking another down.

link → hub → mqtt, dispatch, …
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from controller.config import Config
from controller.gateway import batt2gen24, dispatcher, people, requests
from controller.gateway.dispatch import Live
from controller.gateway.dispatcher import Dispatcher
from controller.gateway.home_assistant import About
from controller.gateway.hub import Hub
from controller.gateway.limits import live_of
from controller.gateway.link import ControlLink
from controller.gateway.mqtt import Broker, Mqtt, Site
from controller.gateway.people import Knows
from controller.gateway.restore_file import RestoreFile
from controller.gateway.topics import Names
from controller.model.battery import Feed
from drivers.systemd import Systemd

AGAIN_S: Final = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
HEALTHY_S: Final = 60.0
ALIVE_S: Final = 1.0
ENDING_S: Final = 60.0
"""What a resident may take to end well: the dispatcher puts its inverter back."""
REPEAT_S: Final = 60.0
REMEMBERED: Final = 100
Tell = Callable[[str], None]


class Resident(NamedTuple):
    """Something that runs until it is cancelled."""

    name: str
    run: Callable[[], Awaitable[None]]


class Journal:
    """Lines on stderr; the same one at most once a minute."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._said: dict[str, float] = {}

    def __call__(self, text: str) -> None:
        now_s = self._now_s()
        if now_s - self._said.get(text, now_s - REPEAT_S) < REPEAT_S:
            return
        self._said.pop(text, None)
        self._said[text] = now_s
        if len(self._said) > REMEMBERED:
            del self._said[next(iter(self._said))]
        print(text, file=sys.stderr, flush=True)


class Options(NamedTuple):
    """Where things are. socket: that of control. own_socket: where the command line asks the gateway. state: ours."""

    config: Path
    socket: Path
    own_socket: Path
    restore: Path = dispatcher.RESTORE_PATH
    state: Path = people.STATE_FOLDER


def run(options: Options, config: Config, environ: Mapping[str, str], knows: Knows) -> int:
    """Until it is told to stop; the exit status."""
    return asyncio.run(_run(options, config, environ, knows))


async def _run(options: Options, config: Config, environ: Mapping[str, str], knows: Knows) -> int:
    stop, journal, systemd = asyncio.Event(), Journal(), Systemd(environ)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    hub = Hub()
    await serve(residents(options, config, hub, journal, knows), hub, systemd, stop, journal)
    return 0


def residents(options: Options, config: Config, hub: Hub, tell: Tell, knows: Knows) -> list[Resident]:
    """Everything this config asks for."""
    values = config.values
    found = [Resident("link", ControlLink(options.socket, hub).run)]
    if values["mqtt.host"]:
        found.append(Resident("mqtt", Mqtt(broker(values), site(config, knows.title), hub, tell).run))
    inverter, limit_w = dispatcher.site_of(values), values["limits.max_power_w"]
    steering = Dispatcher(inverter, limit_w, HubLimits(hub), RestoreFile(options.restore), tell=tell)
    found.append(Resident("dispatch", partial(requests.reside, steering, options.own_socket)))
    found += [Resident(name, run) for name, run in people.residents(config, options.state, hub, tell, knows)]
    return found


async def serve(living: Iterable[Resident], hub: Hub, systemd: Systemd, stop: asyncio.Event, tell: Tell) -> None:
    """Until `stop`; then each resident has its time to end well."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(kept(resident, tell), name=resident.name) for resident in living]
        tasks.append(group.create_task(_alive(systemd, hub)))
        systemd.ready()
        await stop.wait()
        systemd.stopping()
        await _ended(set(tasks))


async def _ended(tasks: set[asyncio.Task[None]]) -> None:
    """Cancel them; those that have not ended after their time once more."""
    while tasks:
        for task in tasks:
            task.cancel()
        _, tasks = await asyncio.wait(tasks, timeout=ENDING_S)


async def kept(
    resident: Resident, tell: Tell,
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep, now_s: Callable[[], float] = time.monotonic,
) -> None:  # fmt: skip
    """Run it, and again whenever it ends: soon after a good while, else later and later."""
    tries = 0
    while True:
        began_s = now_s()
        why = await _ending_of(resident)
        tries = 0 if now_s() - began_s >= HEALTHY_S else min(tries + 1, len(AGAIN_S) - 1)
        tell(f"{resident.name} starts again in {AGAIN_S[tries]:g} s: {why}")
        await pause(AGAIN_S[tries])


async def _ending_of(resident: Resident) -> str:
    """Why it ended, in a task of its own: a cancellation from inside ends the resident, not us."""
    try:
        await asyncio.create_task(_run_of(resident))
        why = "it ended"
    except asyncio.CancelledError:
        why = "it was cancelled from inside"
    except Exception as error:  # noqa: BLE001 whatever it is, the others go on
        why = "".join(traceback.format_exception(error)).rstrip()
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
    return why


async def _run_of(resident: Resident) -> None:
    await resident.run()


async def _alive(systemd: Systemd, hub: Hub) -> None:
    while True:
        systemd.alive(time.monotonic_ns() // 1_000_000)
        systemd.says(f"control: {hub.newest.status['state'] if hub.newest else hub.lost}")
        await asyncio.sleep(ALIVE_S)


# --- what the residents need of the config ---


class HubLimits:
    """The limits the dispatcher steers within, as control said them last."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def newest(self) -> Live | None:
        newest = self._hub.newest
        return None if newest is None else live_of(newest.status, newest.at_s)


def broker(values: Mapping[str, Any]) -> Broker:
    names = ("host", "port", "user", "password", "password_file", "tls", "ca_file")
    told = {name: values[f"mqtt.{name}"] for name in names}
    client_id = values["mqtt.client_id"] or f"packwarden-{values['site.name']}-{values['site.pack']}"
    return Broker(client_id=client_id, **told)


def site(config: Config, title: str) -> Site:
    values = config.values
    old = None
    if values["mqtt.batt2gen24"]:
        prefix, host = values["mqtt.batt2gen24_prefix"], socket.gethostname().partition(".")[0]
        old = batt2gen24.Names(prefix, host, values["limits.max_power_w"])
    about = About(
        title=title, wiring=values["wiring.kind"], cells=_cells(config), estop=values["pins.estop"] is not None,
        max_power_w=values["limits.max_power_w"], program="",
    )  # fmt: skip
    names = Names(values["mqtt.tree"], values["site.name"], values["site.pack"])
    return Site(names, old, values["mqtt.discovery_prefix"], about, values["mqtt.every_s"])


def _cells(config: Config) -> int:
    """How many cells have a voltage of their own: none where the battery does not report them."""
    return 0 if Feed.CELLS in config.settings.lacks else config.settings.pack.cells
