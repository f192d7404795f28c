"""The gateway at a real broker: what is there for whom, what is obeyed, and what survives a broker that goes away."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiomqtt
import pytest

from controller.gateway import batt2gen24, mqtt
from controller.gateway.home_assistant import About
from controller.gateway.hub import EVENTS_KEPT, Answer, Hub
from controller.gateway.mqtt import Broker, Mqtt, Site
from controller.gateway.topics import Names
from controller.messages import line_of
from tests.gateway import statuses
from tests.gateway.broker import Mosquitto, Watcher, certificate, needs_mosquitto, password_file, trusting, watching
from tests.gateway.test_link import says, scenario, served, soon
from tests.live.world import CONFIG

pytestmark = needs_mosquitto

NAMES = Names("packwarden", "barn", "leaf")
ABOUT = About("Tesla Model 3", "pack", 96, False, 5000.0, "")
SITE = Site(NAMES, batt2gen24.Names("", "hassbian", 5000.0), "homeassistant", ABOUT, 60.0)
DISCOVERY = "homeassistant/device/packwarden-barn--leaf/config"


@dataclass
class Gateway:
    """An Mqtt resident with a hub in which the test plays control. again: while clear, it does not connect again."""

    mqtt: Mqtt
    again: asyncio.Event
    hub: Hub
    said: list[str]
    asked: list[Mapping[str, Any]] = field(default_factory=list)
    by: list[str] = field(default_factory=list)
    answer: Answer = field(default_factory=lambda: Answer(True))

    async def control(self, message: Mapping[str, Any]) -> Answer:
        self.by.append(message["by"])
        self.asked.append({name: value for name, value in message.items() if name != "by"})
        return self.answer


@asynccontextmanager
async def gateway(port: int, site: Site = SITE, **broker: Any) -> AsyncIterator[Gateway]:
    """It connects again without waiting."""
    hub, said, again = Hub(), [], asyncio.Event()
    again.set()

    async def pause(_: float) -> None:
        await asyncio.sleep(0.02)
        await again.wait()

    where = Broker("127.0.0.1", port, "packwarden-barn-leaf", **broker)
    resident = Mqtt(where, site, hub, said.append, pause=pause)
    made = Gateway(resident, again, hub, said)
    hub.attach(made.control)
    task = asyncio.create_task(resident.run())
    try:
        yield made
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.wait([task])


def topic(name: str) -> str:
    return NAMES.topic(name)


# --- what is published ---


def test_batt2gen24s_subscriber_finds_its_topics_and_keys(tmp_path: Path):
    async def story() -> None:
        with Mosquitto(tmp_path) as broker:
            async with watching(broker.port) as watcher, gateway(broker.port) as gate:
                gate.hub.publish(statuses.running())
                state = json.loads(await watcher.hear("tele/batt2gen24_hassbian/STATE"))
                assert state["bms/stat"] == json.loads(watcher.payloads("bms/stat")[-1])
                assert state["inverter/data"]["soc"] == 55.0
                assert state["inverter/registers"] == json.loads(watcher.payloads("inverter/registers")[-1])

    scenario(story)


def test_without_batt2gen24_only_our_own_tree_is_there(tmp_path: Path):
    async def story() -> None:
        with Mosquitto(tmp_path) as broker:
            site = SITE._replace(old=None, discovery="")
            async with watching(broker.port) as watcher, gateway(broker.port, site) as gate:
                gate.hub.publish(statuses.running())
                await watcher.hear(topic("faults"))
                await watcher.say("bms/control", "close_contactor")
                await watcher.say(topic("command/stop"), "PRESS")
                await soon(lambda: gate.asked)
                assert gate.asked == [{"do": "stop"}]
                assert {m.topic.value for m in watcher.heard} - {"bms/control", topic("command/stop")} == {
                    topic(name) for name in ("available", "state", "limits", "cells", "faults", "event")
                }  # fmt: skip

    scenario(story)


def test_somebody_who_comes_late_finds_the_tree_and_nothing_of_batt2gen24(tmp_path: Path):
    async def story() -> None:
        with Mosquitto(tmp_path) as broker:
            async with watching(broker.port) as watcher, gateway(broker.port) as gate:
                gate.hub.publish(statuses.running())
                await watcher.hear("tele/batt2gen24_hassbian/STATE")
                async with watching(broker.port) as late:
                    kept = ("available", "state", "limits", "cells", "faults", "event")
                    await late.until(lambda: len(late.heard) == len(kept) + 1)
                    found = {m.topic.value for m in late.heard if m.retain}
        assert found == {DISCOVERY, *map(topic, kept)}

    scenario(story)


def test_values_wait_for_their_time_and_a_change_of_state_does_not(tmp_path: Path):
    async def story() -> None:
        with Mosquitto(tmp_path) as broker:
            async with watching(broker.port, topic("state")) as watcher, gateway(broker.port) as gate:
                status = statuses.running()
                gate.hub.publish(status)
                await watcher.hear(topic("state"))
                for second in range(1, 5):
                    gate.hub.publish(statuses.later(status, second))
                    await asyncio.sleep(0.02)
                gate.hub.publish({**statuses.later(status, 5), "state": "FAULT"})
                await watcher.hear(topic("state"), '"state": "FAULT"')
                assert len(watcher.heard) == 2

    scenario(story)


# --- availability ---


def test_it_is_online_only_while_control_is_heard(tmp_path: Path):
    async def story() -> None:
        with Mosquitto(tmp_path) as broker:
            async with watching(broker.port, topic("available")) as watcher, gateway(broker.port) as gate:
                await watcher.hear(topic("available"), "offline")
                gate.hub.publish(statuses.running())
                await watcher.hear(topic("available"), "online")
                gate.hub.lose("gone")
                await watcher.hear(topic("available"), "offline", count=3)
            async with watching(broker.port, topic("available")) as late:
                assert await late.hear(topic("available")) == "offline"

    scenario(story)


async def _process(folder: Path, port: int) -> subprocess.Popen[bytes]:
    config = folder / "controller.toml"
    config.write_text(f'{CONFIG}[mqtt]\nhost = "127.0.0.1"\nport = {port}\n')
    command = [sys.executable, "-m", "controller", "gateway", "--config", str(config),
               "--socket", str(folder / "control.sock"), "--gateway-socket", str(folder / "gateway.sock")]  # fmt: skip
    return subprocess.Popen(command, env={**os.environ, "STATE_DIRECTORY": str(folder)}, stderr=subprocess.DEVNULL)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 0)])
def test_whether_it_is_killed_or_told_to_end_it_is_offline_afterwards(tmp_path: Path, number: int, code: int):
    """The whole command, with something at control's place; killed, the broker speaks its last will."""

    async def story() -> None:
        with Mosquitto(tmp_path) as broker:
            async with (
                served(tmp_path / "control.sock", says(line_of({"status": statuses.running()}))),
                watching(broker.port, "packwarden/home/pack/available") as watcher,
            ):
                process = await _process(tmp_path, broker.port)
                try:
                    await watcher.hear("packwarden/home/pack/available", "online")
                    process.send_signal(number)
                    await watcher.until(lambda: watcher.payloads("packwarden/home/pack/available")[-1] == "offline")
                    assert await asyncio.to_thread(process.wait, 60) == code
                finally:
                    process.kill()
                    process.wait()

    scenario(story)


