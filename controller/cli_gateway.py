"""The `controller gateway` commands. Mounted by `cli`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from controller import config as configs
from controller.batteries.registry import BATTERIES
from controller.catalogue import CATALOGUE
from controller.client import socket_path
from controller.config import Config, ConfigError
from controller.console import ConfigOption, SocketOption, fail
from controller.gateway import owner, requests
from controller.gateway.bus import Explain, Place
from controller.gateway.people import Knows
from controller.inverters.registry import INVERTERS

app = typer.Typer(
    invoke_without_command=True, add_completion=False, help="What people see: MQTT, Home Assistant, the page, history."
)

app.command("passwd")(owner.passwd)
app.command("export")(owner.export)


@app.callback()
def gateway(
    context: typer.Context,
    config: ConfigOption = None,
    socket: SocketOption = None,
    own_socket: Annotated[Path, typer.Option("--gateway-socket", help="Where it can be asked.")] = requests.SOCKET,
) -> None:
    """Run the gateway beside the control process, until Ctrl-C or SIGTERM. Nothing it does is felt by the control."""
    if context.invoked_subcommand is not None:
        return
    path = configs.search(config, os.environ, Path.cwd())
    if path is None:
        fail("no config found: --config, $CONTROLLER_CONFIG, ./controller.toml or /etc/packwarden/controller.toml")
    try:
        from controller.gateway import serve  # needs the extra
    except ModuleNotFoundError as error:
        fail(f"{error.name} is missing: pip install 'packwarden[gateway]'")
    try:
        known = configs.read(path, CATALOGUE)
    except ConfigError as error:
        fail(str(error))
    options = serve.Options(path, socket_path(socket), own_socket, state=owner.state_folder(None))
    if state := os.environ.get("STATE_DIRECTORY", "").partition(":")[0]:
        options = options._replace(restore=Path(state) / options.restore.name)
    raise typer.Exit(serve.run(options, known, os.environ, _knows(path, known)))


def _knows(path: Path, config: Config) -> Knows:
    """What the page needs of the batteries and inverters."""
    battery, inverter = BATTERIES[config.settings.battery], INVERTERS[config.settings.inverter]
    speaks: dict[str, Explain] = {} if battery.line else {"can": battery.explain}
    if inverter.bitrate:
        speaks["inverter_can"] = inverter.explain_frame
    buses = [
        Place(section, config.values[f"{section}.interface"], config.values[f"{section}.channel"], explain)
        for section, explain in speaks.items()
    ]
    return Knows(battery.title, path, CATALOGUE, buses)
