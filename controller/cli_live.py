"""The commands around the live controller: run it, look at it, ask something of it. Mounted by `cli`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.live import Live as LiveView

from controller import config as configs
from controller.client import Client, LinkError, Refused, socket_path
from controller.config import ConfigError
from controller.console import ConfigOption, JsonOption, SocketOption, err, fail, out
from controller.live_view import view
from controller.ports import PortError
from controller.status import knows
from drivers.pacer import ends_with_its_parent

DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?")
UNITS_S = (86_400, 3600, 60, 1)


def run(
    config: ConfigOption = None,
    listen_only: Annotated[
        bool, typer.Option("--listen-only", help="Nothing is transmitted, no relay moves; beside another controller.")
    ] = False,
    no_gateway: Annotated[bool, typer.Option("--no-gateway", help="Do not start the gateway as a child.")] = False,
    socket: SocketOption = None,
) -> None:
    """Control the pack. Stops gracefully on Ctrl-C or SIGTERM; a second one opens at once."""
    from controller import run as running  # what only a live controller needs: drivers, devices
    from controller.catalogue import CATALOGUE
    from controller.wiring import wired

    path = configs.search(config, os.environ, Path.cwd())
    if path is None:
        fail("no config found: --config, $CONTROLLER_CONFIG, ./controller.toml or /etc/packwarden/controller.toml; "
             "`controller config init` writes one")  # fmt: skip
    given = running.options(path, os.environ, socket=socket, listen_only=listen_only)
    try:
        config_read = configs.read(path, CATALOGUE)
        with _gateway(given.config, given.socket, wanted=sys.stdin.isatty() and not no_gateway):
            code = running.run(given, config_read, wired, os.environ)
    except (ConfigError, PortError) as error:
        fail(str(error))
    raise typer.Exit(code)


def outputs_off(config: ConfigOption = None) -> None:
    """Switch every relay of ours off, whatever a controller that was killed left on. Refused while one runs."""
    from controller import coils  # as above
    from controller import run as running
    from controller.catalogue import CATALOGUE

    path = configs.search(config, os.environ, Path.cwd()) or configs.SYSTEM_PATH
    folder = running.options(path, os.environ).folder
    try:
        ours = coils.coils_of(configs.read(path, CATALOGUE))
    except ConfigError as error:
        last = coils.kept(folder)
        if last is None:
            fail(f"{error}\nno relay was switched off: {folder} does not tell either which ones there are")
        err.print(f"controller: {path} is no config; these are the relays of the last start", markup=False)
        ours = last
    try:
        out.print(coils.switch_off(ours), markup=False)
    except PortError as error:
        fail(str(error))


@contextmanager
def _gateway(config: Path, socket: Path, wanted: bool) -> Iterator[None]:
    """For a person at a terminal: the gateway as a child, without our terminal. It may die, hang, or never start."""
    if not wanted:
        yield
        return
    command = [sys.executable, "-m", "controller", "gateway", "--config", str(config), "--socket", str(socket)]
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=ends_with_its_parent)
    try:
        yield
    finally:
        child.terminate()


def status(socket: SocketOption = None, as_json: JsonOption = False) -> None:
    """What the controller does, why, what limits it, and what to do next."""
    with _client(socket) as client:
        now = client.status()
    if as_json:
        typer.echo(json.dumps(now, ensure_ascii=False))
    else:
        out.print(view(now))


def watch(
    socket: SocketOption = None,
    every: Annotated[float, typer.Option(help="Seconds between two looks.", min=0.2, max=60.0)] = 0.5,
) -> None:
    """The same, live, until Ctrl-C. Into a pipe: one JSON object a line."""
    with _client(socket) as client, suppress(KeyboardInterrupt):
        looks = client.watch(round(every * 1000))
        if not sys.stdout.isatty():
            for now in looks:
                print(json.dumps(now, ensure_ascii=False), flush=True)
        with LiveView(console=out, auto_refresh=False, screen=True) as screen:
            for now in looks:
                screen.update(view(now, rows=out.height), refresh=True)


def enable(socket: SocketOption = None) -> None:
    """Close as soon as every permission is there, and again after what clears itself."""
    _ask(socket, lambda client: client.command("enable"), "enabled")


def stop(socket: SocketOption = None) -> None:
    """Limits to zero, wait for the current to fall, open; and stay open."""
    _ask(socket, lambda client: client.command("stop"), "stopping")


def acknowledge(
    name: Annotated[str, typer.Argument(help="The cause, as `controller status` names it.")],
    socket: SocketOption = None,
) -> None:
    """Release one cause that is held, after it has gone and somebody has looked."""
    if not knows(name):
        fail(f"there is no cause {name!r}; `controller status` names the ones that are held")
    _ask(socket, lambda client: client.command("acknowledge", name=name), f"{name} acknowledged")


def limit(
    lasting: Annotated[str, typer.Option("--for", help="How long: 90s, 30m, 2h, 1h30m.")],
    charge: Annotated[float | None, typer.Option(help="W that are charged at most.", min=0)] = None,
    discharge: Annotated[float | None, typer.Option(help="W that are discharged at most.", min=0)] = None,
    socket: SocketOption = None,
) -> None:
    """Use less power for a while. A new limit of a direction takes the place of the one before."""
    wishes = {name: watts for name, watts in (("charge_w", charge), ("discharge_w", discharge)) if watts is not None}
    if not wishes:
        fail("limit: --charge or --discharge says how much")
    for_s = seconds(lasting)
    _ask(socket, lambda client: client.command("cap", for_s=for_s, **wishes), f"limited for {lasting}")


def unlock(
    inspected: Annotated[str, typer.Option(help="What was inspected, in your words; it is kept in the journal.")],
    socket: SocketOption = None,
) -> None:
    """Leave LOCKED_OUT after an inspection. At a terminal of this machine only, as root."""
    _ask(socket, lambda client: client.command("unlock", inspected=inspected), "unlocked")


def recovery_charge(socket: SocketOption = None) -> None:
    """Charge a pack that is too empty: 5 A, 30 minutes. At a terminal of this machine only, as root."""
    _ask(socket, lambda client: client.command("recovery-charge"), "recovery charge permitted for 30 minutes")


def seconds(text: str) -> int:
    """A duration as people write it. A wrong one is exit 2."""
    found = DURATION.fullmatch(text.strip().lower())
    total_s = sum(int(n) * unit for n, unit in zip(found.groups(), UNITS_S, strict=True) if n) if found else 0
    if not total_s:
        fail(f"--for {text}: give a time such as 90s, 30m, 2h or 1h30m")
    return total_s


@contextmanager
def _client(socket: Path | None) -> Iterator[Client]:
    try:
        with Client(socket_path(socket)) as client:
            yield client
    except LinkError as error:
        fail(str(error))


def _ask(socket: Path | None, give: Callable[[Client], dict[str, Any]], done: str) -> None:
    """Give a command and say what came of it; exit 1 with the reason when it is refused."""
    try:
        with _client(socket) as client:
            reply = give(client)
    except Refused as error:
        err.print(f"controller: refused: {error}", markup=False, soft_wrap=True)
        raise typer.Exit(1) from None
    waits = reply.get("withheld") or []
    out.print(f"{done}; {reply['state']}" + (f", waits for: {'; '.join(waits)}" if waits else ""), markup=False)
