"""Who asks the gateway, over its unix socket: one JSON object a line each way. The dispatch requests are answered here.

{"version": 1, "dispatch": {"charge_w": 3000, "for_s": 7200, "dry_run": false}}     or discharge_w
{"version": 1, "dispatch": {"auto": true}}
{"version": 1, "dispatch": {}}                                                      what is running
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from controller.gateway.brands import Refused
from controller.gateway.dispatch import FOR_MAX_S
from controller.gateway.dispatcher import Dispatcher

VERSION = 1
SOCKET = Path("/run/packwarden-gateway/gateway.sock")
LINE_MAX = 65_536
IDLE_S = 60.0
ANSWER_S = 90.0
POWER_MAX_W = 100_000

Answer = dict[str, Any]
Handler = Callable[[Mapping[str, Any]], Awaitable[Answer]]


class RequestError(Exception):
    """The gateway could not be asked. The message says why."""


async def answer(dispatcher: Dispatcher, request: Mapping[str, Any]) -> Answer:
    """What the dispatcher says to a request. Everything that is wrong with it is an answer with ok false."""
    try:
        said = await _answered(dispatcher, request)
    except Refused as refusal:
        return {"version": VERSION, "ok": False, "why": str(refusal), **await dispatcher.status()}
    return {"version": VERSION, "ok": True, **said, **await dispatcher.status()}


async def _answered(dispatcher: Dispatcher, request: Mapping[str, Any]) -> Answer:
    if request.get("version") != VERSION:
        raise Refused(f"this gateway speaks version {VERSION}, not {request.get('version')!r}")
    asked = request.get("dispatch")
    if type(asked) is not dict or len(request) != 2:
        raise Refused("a request has `version` and `dispatch`")
    if not asked:
        return {}
    if asked == {"auto": True}:
        return {"was_running": await dispatcher.auto()}
    directions = asked.keys() & {"charge_w", "discharge_w"}
    if len(directions) != 1 or asked.keys() - directions - {"for_s", "dry_run"}:
        raise Refused("a dispatch has `charge_w` or `discharge_w`, `for_s`, and may have `dry_run`; or only `auto`")
    (direction,) = directions
    power_w, for_s, dry_run = asked[direction], asked.get("for_s"), asked.get("dry_run", False)
    if type(power_w) is not int or not 0 <= power_w <= POWER_MAX_W:
        raise Refused(f"the power is a whole number from 0 to {POWER_MAX_W} W")
    if type(for_s) is not int or not 1 <= for_s <= FOR_MAX_S:
        raise Refused(f"a dispatch has a life, at most {FOR_MAX_S // 3600} h")
    if type(dry_run) is not bool:
        raise Refused("`dry_run` is true or false")
    return {"plan": await dispatcher.dispatch(direction == "charge_w", power_w, for_s, dry_run)}


@asynccontextmanager
async def serving(path: Path, handle: Handler) -> AsyncIterator[None]:
    """Answers on the socket, for its owner and group, until the block is left. Raises RequestError when it is taken."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, TimeoutError, ValueError):  # gone, idle, or a line without end
            while line := await asyncio.wait_for(reader.readline(), IDLE_S):
                writer.write((json.dumps(await _one(line, handle), ensure_ascii=False) + "\n").encode())
                await writer.drain()
        writer.close()

    _free(path)
    with socket.socket(socket.AF_UNIX) as ears:
        before = os.umask(0o117)
        try:
            ears.bind(str(path))
        except OSError as error:
            raise RequestError(f"{path}: cannot be listened on ({error.strerror or error})") from None
        finally:
            os.umask(before)
        try:
            server = await asyncio.start_unix_server(talk, sock=ears, limit=LINE_MAX)
            try:
                yield
            finally:
                server.close()
        finally:
            path.unlink(missing_ok=True)


async def reside(dispatcher: Dispatcher, path: Path = SOCKET) -> None:
    """Steer and answer until cancelled; then the inverter is put back. Raises RequestError when the socket is taken."""
    async with serving(path, partial(answer, dispatcher)):
        await dispatcher.run()


async def _one(line: bytes, handle: Handler) -> Answer:
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        request = None
    if type(request) is not dict:
        return {"version": VERSION, "ok": False, "why": "no JSON object"}
    return await handle(request)


def _free(path: Path) -> None:
    """Take a dead socket away. A living one belongs to another gateway."""
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise RequestError(f"{path}: there is something else, and it is kept")
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1)
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink()
                return
            except OSError as error:
                raise RequestError(f"{path}: cannot be used ({error.strerror or error})") from None
        raise RequestError(f"{path}: another gateway answers there")


def ask(path: Path, dispatch: Mapping[str, Any]) -> Answer:
    """One dispatch request and its answer. Raises RequestError when there is none."""
    try:
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(ANSWER_S)
            line.connect(str(path))
            line.sendall(json.dumps({"version": VERSION, "dispatch": dict(dispatch)}).encode() + b"\n")
            with line.makefile("rb") as file:
                got = file.readline(4 * LINE_MAX)
    except (FileNotFoundError, ConnectionRefusedError):
        raise RequestError(f"the gateway is not running (nobody answers at {path})") from None
    except PermissionError:
        raise RequestError(f"{path}: not allowed; be root or in its group") from None
    except OSError as error:
        raise RequestError(f"{path}: no answer ({error.strerror or error})") from None
    try:
        said = json.loads(got)
    except ValueError:
        said = None
    if type(said) is not dict or said.get("version") != VERSION:
        raise RequestError(f"{path}: an answer this program does not understand; are both of one version?")
    return said