# --- a broker that goes away ---


def events_of(watcher: Watcher) -> list[str]:
    return [json.loads(text)["detail"] for text in watcher.payloads(topic("event"))]


def test_an_hour_without_the_broker_loses_no_event_and_nothing_grows(tmp_path: Path):
    async def story() -> None:
        broker = Mosquitto(tmp_path).start()
        try:
            async with gateway(broker.port) as gate:
                status = statuses.running()
                status["events"] = []
                async with watching(broker.port) as watcher:
                    gate.hub.publish(statuses.later(status, 0))
                    await watcher.hear(topic("state"))
                gate.again.clear()
                broker.stop()
                await soon(lambda: "hung up" in gate.said[-1])
                for second in range(1, 3601):
                    news = [("hvil-open", f"minute {second // 60}")] if second % 60 == 0 else []
                    status = statuses.later(status, 1, *news)
                    gate.hub.publish(status)
                assert len(gate.hub.happened) == 60
                broker.start()
                async with watching(broker.port) as watcher:
                    gate.again.set()
                    await watcher.until(lambda: len(events_of(watcher)) == 60)
                    await watcher.hear(topic("faults"))
                    assert events_of(watcher) == [f"minute {minute}" for minute in range(1, 61)]
                    (state,) = watcher.payloads(topic("state"))
                    assert json.loads(state)["t_ms"] == status["t_ms"]
        finally:
            broker.stop()

    scenario(story)


