"""The black box: what it holds and for how long, states as JSON and back, when a bundle is written, and no secrets."""

import json
import random
import sys
import zlib
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest

from controller import core
from controller.batteries import tesla_model3
from controller.batteries.registry import BATTERIES
from controller.blackbox import CHUNK_MS, SPAN_MS, STATE_BYTES, VOCABULARY, BlackBox, Decided
from controller.codec.frozen import FrozenError, Vocabulary
from controller.incident import AFTER_MS, AGAIN_MS, ASKED_AGAIN_MS, WITHHELD, Keeper, without_secrets
from controller.inverters.registry import INVERTERS
from controller.model.events import Event
from controller.model.inverter import InverterStatus, InverterView
from controller.model.settings import CHEMISTRIES, PackSettings, Settings
from controller.ports import CanFrame, Inputs, Outputs, RegisterWrite
from controller.safety import envelope, monitor
from controller.safety.monitor import Faults, Track
from sim.byd_can_inverter import BydCanInverter
from sim.leaf_pack import LeafPack
from sim.recording import open_recording
from sim.small_packs import KgShunt, VatShunt, WatchMon
from sim.tesla_pack import TeslaPack
from statecharts.supervisor import Contactor
from tests.controller.kept import NoStore
from tests.shared import LOGS, needs_shared

PACK = PackSettings(CHEMISTRIES["nca"], cells=96, max_charge_a=20.0, max_discharge_a=20.0)
SETTINGS = Settings("tesla_model3", "byd_modbus", "pack", PACK, max_power_w=5_000.0)
STATE = core.start(SETTINGS, BATTERIES["tesla_model3"], INVERTERS["byd_modbus"])
ASKED = frozenset({Contactor.PACK})


def filled(box: BlackBox, ticks: int, frames_a_tick: int = 0, noise: bool = False) -> BlackBox:
    """So many ticks of 10 ms that change nothing."""
    chance = random.Random(7)
    ids = [chance.randrange(0x800) for _ in range(50)]
    for tick in range(ticks):
        now_ms = 10 * tick
        data = chance.randbytes if noise else bytes
        frames = [CanFrame(ids[n % 50], data(8), now_ms) for n in range(frames_a_tick)]
        box.took(Inputs(battery_frames=frames), now_ms)
        box.decided(Decided(STATE, STATE, Outputs(), now_ms))
    return box


def held(box: BlackBox) -> int:
    return sum(len(chunk.log) + len(chunk.lines) + STATE_BYTES for chunk in box.cut())


# --- what it holds ---


def test_the_last_ten_minutes_are_held_and_hardly_more():
    box = filled(BlackBox(), 70_000)
    assert SPAN_MS <= box.span_ms <= SPAN_MS + CHUNK_MS
    chunks = box.cut()
    assert chunks[-1].to_ms == 699_990
    assert chunks[0].from_ms <= 699_990 - SPAN_MS


def test_chunks_follow_each_other_without_a_gap():
    chunks = filled(BlackBox(), 10_000).cut()
    assert len(chunks) == 5
    assert sum(chunk.ticks for chunk in chunks) == 10_000
    assert [after.from_ms - before.to_ms for before, after in pairwise(chunks)] == [10] * 4


def test_memory_stays_bounded_at_four_thousand_frames_a_second_of_pure_noise():
    limit = 1024 * 1024
    box = BlackBox(limit)
    sizes = []
    for _ in range(6):
        filled(box, 300, frames_a_tick=40, noise=True)
        sizes.append(box.size)
    assert max(sizes) <= limit
    assert sizes[-1] > limit // 2
    assert held(box) <= limit
    assert 0 < box.span_ms < 18_000


def test_one_flooded_second_does_not_burst_the_bound():
    limit = 512 * 1024
    box = filled(BlackBox(limit), 100, frames_a_tick=1000, noise=True)
    assert box.size <= limit
    assert held(box) <= limit


def test_the_oldest_goes_first():
    box = filled(BlackBox(200 * 1024, chunk_ms=1000), 1000, frames_a_tick=10, noise=True)
    chunks = box.cut()
    assert chunks[0].from_ms > 0
    assert chunks[-1].to_ms == 9_990


