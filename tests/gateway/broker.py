"""A mosquitto of our own for a test, and somebody who listens at it."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiomqtt
import pytest

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
needs_mosquitto = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed: apt install mosquitto")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Mosquitto:
    """Starts and stops on one port. lines: further lines of its config."""

    def __init__(self, folder: Path, *lines: str, anonymous: bool = True) -> None:
        self.port, self.folder = free_port(), folder
        self.config = folder / "mosquitto.conf"
        self.config.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous {str(anonymous).lower()}\nuser root\n" + "\n".join(lines)
        )
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Mosquitto:
        assert MOSQUITTO is not None
        with (self.folder / "mosquitto.log").open("wb") as log:
            self.process = subprocess.Popen([MOSQUITTO, "-c", str(self.config)], stdout=log, stderr=log)
        for _ in range(1000):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            assert self.process.poll() is None, (self.folder / "mosquitto.log").read_text()
            time.sleep(0.01)
        raise AssertionError("mosquitto does not listen")

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(10)
            self.process = None

    def __enter__(self) -> Mosquitto:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


@dataclass
class Watcher:
    """Everything that was published, in its order; and a hand to publish with."""

    client: aiomqtt.Client
    heard: list[aiomqtt.Message] = field(default_factory=list)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    async def listen(self) -> None:
        async for message in self.client.messages:
            self.heard.append(message)
            self._news.set()

    async def until(self, true: Callable[[], Any]) -> Any:
        """What it gives as soon as it is so."""
        while not (found := true()):
            self._news.clear()
            await self._news.wait()
        return found

    def payloads(self, topic: str) -> list[str]:
        return [bytes(m.payload).decode() for m in self.heard if m.topic.value == topic]  # type: ignore[arg-type]

    async def hear(self, topic: str, contains: str = "", count: int = 1) -> str:
        """The last payload of the topic, once so many of them hold this text."""
        found = await self.until(lambda: [text for text in self.payloads(topic) if contains in text][count - 1 :])
        return str(found[-1])

    async def say(self, topic: str, payload: str | bytes, *, retain: bool = False) -> None:
        await self.client.publish(topic, payload, qos=1, retain=retain)


@asynccontextmanager
async def watching(port: int, topic: str = "#", **options: Any) -> AsyncIterator[Watcher]:
    async with aiomqtt.Client("127.0.0.1", port, **options) as client:
        watcher = Watcher(client)
        await client.subscribe(topic, qos=1)
        task = asyncio.create_task(watcher.listen())
        try:
            yield watcher
        finally:
            task.cancel()
            await asyncio.wait([task])


def password_file(folder: Path, **users: str) -> Path:
    path = folder / "passwords"
    for name, password in users.items():
        create = [] if path.exists() else ["-c"]
        subprocess.run(["mosquitto_passwd", "-b", *create, str(path), name, password], check=True, capture_output=True)
    return path


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A self-made certificate for 127.0.0.1, and its key."""
    cert, key = folder / f"{name}.crt", folder / f"{name}.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
               "-days", "2", "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1",
               "-keyout", str(key), "-out", str(cert)]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    return cert, key


def trusting(cert: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(cert))
