"""The other end of the control socket, for the command line and the gateway."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

from controller.messages import VERSION, line_of

SOCKET_PATH: Final = Path("/run/packwarden/control.sock")
ANSWER_S: Final = 10.0
STATUS_MAX: Final = 1_000_000


class LinkError(Exception):
    """Nobody answers at the socket, or not as this program understands it."""


class NobodyThere(LinkError):
    """No controller runs."""


class Refused(Exception):
    """The controller does not do it, and says why."""


def socket_path(option: Path | None, environ: Mapping[str, str] = os.environ) -> Path:
    """--socket, $CONTROLLER_SOCKET, the one of the service."""
    return option or Path(environ.get("CONTROLLER_SOCKET") or SOCKET_PATH)


class Client:
    """One connection. Every method raises LinkError; a context manager."""

    def __init__(self, path: Path, within_s: float = ANSWER_S) -> None:
        self.path, self._rest = path, b""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._socket.settimeout(within_s)
        try:
            self._socket.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            self.close()
            raise NobodyThere(f"no controller answers at {path}: is it running? `systemctl status packwarden-control`"
                              ) from None  # fmt: skip
        except PermissionError:
            self.close()
            raise LinkError(f"{path} may not be used by this user: join the group packwarden") from None
        except OSError as error:
            self.close()
            raise LinkError(f"{path} cannot be used ({error.strerror or error})") from None

    def command(self, do: str, **fields: Any) -> dict[str, Any]:
        """Have a command taken by the core. Returns what it says then; raises Refused with its reason."""
        self._send({"do": do, **fields})
        reply = self._receive()
        while "status" in reply:  # of a watch on the same connection
            reply = self._receive()
        if not reply.get("done"):
            field, why = reply.get("field"), reply.get("why", "no reason was given")
            raise Refused(f"{field}: {why}" if field else str(why))
        return reply

    def status(self) -> dict[str, Any]:
        """The status now."""
        self._send({"do": "status"})
        return self._status()

    def watch(self, every_ms: int = 1000) -> Iterator[dict[str, Any]]:
        """The status, again and again, until the controller goes away (LinkError)."""
        self._send({"do": "watch", "every_ms": every_ms})
        while True:
            yield self._status()

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _status(self) -> dict[str, Any]:
        reply = self._receive()
        if not isinstance(status := reply.get("status"), dict):
            raise LinkError(f"{self.path}: {reply.get('why', 'no status in the answer')}")
        return status

    def _send(self, message: Mapping[str, Any]) -> None:
        with suppress(BrokenPipeError):  # what it said before it hung up is read below
            try:
                self._socket.sendall(line_of(message))
            except TimeoutError:
                raise LinkError(f"{self.path}: the controller does not answer") from None

    def _receive(self) -> dict[str, Any]:
        while b"\n" not in self._rest:
            try:
                data = self._socket.recv(65536)
            except TimeoutError:
                raise LinkError(f"{self.path}: the controller does not answer") from None
            except OSError as error:
                raise LinkError(f"{self.path}: {error.strerror}") from None
            if not data or len(self._rest) > STATUS_MAX:
                raise LinkError(f"{self.path}: the controller has hung up")
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        try:
            reply = json.loads(line)
            version = reply["version"]
        except (ValueError, KeyError, TypeError):
            raise LinkError(f"{self.path}: this is no controller") from None
        if version != VERSION:
            raise LinkError(f"{self.path}: the controller speaks version {version}, this program {VERSION}")
        return dict(reply)
