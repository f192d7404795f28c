"""The gateway's end of the control socket: watches the status, hands commands on, connects again and again.

One connection watches; each command has one of its own, since control answers a connection one message at a time.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

from controller.client import ANSWER_S, STATUS_MAX, LinkError
from controller.gateway.hub import Answer, Hub
from controller.messages import VERSION, line_of

SCHEMA: Final = 1
"""Of the status; see controller.status."""
WATCH_MS: Final = 1000
SILENT_S: Final = 6.0
"""Control publishes every WATCH_MS, in overload every two seconds: longer silence is a loss."""
AGAIN_S: Final = (0.2, 0.5, 1.0, 2.0, 5.0)
"""Waits before connecting again; the last one for as long as it takes."""


class ControlLink:
    """Feeds the hub. silent_s and pause: so that tests need not wait."""

    def __init__(
        self, path: Path, hub: Hub, *, watch_ms: int = WATCH_MS, silent_s: float = SILENT_S,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:  # fmt: skip
        self._path, self._hub, self._watch_ms = path, hub, watch_ms
        self._silent_s, self._pause = silent_s, pause
        hub.attach(self.command)

    async def run(self) -> None:
        """Until it is cancelled."""
        tries = 0
        try:
            while True:
                try:
                    await self._watch()
                except LinkError as error:
                    tries = 0 if self._hub.newest is not None else min(tries + 1, len(AGAIN_S) - 1)
                    self._hub.lose(str(error))
                await self._pause(AGAIN_S[tries])
        finally:
            self._hub.lose("the link to the control process has ended")

    async def command(self, message: Mapping[str, Any]) -> Answer:
        """Never raises: everything that goes wrong is an answer."""
        try:
            async with self._connected() as (reader, writer):
                told = await self._asked(reader, writer, message, ANSWER_S)
        except LinkError as error:
            return Answer(False, str(error))
        if told.get("done") is True:
            return Answer(True, "", told)
        field, why = told.get("field"), told.get("why", "no reason was given")
        return Answer(False, f"{field}: {why}" if field else str(why), told)

    async def _watch(self) -> None:
        """Until control is lost. Raises LinkError."""
        async with self._connected() as (reader, writer):
            told = await self._asked(reader, writer, {"do": "watch", "every_ms": self._watch_ms}, self._silent_s)
            while True:
                status = told.get("status")
                if not isinstance(status, dict):
                    raise LinkError(f"{self._path}: {told.get('why', 'no status in the answer')}")
                if status.get("schema") != SCHEMA:
                    raise LinkError(f"{self._path}: the status has schema {status.get('schema')!r}, this gateway reads "
                                    f"{SCHEMA}; install one version of both")  # fmt: skip
                self._hub.publish(status)
                told = await self._told(reader, self._silent_s)

    # --- one connection ---

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """Raises LinkError, also for every OSError inside."""
        try:
            async with asyncio.timeout(self._silent_s):
                reader, writer = await asyncio.open_unix_connection(self._path, limit=STATUS_MAX)
            try:
                yield reader, writer
            finally:
                writer.close()
        except (FileNotFoundError, ConnectionRefusedError):
            raise LinkError(f"no controller answers at {self._path}") from None
        except PermissionError:
            raise LinkError(f"{self._path} may not be used by this user: join the group packwarden") from None
        except TimeoutError:
            raise LinkError(f"{self._path}: the controller does not answer") from None
        except OSError as error:
            raise LinkError(f"{self._path}: {error.strerror or error}") from None

    async def _asked(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, message: Mapping[str, Any], within_s: float
    ) -> Mapping[str, Any]:
        with suppress(ConnectionError):  # what it said before it hung up is read below
            writer.write(line_of(message))
            await writer.drain()
        return await self._told(reader, within_s)

    async def _told(self, reader: asyncio.StreamReader, within_s: float) -> Mapping[str, Any]:
        """The next line. Raises LinkError for what no control process of this version says."""
        try:
            async with asyncio.timeout(within_s):
                line = await reader.readline()
        except TimeoutError:
            raise LinkError(f"{self._path}: the controller does not answer") from None
        except ValueError:
            raise LinkError(f"{self._path}: this is no controller") from None
        if not line.endswith(b"\n"):
            raise LinkError(f"{self._path}: the controller has hung up")
        try:
            told = json.loads(line)
            version = told["version"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise LinkError(f"{self._path}: this is no controller") from None
        if version != VERSION:
            raise LinkError(f"{self._path}: the controller speaks version {version!r}, this gateway {VERSION}; install "
                            "one version of both")  # fmt: skip
        return dict(told)
