"""The `controller` command. Exit status 0: nothing was wrong; 1: the thing examined is at fault; 2: wrong use."""

from __future__ import annotations

import io
import os
import sys
from importlib import import_module
from typing import Annotated, Any, Final, cast

import typer
from typer.core import TyperGroup

from controller.console import err, out
from controller.version import program

UsageError = cast(type[Exception], typer.BadParameter.__mro__[2])
"""What typer raises for wrong use, and for nothing else; it has had more than one home."""
COMMANDS: Final = {
    "run": "cli_live:run",
    "outputs-off": "cli_live:outputs_off",
    "status": "cli_live:status",
    "watch": "cli_live:watch",
    "enable": "cli_live:enable",
    "stop": "cli_live:stop",
    "acknowledge": "cli_live:acknowledge",
    "limit": "cli_live:limit",
    "unlock": "cli_live:unlock",
    "recovery-charge": "cli_live:recovery_charge",
    "doctor": "cli_doctor:doctor",
    "dispatch": "gateway.commands:dispatch",
    "gateway": "cli_gateway:app",
    "incident": "cli_incident:app",
    "config": "cli_config:app",
    "log": "cli_log:app",
    "sim": "cli_bench:sim",
    "diagram": "cli_chart:diagram",
    "verify": "cli_chart:verify",
}
"""Each command and where it is: loaded when it is asked for, so that a controller that runs holds no simulator."""


class _Commands(TyperGroup):
    def list_commands(self, ctx: object) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: object, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        found = getattr(import_module(f"controller.{module}"), name)
        if not isinstance(found, typer.Typer):
            found, function = typer.Typer(add_completion=False), found
            found.command(cmd_name)(function)
        command = typer.main.get_command(found)
        command.name = cmd_name
        return command


app = typer.Typer(cls=_Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
                  help="A safety-first controller for second-life EV batteries.")  # fmt: skip


def _show_version(wanted: bool) -> None:
    if wanted:
        out.print(f"packwarden {program()}")
        raise typer.Exit


@app.callback()
def _main(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """A safety-first controller for second-life EV batteries."""


def main() -> None:
    """Entry point of the `controller` command: whatever goes wrong outside is one line and exit 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = app(standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
    except UsageError as error:
        code = _told(str(error.format_message()))  # type: ignore[attr-defined]
    except (typer.Abort, KeyboardInterrupt):
        code = _told("stopped")
    except BrokenPipeError:
        code = 0
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        code = _told(f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error))
        if sys.stdout is not None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code if isinstance(code, int) else 0)


def _told(message: str) -> int:
    """One line on stderr; exit status 2."""
    if message:  # empty: the help was shown instead
        err.print("controller: " + " ".join(message.split("\n")), markup=False, soft_wrap=True)
    return 2


if __name__ == "__main__":
    main()
