"""The resident that talks to the MQTT broker: publishes what the hub has, and hands commands on. All of it again after
every loss; the only file that knows aiomqtt.

Each connection begins with a clean session: a command sent while we were away is not done later. Our own retained
messages are read first: they tell which event was sent last and what Home Assistant knows of us.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import aiomqtt

from controller.gateway import batt2gen24, home_assistant, topics, wall
from controller.gateway.home_assistant import About
from controller.gateway.hub import Hub, Newest
from controller.gateway.topics import LASTS_S, Message, Names, Refused, Wish

KEEP_ALIVE_S: Final = 30
ANSWER_S: Final = 10.0
GOODBYE_S: Final = 2.0
INCOMING_MAX: Final = 100
LARGEST: Final = 2**18
REFUSALS_MAX, REFUSALS_S = 20, 10.0
"""So many refusals are answered in that time; the rest is counted."""
AGAIN_S: Final = (1.0, 2.0, 5.0, 10.0, 30.0)
SLACK_S: Final = 0.1
"""A status that comes a little early counts as due."""
REASONS: Final = (
    ("Connection refused", "nobody answers there"),
    ("CERTIFICATE_VERIFY_FAILED", "its certificate is not the one to be trusted"),
    ("WRONG_VERSION_NUMBER", "it does not speak TLS on this port"),
    ("Name or service not known", "there is no host of this name"),
    ("Not authorized", "it refuses this user or password"),
    ("ad user name or password", "it refuses this user or password"),
    ("timed out", "it does not answer"),
    ("Disconnected", "it has hung up"),
    ("nspecified error", "it has hung up"),
    ("nexpected", "it has hung up"),
)
"""What aiomqtt and paho say, in plain words."""
SILENT = logging.getLogger("packwarden.mqtt")
SILENT.addHandler(logging.NullHandler())
SILENT.propagate = False


class Broker(NamedTuple):
    """Where the broker is and who we are there. password_file: read at each connection; empty when there is none."""

    host: str
    port: int
    client_id: str
    user: str = ""
    password: str = ""
    password_file: str = ""
    tls: bool = False
    ca_file: str = ""

    def __str__(self) -> str:
        return f"MQTT broker {self.host}:{self.port}"

    def __repr__(self) -> str:
        return f"<{self}>"


class Site(NamedTuple):
    """What is published, and how often. old: None without batt2gen24's topics. discovery: empty without Home Assistant.

    about: of the pack, as the config states it; the status corrects it.
    """

    names: Names
    old: batt2gen24.Names | None
    discovery: str
    about: About
    every_s: float


class Intake(asyncio.Queue[aiomqtt.Message]):
    """Commands that wait for their turn. A full one takes no more, but for a stop: that takes the place of the oldest
    that is none. dropped: how many went, since somebody looked. What is larger than anything of ours is cut off.
    """

    def __init__(self, size: int, stops: Callable[[aiomqtt.Message], bool]) -> None:
        super().__init__(size)
        self._stops, self.dropped = stops, 0

    def put_nowait(self, item: aiomqtt.Message) -> None:
        if isinstance(item.payload, bytes):
            item.payload = item.payload[:LARGEST]
        if self.full():
            self.dropped += 1
            waiting: deque[aiomqtt.Message] = self._queue  # type: ignore[attr-defined]
            gives_way = next((one for one in waiting if not self._stops(one)), None) if self._stops(item) else None
            if gives_way is None:
                return
            waiting.remove(gives_way)
        super().put_nowait(item)


class BrokerError(Exception):
    """Why the broker cannot be used, in one sentence and without the password."""


class Mqtt:
    """`run` never ends by itself. pause and now_s: the clock, so that tests can move it by hand."""

    def __init__(
        self, broker: Broker, site: Site, hub: Hub, tell: Callable[[str], None], *,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep, now_s: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._broker, self._site, self._hub, self._tell = broker, site, hub, tell
        self._pause, self._now_s = pause, now_s
        self._lasts_s = LASTS_S
        self._commands = [*topics.commands(site.names), *(batt2gen24.commands(site.old) if site.old else ())]
        self._refused = [site.names.topic("refused"), *([batt2gen24.refused_topic(site.old)] if site.old else ())]
        self._discovery_topic = home_assistant.topic(site.names, site.discovery)
        self._event_sent = 0
        self._about = site.about
        self._until: topics.Sent | None = None
        self._refusals: list[float] = []
        self._unanswered = 0

    async def run(self) -> None:
        """Connects again for as long as it takes."""
        tries = 0
        while True:
            began_s = self._now_s()
            try:
                await asyncio.create_task(self._session())
            except BrokerError as error:
                self._tell(str(error))
            _unless_cancelled()
            lasted = self._now_s() - began_s > AGAIN_S[-1]
            tries = 0 if lasted else tries + 1
            await self._pause(AGAIN_S[min(tries, len(AGAIN_S) - 1)])

    # --- one connection ---

    async def _session(self) -> None:
        """Until the broker is lost. Raises BrokerError."""
        try:
            async with self._client() as client:
                self._tell(f"{self._broker}: connected")
                try:
                    await self._talk(client)
                finally:  # the last will is not sent for who says goodbye
                    with suppress(aiomqtt.MqttError):
                        await _published(client, topics.available(self._site.names, heard=False), GOODBYE_S)
        except (aiomqtt.MqttError, OSError) as error:
            raise self._lost(error) from None
        except ExceptionGroup as group:
            expected, others = group.split((aiomqtt.MqttError, OSError))
            if others is not None or expected is None:
                raise
            raise self._lost(expected.exceptions[0]) from None

    def _lost(self, error: Exception) -> BrokerError:
        text = str(error)
        return BrokerError(f"{self._broker}: {next((ours for theirs, ours in REASONS if theirs in text), text)}")

    def _client(self) -> aiomqtt.Client:
        """Raises OSError for files that cannot be read."""
        broker, will = self._broker, topics.available(self._site.names, heard=False)
        password = broker.password
        if broker.password_file:
            password = Path(broker.password_file).read_text(encoding="utf-8", errors="replace").rstrip("\r\n")
        return aiomqtt.Client(
            broker.host, broker.port, identifier=broker.client_id, username=broker.user or None,
            password=password or None, clean_session=True, keepalive=KEEP_ALIVE_S, timeout=ANSWER_S, logger=SILENT,
            tls_context=ssl.create_default_context(cafile=broker.ca_file or None) if broker.tls else None,
            will=aiomqtt.Will(will.topic, will.payload, will.qos, will.retain),
            max_queued_incoming_messages=INCOMING_MAX, queue_type=self._waiting_room,  # type: ignore[arg-type]
        )  # fmt: skip

    def _waiting_room(self, maxsize: int) -> Intake:
        self._intake = Intake(maxsize, self._stops)
        return self._intake

    async def _talk(self, client: aiomqtt.Client) -> None:
        known = await self._retained(client)
        if self._event_sent == 0:
            self._until = topics.sent_until(known.get(self._site.names.topic("event"), b""))
        await self._subscribe(client, self._commands)
        async with asyncio.TaskGroup() as both:
            both.create_task(self._publish(client, known.get(self._discovery_topic, b"")))
            both.create_task(self._listen(client))

    async def _subscribe(self, client: aiomqtt.Client, wanted: Sequence[str]) -> None:
        answers = await client.subscribe([(topic, 1) for topic in wanted])
        _unless_cancelled()
        refused = [topic for topic, answer in zip(wanted, answers, strict=True) if _failed(answer)]
        if refused:
            self._tell(f"{self._broker}: it does not let us subscribe to {', '.join(refused)}")

    async def _retained(self, client: aiomqtt.Client) -> dict[str, bytes]:
        """Our own retained messages. A broker sends them before it confirms what we publish after subscribing."""
        wanted = [self._site.names.topic("event"), *([self._discovery_topic] if self._site.discovery else [])]
        await self._subscribe(client, wanted)
        await self._send(client, topics.available(self._site.names, self._hub.newest is not None))
        await client.unsubscribe(wanted)
        found = {}
        for _ in range(len(client.messages)):
            message = await anext(client.messages)
            found[message.topic.value] = _bytes(message.payload)
        return found

    async def _send(self, client: aiomqtt.Client, message: Message) -> None:
        await _published(client, message, ANSWER_S)
        _unless_cancelled()

    # --- outwards ---

    async def _publish(self, client: aiomqtt.Client, discovery: bytes) -> None:
        """The newest status when it is due, and at once when it matters; events as they happen."""
        announced = discovery.decode("utf-8", "replace")
        seen, heard, told, due_s = -1, None, None, 0.0
        while True:
            seen = await self._hub.changed(seen)
            newest = self._hub.newest
            if heard is not (newest is not None):
                heard = newest is not None
                await self._send(client, topics.available(self._site.names, heard))
            if newest is None:
                continue
            if self._site.discovery:
                announced = await self._announce(client, newest, announced)
            await self._publish_events(client)
            matters, now_s = (topics.urgent(newest.status), self._lasts_s), self._now_s()
            if matters != told or now_s >= due_s:
                told, due_s = matters, now_s + self._site.every_s - SLACK_S
                await self._publish_status(client, newest)

    async def _publish_events(self, client: aiomqtt.Client) -> None:
        """All that have not been sent; those of an earlier gateway of this boot have been."""
        happened = list(self._hub.since(self._event_sent))
        if self._until is not None:
            happened, self._until = topics.unsent(happened, self._until), None
        for happening in happened:
            await self._send(client, topics.event(self._site.names, happening))
            self._event_sent = happening.number

    async def _publish_status(self, client: aiomqtt.Client, newest: Newest) -> None:
        for message in topics.messages(self._site.names, newest, self._lasts_s):
            await self._send(client, message)
        if self._site.old:
            for message in batt2gen24.messages(self._site.old, newest):
                await self._send(client, message)

    async def _announce(self, client: aiomqtt.Client, newest: Newest, announced: str) -> str:
        """Tell Home Assistant what there is, when that has changed."""
        status, about = newest.status, self._about
        cells = status["signals"]["cells"]
        known = cells if cells and about.cells else about.cells
        self._about = about._replace(cells=known, program=status["program"])
        message = home_assistant.discovery(self._site.names, self._site.discovery, self._about, announced.encode())
        if message.payload != announced:
            await self._send(client, message)
        return message.payload

    # --- inwards ---

    async def _listen(self, client: aiomqtt.Client) -> None:
        async for message in client.messages:
            topic, payload = message.topic.value, _bytes(message.payload)
            try:
                if message.retain:
                    raise Refused("a retained message commands nothing; remove it with mosquitto_pub -r -n")
                if (wish := self._wish(topic, payload)) is not None:
                    await self._obey(topic, wish)
            except Refused as refusal:
                await self._refuse(client, topic, payload, str(refusal))
            if dropped := self._intake.dropped:
                self._intake.dropped = 0
                self._tell(f"MQTT: {dropped} commands were dropped, with more than {INCOMING_MAX} waiting")

    def _stops(self, message: aiomqtt.Message) -> bool:
        """Whether it is a stop, which must not be lost among others."""
        try:
            wish = None if message.retain else self._wish(message.topic.value, _bytes(message.payload))
        except Refused:
            return False
        return wish is not None and any(ask["do"] == "stop" for ask in wish.asks)

    def _wish(self, topic: str, payload: bytes) -> Wish | None:
        old = self._site.old
        if old is not None and topic in batt2gen24.commands(old):
            return batt2gen24.wish(old, topic, payload)
        return topics.wish(self._site.names, topic, payload, self._lasts_s)

    async def _obey(self, topic: str, wish: Wish) -> None:
        """Raises Refused with control's reason; what stood before it in the list is done then."""
        if wish.lasts_s is not None:
            self._lasts_s = wish.lasts_s
        for ask in wish.asks:
            answer = await self._hub.command(ask, f"MQTT {topic}")
            if not answer.done:
                raise Refused(answer.why)
            self._tell(f"MQTT {topic}: {_told(ask)}: done")

    async def _refuse(self, client: aiomqtt.Client, topic: str, payload: bytes, why: str) -> None:
        """On our own topic, and on that of batt2gen24. Whoever floods us is answered now and then only."""
        now_s = self._now_s()
        self._refusals = [at_s for at_s in self._refusals if now_s - at_s < REFUSALS_S]
        if len(self._refusals) >= REFUSALS_MAX:
            self._unanswered += 1
            return
        self._refusals.append(now_s)
        if self._unanswered:
            why, self._unanswered = f"{why} ({self._unanswered} more before it were not answered)", 0
        self._tell(f"MQTT {topic}: refused: {why}")
        for answer in self._refused:
            await self._send(client, topics.refusal(answer, topic, payload, why, wall.now()))


async def _published(client: aiomqtt.Client, message: Message, within_s: float) -> None:
    await client.publish(message.topic, message.payload, message.qos, message.retain, timeout=within_s)


def _unless_cancelled() -> None:
    """aiomqtt waits with asyncio.wait_for, which loses some cancellations before Python 3.12 (python/cpython#86296).

    Not for a task after its TaskGroup has failed: that leaves the count of cancellations up.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _bytes(payload: Any) -> bytes:
    return payload if isinstance(payload, bytes) else str(payload or "").encode()


def _failed(answer: Any) -> bool:
    """Of a SUBACK: 0x80 and above."""
    return bool((answer if isinstance(answer, int) else answer.value) >= 0x80)


def _told(ask: Mapping[str, Any]) -> str:
    return " ".join([ask["do"], *(f"{field}={value}" for field, value in ask.items() if field != "do")])