def test_events_of_the_time_without_a_broker_come_once_and_in_order(tmp_path: Path):
    async def story() -> None:
        with Mosquitto(tmp_path) as broker:
            site = SITE._replace(old=None, discovery="")
            async with watching(broker.port, topic("event")) as watcher:
                status = statuses.running()
                status["events"] = []
                async with gateway(broker.port, site) as gate:
                    for number in range(40):
                        status = statuses.later(status, 1, ("hvil-open", str(number)))
                        gate.hub.publish(status)
                    await watcher.until(lambda: len(watcher.heard) == 40)
                    gate.hub.publish(statuses.later(status, 1, ("hvil-open", "last")))
                    await watcher.until(lambda: len(watcher.heard) == 41)
                assert events_of(watcher) == [*map(str, range(40)), "last"]

    scenario(story)


def test_a_new_gateway_does_not_repeat_the_events_of_the_one_before(tmp_path: Path):
    async def story() -> None:
        with Mosquitto(tmp_path) as broker:
            status = statuses.later(statuses.running(), 1, ("hvil-open", "before"))
            async with watching(broker.port, topic("event")) as watcher:
                async with gateway(broker.port) as gate:
                    gate.hub.publish(status)
                    await watcher.until(lambda: "before" in events_of(watcher))
                count = len(watcher.heard)
                async with gateway(broker.port) as gate:
                    gate.hub.publish(statuses.later(status, 5, ("hvil-open", "after")))
                    await watcher.until(lambda: "after" in events_of(watcher))
                assert events_of(watcher)[count:] == ["after"]

    scenario(story)


def test_what_waits_for_a_broker_is_bounded(tmp_path: Path):
    async def story() -> None:
        async with gateway(1) as gate:
            status = statuses.running()
            for second in range(EVENTS_KEPT + 500):
                status = statuses.later(status, 1, ("hvil-open", str(second)))
                gate.hub.publish(status)
            await soon(lambda: any("nobody answers there" in line for line in gate.said))
            assert len(gate.hub.happened) == EVENTS_KEPT

    scenario(story)


def test_a_broker_that_takes_the_call_and_says_nothing_leaves_no_sockets_behind(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(mqtt, "ANSWER_S", 0.05)
    monkeypatch.setattr(mqtt, "KEEP_ALIVE_S", 1)

    async def story() -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=1000) as ears:
            async with gateway(ears.getsockname()[1]) as gate:
                await soon(lambda: len(gate.said) >= 10)
                await asyncio.sleep(2.5)
                tried, open_ones = len(gate.said), len(os.listdir("/proc/self/fd"))
                await soon(lambda: len(gate.said) >= 2 * tried)
                assert len(os.listdir("/proc/self/fd")) <= open_ones + 5
                assert "it does not answer" in gate.said[0]

    scenario(story)


# --- who may ---


def test_a_wrong_password_is_one_sentence_without_it_and_a_mended_file_is_read_again(tmp_path: Path):
    async def story() -> None:
        users = password_file(tmp_path, gate="right-one", me="mine")
        with Mosquitto(tmp_path, f"password_file {users}", anonymous=False) as broker:
            ours = tmp_path / "ours"
            ours.write_text("wrong-one\n")
            me = {"username": "me", "password": "mine"}
            async with (
                watching(broker.port, **me) as watcher,
                gateway(broker.port, user="gate", password_file=str(ours)) as gate,
            ):
                await soon(lambda: gate.said)
                assert gate.said[0] == f"MQTT broker 127.0.0.1:{broker.port}: it refuses this user or password"
                ours.write_text("right-one\n")
                gate.hub.publish(statuses.running())
                await watcher.hear(topic("state"))
                assert not [line for line in gate.said if "-one" in line]
                assert "right-one" not in repr(Broker("h", 1, "c", "u", "right-one"))

    scenario(story)


