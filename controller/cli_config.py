"""`controller config`: controller.toml, written, checked, shown and changed."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from controller import config as configs
from controller import config_proposal as proposals
from controller.batteries.registry import BATTERIES
from controller.catalogue import CATALOGUE
from controller.client import Client, LinkError, NobodyThere, socket_path
from controller.config import ConfigError
from controller.config_file import text_of
from controller.console import ConfigOption, JsonOption, SocketOption, err, fail, out

PROPOSAL = Path("/var/lib/packwarden-gateway") / proposals.NAME

app = typer.Typer(no_args_is_help=True, add_completion=False, help="controller.toml: write, check, change.")


@app.command("init")
def config_init(
    battery: Annotated[str, typer.Option()] = "tesla_model3",
    inverter: Annotated[str, typer.Option()] = "byd_modbus",
    wiring: Annotated[str | None, typer.Option(help="pack, pack+inverter, own or none.")] = None,
    chemistry: Annotated[str | None, typer.Option()] = None,
    cells: Annotated[int, typer.Option(help="Cells in series.")] = 96,
    output: Annotated[Path, typer.Option("-o", "--output")] = Path("controller.toml"),
) -> None:
    """Write a commented config. An existing file is never overwritten."""
    chosen = wiring or (BATTERIES[battery].wirings[0] if battery in BATTERIES else "pack")
    try:
        configs.init_file(output, configs.template(CATALOGUE, battery, inverter, chosen, chemistry, cells))
    except ConfigError as error:
        fail(str(error))
    out.print(f"{output}: written. Look at every line marked YOURS TO SET, then: controller config check")


@app.command("check")
def config_check(config: ConfigOption = None) -> None:
    """Say everything that is wrong, with line numbers. Exit 1 when something is."""
    path = _config_path(config)
    try:
        configs.load(path, CATALOGUE)
    except ConfigError as error:
        err.print(str(error), markup=False, soft_wrap=True)
        raise typer.Exit(2 if not path.is_file() else 1) from None
    out.print(f"{path}: nothing wrong")


@app.command("show")
def config_show(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Every key with its effective value, its bound, and where it comes from."""
    path = _config_path(config)
    try:
        shown = configs.show(configs.read(path, CATALOGUE))
    except ConfigError as error:
        fail(str(error))
    if as_json:
        typer.echo(json.dumps({"schema": 1, "file": str(path), "values": {k: v._asdict() for k, v in shown.items()}}))
        return
    table = Table("key", "value", "unit", "from", "bound")
    for key, value in shown.items():
        table.add_row(key, escape(value.written), value.unit, value.origin, escape(value.bound))
    out.print(table)


@app.command("set", context_settings={"ignore_unknown_options": True})
def config_set(key: str, value: str, config: ConfigOption = None) -> None:
    """Change one key; comments and everything else stay as they are. Not written when it makes anything wrong."""
    path = _config_path(config)
    try:
        changed = configs.set_value(path, key, value, CATALOGUE)
    except ConfigError as error:
        fail(str(error))
    out.print(f"{path}: {key} = {configs.HIDDEN if changed.key.secret else value}", markup=False)
    if changed.left:
        err.print(f"still to mend:\n{ConfigError(str(path), changed.left)}", markup=False, soft_wrap=True)


@app.command("apply")
def config_apply(
    proposal: Annotated[Path, typer.Argument(help="What is proposed; else what the page keeps.")] = PROPOSAL,
    config: ConfigOption = None,
    socket: SocketOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Put a proposal of the page in the config's place, and keep the old one. Refused while the pack is closed."""
    path = _config_path(config)
    try:
        proposed = text_of(proposal)
        news = proposals.difference(proposed, text_of(path), str(path), CATALOGUE)
        if not news:
            fail(f"{proposal} changes nothing in {path}")
        for line in news:
            out.print(line, markup=False)
        if not yes and not typer.confirm("Apply this?"):
            fail("nothing was changed")
        _refuse_while_closed(socket)
        kept = proposals.apply(path, proposed, CATALOGUE)
    except ConfigError as error:
        fail(str(error))
    with suppress(OSError):
        proposal.unlink()
    out.print(f"{path}: applied; the old one is {kept}. In force after: sudo systemctl restart packwarden-control "
              "packwarden-gateway", markup=False)  # fmt: skip


def _refuse_while_closed(socket: Path | None) -> None:
    try:
        with Client(socket_path(socket)) as client:
            now = client.status()
    except NobodyThere:
        return
    except LinkError as error:
        fail(str(error))
    if now["closed"]:
        fail(f"{now['state']}, with {', '.join(now['closed'])} closed: controller stop, then again")


@app.command("schema")
def config_schema() -> None:
    """The JSON schema of controller.toml, for editors."""
    typer.echo(json.dumps(configs.schema(CATALOGUE), indent=2, ensure_ascii=False))


def _config_path(option: Path | None) -> Path:
    path = configs.search(option, os.environ, Path.cwd())
    if path is None:
        fail("no config found: --config, $CONTROLLER_CONFIG, ./controller.toml or /etc/packwarden/controller.toml; "
             "`controller config init` writes one")  # fmt: skip
    return path