def test_the_frames_are_candump_text():
    box = BlackBox()
    frames = [CanFrame(0x132, bytes.fromhex("7d83d5"), 81_230), CanFrame(0x18FF50E5, b"", 81_235, True)]
    box.took(Inputs(battery_frames=frames, inverter_frames=[CanFrame(0x151, b"\x01", 81_240)]), 81_240)
    box.decided(Decided(STATE, STATE, Outputs(), 81_240))
    text = zlib.decompress(box.cut()[0].log).decode()
    assert text.splitlines() == [
        "(81.230000) can0 132#7D83D5", "(81.235000) can0 18FF50E5#", "(81.240000) can1 151#01",
    ]  # fmt: skip


def test_feedback_that_a_driver_changes_in_place_is_seen_to_change():
    box, feedback = BlackBox(), {Contactor.POSITIVE: False}
    for now_ms, closed in ((0, False), (10, True)):
        feedback[Contactor.POSITIVE] = closed
        box.took(Inputs(feedback=feedback), now_ms)
        box.decided(Decided(STATE, STATE, Outputs(), now_ms))
    lines = zlib.decompress(box.cut()[0].lines).decode().splitlines()
    assert '"feedback":{"positive":false}' in lines[0]
    assert '"feedback":{"positive":true}' in lines[1]


def test_the_time_is_that_of_the_tick_and_not_of_the_turn():
    box = BlackBox()
    box.took(Inputs(), 101)
    box.decided(Decided(STATE, STATE, Outputs(), 100))
    assert box.cut()[0].from_ms == 101


# --- states as JSON and back ---

Ends = Callable[[int, Sequence[CanFrame], bytes], tuple[list[CanFrame], bytes]]
"""The other end: the time, the frames and bytes we sent → what it says."""


def tesla() -> Ends:
    pack = TeslaPack()

    def end(now_ms: int, frames: Sequence[CanFrame], asked: bytes) -> tuple[list[CanFrame], bytes]:
        pack.receive(frames, now_ms)
        return pack.step(now_ms), b""

    return end


def leaf(generation: str) -> Ends:
    pack = LeafPack(generation=generation)

    def end(now_ms: int, frames: Sequence[CanFrame], asked: bytes) -> tuple[list[CanFrame], bytes]:
        pack.receive(frames, now_ms)
        return pack.step(now_ms), b""

    return end


def batrium() -> Ends:
    pack = WatchMon()
    return lambda now_ms, frames, asked: (pack.frames(now_ms), b"")


