"""`controller dispatch`: asks the gateway, and shows what it will change, what runs and what is wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from controller.console import JsonOption, fail
from controller.gateway import requests

LIFE = re.compile(r"(?:(\d+)h)?(?:(\d+)m(?:in)?)?(?:(\d+)s)?")


def dispatch(
    charge: Annotated[
        int | None, typer.Option(min=0, metavar="W", help="Charge the battery with so many watts.")
    ] = None,
    discharge: Annotated[int | None, typer.Option(min=0, metavar="W", help="Discharge it with so many watts.")] = None,
    auto: Annotated[bool, typer.Option("--auto", help="Put the inverter back now.")] = False,
    life: Annotated[str | None, typer.Option("--for", help="For how long: 2h, 90m, 1h30m, 45s. At most 24h.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be written, and write nothing.")] = False,
    as_json: JsonOption = False,
    socket: Annotated[Path, typer.Option("--socket", help="The gateway's socket.")] = requests.SOCKET,
) -> None:
    """Steer the inverter's battery power for a while; without options, show what is running."""
    try:
        said = requests.ask(socket, _request(charge, discharge, auto, life, dry_run))
    except requests.RequestError as error:
        fail(str(error))
    if as_json:
        typer.echo(json.dumps(said, ensure_ascii=False))
    else:
        _tell(said)
    if not said["ok"]:
        raise typer.Exit(1)


def seconds(text: str) -> int:
    """2h, 90m, 1h30m, 45s. Raises ValueError."""
    found = LIFE.fullmatch(text.strip().replace(" ", "").lower())
    if found is None or not any(found.groups()):
        raise ValueError(f"{text!r} is no time; write 2h, 90m, 1h30m or 45s")
    hours, minutes, rest = (int(part or 0) for part in found.groups())
    return hours * 3600 + minutes * 60 + rest


def _request(
    charge: int | None, discharge: int | None, auto: bool, life: str | None, dry_run: bool
) -> Mapping[str, Any]:  # fmt: skip
    """Raises RequestError for options that do not go together."""
    asked = [name for name, on in (("--charge", charge is not None), ("--discharge", discharge is not None),
                                   ("--auto", auto)) if on]  # fmt: skip
    if len(asked) > 1:
        raise requests.RequestError(f"{' and '.join(asked)}: only one of them")
    if not asked or auto:
        if life is not None or dry_run:
            raise requests.RequestError("--for and --dry-run go with --charge or --discharge")
        return {"auto": True} if auto else {}
    if life is None:
        raise requests.RequestError(f"{asked[0]}: say for how long, as in --for 2h")
    try:
        for_s = seconds(life)
    except ValueError as error:
        raise requests.RequestError(f"--for: {error}") from None
    direction, power_w = ("charge_w", charge) if charge is not None else ("discharge_w", discharge)
    return {direction: power_w, "for_s": for_s, "dry_run": dry_run}


def _tell(said: Mapping[str, Any]) -> None:
    if not said["ok"]:
        typer.echo(f"controller: {said['why']}", err=True)
    if plan := said.get("plan"):
        typer.echo(f"{plan['inverter']}, serial number {plan['serial']}: {plan['allowed_w']} of {plan['asked_w']} W")
        for row in plan["changes"]:
            typer.echo(f"  {row['register']:>6}  {row['name']:<18} {row['text']}")
        if not plan["runs"]:
            typer.echo("nothing was written (--dry-run)")
    elif "was_running" in said:
        typer.echo("the inverter is as it was before" if said["was_running"] else "nothing was running")
    if now := said.get("running"):
        battery = "unknown" if now["battery_w"] is None else f"{now['battery_w']:+d} W (+ is charging)"
        typer.echo(f"{now['inverter']}: {now['direction']} with {now['told_w']} W (asked {now['asked_w']} W, allowed "
                   f"{now['allowed_w']} W), battery {battery}, {_life(now['left_s'])} left")  # fmt: skip
    elif "plan" not in said and "was_running" not in said:
        ended = f"; the last dispatch ended: {said['ended']}" if said.get("ended") else ""
        typer.echo(f"nothing is running{ended}")
    if said.get("problem") and said.get("problem") not in said.get("why", ""):
        typer.echo(f"controller: {said['problem']}", err=True)


def _life(left_s: int) -> str:
    hours, rest = divmod(left_s, 3600)
    minutes, rest = divmod(rest, 60)
    return " ".join(f"{n} {unit}" for n, unit in ((hours, "h"), (minutes, "min"), (rest, "s")) if n) or "0 s"
