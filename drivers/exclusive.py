"""One owner for each bus, port and pin of this machine, whoever the other one runs as."""

from __future__ import annotations

import socket
import struct

from controller.ports import PortError

_PEER = struct.Struct("3i")


class Exclusive:
    """Holds names until it is closed or the process ends, however that ends.

    A name is an abstract unix socket: no file to be left behind, no folder both must be able to write to. scope: names
    of different scopes do not meet.
    """

    def __init__(self, scope: str = "packwarden") -> None:
        self._scope = scope
        self._held: list[socket.socket] = []

    def take(self, name: str) -> None:
        """Raises PortError when another process, or this one, holds it."""
        address = f"\0{self._scope} {name}".encode()[:100]
        ours = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            ours.bind(address)
            ours.listen(1)
        except OSError:
            ours.close()
            raise PortError(f"{name} is in use by another controller{_holder(address)}; stop that one first") from None
        self._held.append(ours)

    def close(self) -> None:
        while self._held:
            self._held.pop().close()


def _holder(address: bytes) -> str:
    """ " (process 1234)", empty when it cannot be told."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.setblocking(False)
        try:
            asking.connect(address)
            peer = asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
        except OSError:
            return ""
    return f" (process {_PEER.unpack(peer)[0]})"