def test_a_password_file_that_is_missing_is_one_sentence(tmp_path: Path):
    async def story() -> None:
        async with gateway(1, user="gate", password_file=str(tmp_path / "none")) as gate:
            await soon(lambda: gate.said)
            assert "No such file" in gate.said[0]
            assert str(tmp_path / "none") in gate.said[0]

    scenario(story)


def test_a_subscription_that_is_denied_is_said():
    """mosquitto grants and then keeps silent; others deny in the answer."""

    class Denying:
        async def subscribe(self, wanted: list[tuple[str, int]]) -> tuple[int, ...]:
            return tuple(0x80 if "command" in name else 1 for name, _ in wanted)

    async def story() -> None:
        async with gateway(1) as gate:
            await gate.mqtt._subscribe(Denying(), ["a/command", "a/event"])  # type: ignore[arg-type]
            assert gate.said[-1].endswith("it does not let us subscribe to a/command")

    scenario(story)


def test_what_the_brokers_rules_forbid_does_not_hinder_the_rest(tmp_path: Path):
    async def story() -> None:
        rules = tmp_path / "acl"
        rules.write_text(f"user gate\ntopic write packwarden/#\ntopic read {topic('command/stop')}\nuser me\ntopic #\n")
        users = password_file(tmp_path, gate="g", me="m")
        lines = (f"password_file {users}", f"acl_file {rules}")
        with Mosquitto(tmp_path, *lines, anonymous=False) as broker:
            async with (
                watching(broker.port, username="me", password="m") as watcher,
                gateway(broker.port, user="gate", password="g") as gate,
            ):
                gate.hub.publish(statuses.running())
                await watcher.hear(topic("faults"))
                await watcher.say(topic("command/enable"), "PRESS")
                await watcher.say(topic("command/stop"), "PRESS")
                await soon(lambda: gate.asked)
                assert gate.asked == [{"do": "stop"}]
                assert not watcher.payloads("bms/stat")

    scenario(story)


def test_with_tls_the_broker_has_to_show_the_right_certificate(tmp_path: Path):
    async def story() -> None:
        cert, key = certificate(tmp_path, "broker")
        other, _ = certificate(tmp_path, "other")
        with Mosquitto(tmp_path, f"certfile {cert}", f"keyfile {key}") as broker:
            async with gateway(broker.port, tls=True, ca_file=str(other)) as gate:
                await soon(lambda: gate.said)
                assert "its certificate is not the one to be trusted" in gate.said[0]
            async with (
                watching(broker.port, tls_context=trusting(cert)) as watcher,
                gateway(broker.port, tls=True, ca_file=str(cert)) as gate,
            ):
                gate.hub.publish(statuses.running())
                await watcher.hear(topic("state"))

    scenario(story)


def test_tls_at_a_port_without_it_is_one_sentence(tmp_path: Path):
    async def story() -> None:
        with Mosquitto(tmp_path) as broker:
            async with gateway(broker.port, tls=True) as gate:
                await soon(lambda: gate.said)
                assert gate.said[0].startswith(f"MQTT broker 127.0.0.1:{broker.port}: ")
                assert "\n" not in gate.said[0]

    scenario(story)


# --- commands ---


@asynccontextmanager
async def at_the_broker(folder: Path) -> AsyncIterator[tuple[Watcher, Gateway]]:
    with Mosquitto(folder) as broker:
        async with watching(broker.port) as watcher, gateway(broker.port) as gate:
            gate.hub.publish(statuses.running())
            await watcher.hear("tele/batt2gen24_hassbian/STATE")
            yield watcher, gate