def shunt(pack: VatShunt | KgShunt) -> Ends:
    def end(now_ms: int, frames: Sequence[CanFrame], asked: bytes) -> tuple[list[CanFrame], bytes]:
        pack.pass_ms(10)
        said = pack.hear(asked)
        return [], said[: len(said) // 2] if now_ms % 70 else said  # torn, so that a beginning is kept

    return end


def anybody(name: str) -> Ends:
    """Chance says something on every id, and over the line."""
    chance, ids = random.Random(name), sorted(BATTERIES[name].rx)

    def end(now_ms: int, frames: Sequence[CanFrame], asked: bytes) -> tuple[list[CanFrame], bytes]:
        said = [CanFrame(chance.choice(ids), chance.randbytes(8), now_ms) for _ in range(4 if ids else 0)]
        return said, chance.randbytes(5) + b"\xaa\x1c" if now_ms % 50 == 0 else b""

    return end


PEERS: dict[str, list[tuple[dict[str, Any], Callable[[], Ends]]]] = {
    "tesla_model3": [({}, tesla), ({"closing": "minimal"}, tesla), ({"digital_hvil": True}, tesla)],
    "leaf": [({}, lambda g=g: leaf(g)) for g in ("ZE0", "AZE0", "ZE1")],
    "batrium": [({}, batrium), ({"flags": "ignore"}, batrium)],
    "juntek": [
        ({"model": "vat4300", "capacity_ah": 100.0, "chemistry": "nca", "cells": 96}, lambda: shunt(VatShunt())),
        ({"model": "kg-f", "capacity_ah": 100.0}, lambda: shunt(KgShunt())),
    ],
}
CASES = [(name, options, peer) for name in BATTERIES for options, peer in PEERS.get(name, [])] + [
    (name, {}, lambda name=name: anybody(name)) for name in BATTERIES
]


def told(state: Any, now_ms: int) -> tuple[Any, Any, list[CanFrame], bytes]:
    """One tick's worth of a battery: the state after it, and all it lets out."""
    pack = state.snapshot(now_ms)
    state, frames = state.transmit(ASKED, now_ms)
    asked = b""
    if hasattr(state, "ask"):
        state, asked = state.ask(now_ms)
    return state, pack, list(frames), asked


def heard(state: Any, frames: Sequence[CanFrame], data: bytes, now_ms: int) -> Any:
    state = state.receive(frames, now_ms)
    return state.hear(data, now_ms) if hasattr(state, "hear") else state


def again(state: Any) -> Any:
    """Out and in; and the way out is the same a second time."""
    text = VOCABULARY.dumps(state)
    restored = VOCABULARY.loads(text)
    assert VOCABULARY.dumps(restored) == text
    return restored


@pytest.mark.parametrize(("name", "options", "peer"), CASES)
def test_every_battery_that_was_written_and_read_goes_on_as_the_one_that_was_not(
    name: str, options: dict[str, Any], peer: Callable[[], Ends]
):
    end, protocol = peer(), BATTERIES[name]
    stayed = came = protocol.start(options)
    frames: list[CanFrame] = []
    asked = b""
    for now_ms in range(0, 12_000, 10):
        said, data = end(now_ms, frames, asked)
        stayed, came = heard(stayed, said, data, now_ms), heard(came, said, data, now_ms)
        if now_ms % 1730 == 0:
            came = again(stayed)
        (stayed, *was), (came, *now) = told(stayed, now_ms), told(came, now_ms)
        assert was == now
        _, frames, asked = was
    assert VOCABULARY.dumps(came) == VOCABULARY.dumps(stayed)


@needs_shared
@pytest.mark.parametrize("log", sorted(path.name for path in LOGS.glob("[tl]e*.log")) if LOGS.is_dir() else [])
def test_every_recorded_pack_is_the_same_after_a_round_trip(log: str):
    protocol = BATTERIES["tesla_model3" if log.startswith("tesla") else "leaf"]
    stayed = came = protocol.start()
    for tick, frames in open_recording(LOGS / log, protocol.ids()).batches():
        now_ms = 10 * tick
        if now_ms > 30_000:
            break
        stayed, came = stayed.receive(frames, now_ms), came.receive(frames, now_ms)
        if tick % 400 == 0:
            came = again(stayed)
        assert came.snapshot(now_ms) == stayed.snapshot(now_ms)


def view(watts: float) -> InverterView:
    return InverterView(
        InverterStatus.ACTIVE, 50.0, 95.0, 60_000.0, watts, watts, 360.0, 360.0, 1.0, 360.0, 20.0, 22.0, 3.74, 3.76,
        398.0, 298.0, 5_000.0, 1000.0, 2000.0,
    )  # fmt: skip


@pytest.mark.parametrize("name", INVERTERS)
def test_every_inverter_that_was_written_and_read_goes_on_as_the_one_that_was_not(name: str):
    chance, peer, ids = random.Random(name), BydCanInverter(wish_w=2_000.0), sorted(INVERTERS[name].rx)
    stayed = came = INVERTERS[name].start()
    sent: Sequence[CanFrame] = ()
    for now_ms in range(0, 40_000, 10):
        said = peer.step(now_ms, sent, 360.0) if name == "byd_can" else []
        if ids and now_ms % 230 == 0:
            said.append(CanFrame(chance.choice(ids), chance.randbytes(8), now_ms))
        writes = [RegisterWrite(401 + chance.randrange(25), (chance.randrange(4),))] if now_ms % 700 == 0 else []
        polls, shown = int(now_ms % 5000 == 0), view(float(now_ms % 5000))
        stayed, came = (state.receive(said, writes, polls, now_ms) for state in (stayed, came))
        if now_ms % 3310 == 0:
            came = again(stayed)
        assert came.request(now_ms) == stayed.request(now_ms)
        (stayed, was), (came, now) = stayed.answer(shown, now_ms), came.answer(shown, now_ms)
        assert now.frames == was.frames
        assert dict(now.registers or {}) == dict(was.registers or {})
        sent = was.frames
    assert VOCABULARY.dumps(came) == VOCABULARY.dumps(stayed)


def test_every_registered_inverter_and_battery_can_be_told_apart_in_a_state():
    for battery in BATTERIES.values():
        for inverter in INVERTERS.values():
            state = core.start(SETTINGS, battery, inverter, now_ms=1234)
            restored = again(state)
            assert (restored.setup.battery, restored.setup.inverter) == (battery, inverter)


def test_what_is_told_by_identity_comes_back_as_the_very_same():
    state = again(STATE)
    assert state.battery.box.tables is tesla_model3.TABLES
    assert state.battery.sender.table is tesla_model3.FULL
    assert state.cap is envelope.NO_CAP
    page = tesla_model3.BRICKS[5]
    assert again((page,))[0] is page


@pytest.mark.parametrize(
    "value",
    [
        (1, 1.0, -0.0, True, None, "a\x00ü\n", b"\x00\xff", ()), (float("inf"), 5e-324, 0.1 + 0.2), ((1, (2,)),),
        {1: "a", "1": "b", None: (1,), Event.ENDED: frozenset({3, 1, 2})},
        Faults({Event.ESTOP_OPEN: Track(1, None, 3, True, False)}), {(1, 2): frozenset({Contactor.PACK})},
    ],
)  # fmt: skip
def test_values_come_back_exactly(value: object):
    restored = again(value)
    assert restored == value
    assert repr(restored) == repr(value)


@pytest.mark.parametrize(
    "text",
    [
        '{"=":"os:system"}', '{"=":"builtins:eval"}', '{"is":"os:popen","cmd":"id"}', '{"is":"builtins:eval"}',
        '{"is":"controller.ports:CanFrame"}', '{"is":"controller.ports:CanFrame","id":1,"data":{"bytes":"00"}}',
        '{"is":"controller.ports:CanFrame","id":1,"data":{"bytes":"00"},"at_ms":0,"extended":false,"more":1}',
        '{"is":["controller.core:CoreState"]}', '{"=":["x"]}', '{"map":[[{"map":[]},1]]}', '{"map":[[1]]}', '{"map":1}',
        '{"bytes":"xyz"}', '{"bytes":7}', '{"__class__":"x"}', '{"a":1,"b":2}', "{}", "[1", "", "[" * 100_000,
        '{"is":"controller.schedule:Schedule","beats":[[0,0]],"due_ms":[]}',
        '{"is":"controller.batteries.leaf:Kept","values":1}',
    ],
)  # fmt: skip
def test_what_is_not_ours_is_refused_and_never_called(text: str):
    with pytest.raises(FrozenError):
        VOCABULARY.loads(text)


def test_a_thing_without_a_name_cannot_be_written():
    with pytest.raises(FrozenError, match="no record"):
        VOCABULARY.dumps((random.Random(),))
    with pytest.raises(FrozenError, match="CanFrame"):
        Vocabulary([sys.modules["controller.watch"]]).dumps(CanFrame(1, b""))


# --- when a bundle is written ---


class Story:
    """A keeper that is shown which causes are held when."""

    def __init__(self) -> None:
        self.store, self.state = NoStore(), STATE
        self.keeper = Keeper(BlackBox(), self.store, "1.0", "")

    def at(self, now_ms: int, *causes: Event) -> str:
        """One tick; the bundle that begins with it."""
        held = {event: Track(bad_since_ms=1, active_since_ms=1, held=True) for event in causes}
        before, self.state = self.state, STATE._replace(faults=Faults(held) if held else monitor.NO_FAULTS)
        return self.keeper.decided(Decided(before, self.state, Outputs(), now_ms))

    def causes(self, number: int) -> list[str]:
        """What the manifest of a bundle names."""
        files = dict(self.store.wanted[number][1]({}))
        return json.loads(b"".join(files["manifest.json"]))["causes"]


def test_a_fault_is_written_ten_seconds_after_it_so_that_what_it_led_to_is_in_it():
    story = Story()
    assert not story.at(1_000)
    assert not story.at(1_010, Event.ESTOP_OPEN)
    assert not story.at(1_000 + AFTER_MS, Event.ESTOP_OPEN)
    assert story.at(1_010 + AFTER_MS, Event.ESTOP_OPEN) == "0001-fault.zip"
    assert not story.at(2_000 + AFTER_MS, Event.ESTOP_OPEN)


def test_a_cause_that_joins_is_in_the_same_bundle_and_one_that_comes_later_waits_five_minutes():
    story, two = Story(), (Event.ESTOP_OPEN, Event.HVIL_OPEN)
    story.at(0, *two[:1])
    story.at(5_000, *two)
    assert story.at(AFTER_MS, *two)
    assert not story.at(2 * AFTER_MS, *two, Event.OVERCURRENT)
    assert not story.at(AFTER_MS + AGAIN_MS - 10, *two, Event.OVERCURRENT)
    assert story.at(AFTER_MS + AGAIN_MS, *two, Event.OVERCURRENT)
    assert story.causes(0) == ["e-stop-open", "hvil-open"]
    assert story.causes(1) == ["overcurrent"]


def test_the_bundle_of_a_stop_takes_along_the_causes_that_still_waited():
    story = Story()
    story.at(0, Event.ESTOP_OPEN)
    story.keeper.end("it was told to stop", 10)
    assert story.causes(0) == ["e-stop-open"]
    assert not story.at(AFTER_MS, Event.ESTOP_OPEN)


def test_somebody_who_asks_gets_a_bundle_and_twice_a_minute_at_most():
    story = Story()
    story.at(0)
    assert story.keeper.asked("user 0", 10) == "0001-request.zip"
    assert not story.keeper.asked("user 0", ASKED_AGAIN_MS)
    assert story.keeper.asked("user 0", 10 + ASKED_AGAIN_MS)


def test_the_span_that_is_held_and_what_went_wrong_are_shown():
    story = Story()
    for now_ms in range(0, 5_010, 10):
        story.at(now_ms)
    story.store.trouble = "0001-fault.zip could not be written: No space left on device"
    status = story.keeper.status()
    assert (status["span_s"], status["bytes_max"]) == (5.0, 12 * 1024 * 1024)
    assert 0 < status["bytes"] < 100_000
    assert "No space left" in status["trouble"]


# --- secrets ---


@pytest.mark.parametrize(
    "line",
    [
        'password = "hunter2"', "mqtt_password = 'hunter2'", '"password" = "hunter2"', 'broker.password = "hunter2"',
        'mqtt = {user = "a", password = "hunter2"}', 'API_KEY="hunter2" # note', 'url = "mqtts://me:hunter2@host:8883"',
        '# password = "hunter2"', 'token = """\nhunter2\n"""', "secret = '''hunter2'''", 'pass"word" = "hunter2"',
        'password = "hun\\"ter2"', 'tokens = ["hunter2"]', '[mqtt.credentials]\nuser = "hunter2"', "password = 4711",
        'password = "hunter2', 'a = "x"  # the token is hunter2', '"pass\\u0077ord" = "hunter2"',
    ],
)  # fmt: skip
def test_no_secret_leaves_with_the_config(line: str):
    text = without_secrets(f"schema = 1\n{line}\n[limits]\nmax_charge_a = 20.0 # fuse\n")
    assert "hunter2" not in text
    assert "4711" not in text
    assert "ter2" not in text


def test_the_rest_of_the_config_stays_as_it_is():
    config = '# my garage\nschema = 1\n[limits]\nmax_charge_a = 20.0 # fuse\n[mqtt]\npassword = "x"\nhost = "h"\n'
    assert without_secrets(config) == config.replace('"x"', '"***"')


def test_a_config_that_cannot_be_understood_is_withheld():
    assert without_secrets("this is = = no toml") == WITHHELD