@pytest.mark.parametrize(("where", "payload", "asked"), [
    ("bms/control", "close_contactor", {"do": "enable"}),
    ("bms/control", "open_contactor", {"do": "stop"}),
    (topic("command/enable"), "PRESS", {"do": "enable"}),
    (topic("command/acknowledge"), "hvil-open", {"do": "acknowledge", "name": "hvil-open"}),
    (topic("command/discharge_limit"), "1500", {"do": "cap", "discharge_w": 1500.0, "for_s": 3600.0}),
])  # fmt: skip
def test_a_command_is_handed_to_control(tmp_path: Path, where: str, payload: str, asked: Mapping[str, Any]):
    async def story() -> None:
        async with at_the_broker(tmp_path) as (watcher, gate):
            await watcher.say(where, payload)
            await soon(lambda: gate.asked)
            assert gate.asked == [asked]
            assert gate.by == [f"MQTT {where}"]
            assert not watcher.payloads("controller/refused")

    scenario(story)


def test_what_control_refuses_is_answered_on_both_topics(tmp_path: Path):
    async def story() -> None:
        async with at_the_broker(tmp_path) as (watcher, gate):
            gate.answer = Answer(False, "hvil-open is not held")
            await watcher.say(topic("command/acknowledge"), '{"names": ["hvil-open", "bms-fault"]}')
            for where in ("controller/refused", topic("refused")):
                told = json.loads(await watcher.hear(where))
                assert told["why"] == "hvil-open is not held"
                assert told["topic"] == topic("command/acknowledge")
            assert len(gate.asked) == 1

    scenario(story)


@pytest.mark.parametrize(("where", "payload", "why"), [
    ("bms/control", "explode", "must be one of"),
    ("bms/specific", '{"test_bms_fault": 1}', "not in a normal run"),
    ("external/control", '{"type":"relay","id":0,"state":"on"}', "no relay of this setup is free"),
    ("bms/control", b"\x00\xff" * 50_000, "at most 2048 bytes"),
    (topic("command/limit"), '{"charge_w": 1, "charge_w": 2, "for_s": 60}', "twice"),
])  # fmt: skip
def test_what_is_wrong_is_one_clear_refusal_and_never_reaches_control(
    tmp_path: Path, where: str, payload: str | bytes, why: str
):
    async def story() -> None:
        async with at_the_broker(tmp_path) as (watcher, gate):
            await watcher.say(where, payload)
            assert why in json.loads(await watcher.hear("controller/refused"))["why"]
            assert gate.asked == []

    scenario(story)


def test_a_retained_message_commands_nothing(tmp_path: Path):
    async def story() -> None:
        with Mosquitto(tmp_path) as broker:
            async with watching(broker.port, topic("refused")) as watcher:
                await watcher.say(topic("command/acknowledge"), "hvil-open", retain=True)
                await watcher.say("bms/control", "close_contactor", retain=True)
                async with gateway(broker.port) as gate:
                    gate.hub.publish(statuses.running())
                    await watcher.hear(topic("refused"), "a retained message commands nothing", count=2)
                    assert gate.asked == []

    scenario(story)


def test_a_command_from_while_the_gateway_was_away_is_not_done_later(tmp_path: Path):
    async def story() -> None:
        with Mosquitto(tmp_path) as broker:
            async with watching(broker.port) as watcher:
                async with gateway(broker.port) as gate:
                    gate.hub.publish(statuses.running())
                    await watcher.hear(topic("faults"))
                await watcher.say("bms/control", "close_contactor")
                async with gateway(broker.port) as gate:
                    gate.hub.publish(statuses.running())
                    await watcher.hear(topic("faults"), count=2)
                    await watcher.say(topic("command/stop"), "PRESS")
                    await soon(lambda: gate.asked)
                    assert gate.asked == [{"do": "stop"}]

    scenario(story)


def test_our_own_bms_specific_is_no_command(tmp_path: Path):
    async def story() -> None:
        async with at_the_broker(tmp_path) as (watcher, gate):
            await watcher.say("bms/specific", watcher.payloads("bms/specific")[-1])
            await watcher.say(topic("command/stop"), "PRESS")
            await soon(lambda: gate.asked)
            assert gate.asked == [{"do": "stop"}]
            assert not watcher.payloads("controller/refused")

    scenario(story)


def test_the_duration_of_the_next_limit_is_kept_by_the_gateway(tmp_path: Path):
    async def story() -> None:
        async with at_the_broker(tmp_path) as (watcher, gate):
            await watcher.say(topic("command/limit_minutes"), "15")
            await watcher.say(topic("command/charge_limit"), "2000")
            await soon(lambda: gate.asked)
            assert gate.asked == [{"do": "cap", "charge_w": 2000.0, "for_s": 900.0}]
            gate.hub.publish(statuses.later(statuses.running(), 1))
            await watcher.hear(topic("limits"), '"lasts_s": 900.0')

    scenario(story)


def test_whoever_floods_it_is_answered_now_and_then_and_a_stop_still_works(tmp_path: Path):
    async def story() -> None:
        async with at_the_broker(tmp_path) as (watcher, gate):
            for number in range(2000):
                await watcher.client.publish("bms/control", f"garbage {number}", qos=0)
            await watcher.say(topic("command/stop"), "PRESS")
            await soon(lambda: gate.asked)
            assert gate.asked == [{"do": "stop"}]
            assert len(watcher.payloads("controller/refused")) <= mqtt.REFUSALS_MAX

    scenario(story)


def message(payload: str) -> aiomqtt.Message:
    return aiomqtt.Message("bms/control", payload.encode(), 1, False, 0, None)


def test_a_stop_is_taken_although_the_list_is_full_and_what_went_is_counted():
    room = mqtt.Intake(3, lambda one: one.payload == b"open_contactor")
    for payload in ("a", "b", "c", "d", "open_contactor", "open_contactor", "open_contactor", "open_contactor", "e"):
        room.put_nowait(message(payload))
    assert [room.get_nowait().payload for _ in range(room.qsize())] == [b"open_contactor"] * 3
    assert room.dropped == 6
    room.put_nowait(message("b"))
    room.put_nowait(message("x" * 1_000_000))
    assert [len(room.get_nowait().payload) for _ in range(2)] == [1, mqtt.LARGEST]


def test_only_what_opens_counts_as_a_stop():
    client = Mqtt(Broker("127.0.0.1", 1, "x"), SITE, Hub(), print)
    assert client._stops(message("open_contactor"))
    assert not client._stops(message("close_contactor"))
    assert not client._stops(message("garbage"))


# --- Home Assistant ---


def test_home_assistant_is_told_once_and_again_when_there_are_fewer_cells(tmp_path: Path):
    """Also by the next gateway: what is retained says what has to go."""

    async def story() -> None:
        with Mosquitto(tmp_path) as broker:
            status = statuses.running()
            async with watching(broker.port, DISCOVERY) as watcher:
                async with gateway(broker.port) as gate:
                    gate.hub.publish(status)
                    await watcher.hear(DISCOVERY)
                async with gateway(broker.port) as gate:
                    gate.hub.publish(status)
                    await soon(lambda: gate.mqtt._event_sent)
                assert len(watcher.heard) == 1
                fewer = {**status, "signals": {**status["signals"], "cells": 94}}
                async with gateway(broker.port) as gate:
                    gate.hub.publish(fewer)
                    told = json.loads(await watcher.hear(DISCOVERY, count=2))
                assert told["cmps"]["cell_95"] == told["cmps"]["cell_96"] == {"p": "sensor"}
                assert told["cmps"]["cell_94"]["name"] == "Cell Voltage 94"

    scenario(story)


def test_cells_that_are_not_known_yet_take_nothing_away(tmp_path: Path):
    async def story() -> None:
        with Mosquitto(tmp_path) as broker:
            async with watching(broker.port, DISCOVERY) as watcher, gateway(broker.port) as gate:
                gate.hub.publish(statuses.unheard())
                told = json.loads(await watcher.hear(DISCOVERY))
                assert told["cmps"]["cell_96"]["name"] == "Cell Voltage 96"

    scenario(story)


def test_the_watcher_of_these_tests_hears_what_is_said(tmp_path: Path):
    async def story() -> None:
        with Mosquitto(tmp_path) as broker:
            async with watching(broker.port) as watcher, aiomqtt.Client("127.0.0.1", broker.port) as other:
                await other.publish("a/b", "c")
                assert await watcher.hear("a/b") == "c"

    scenario(story)
