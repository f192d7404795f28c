"""What every battery owes the controller. A new one is put through all of it by its rows in `healthy.py`."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from controller.batteries import registry
from controller.batteries.base import BatteryProtocol, BatteryState, LineBatteryState
from controller.batteries.registry import BATTERIES
from controller.model.battery import NO_REPORT, RESOLUTION, SIGNALS, BatterySnapshot, Feed
from controller.model.reading import Freshness
from controller.model.settings import CHEMISTRIES, NO_OPTIONS, Option, OptionValue
from controller.ports import CanFrame
from sim.byd_can_inverter import BydCanInverter
from sim.gen24 import Gen24
from statecharts.supervisor import WIRINGS, Contactor
from tests.batteries.documented import EXAMPLE
from tests.batteries.healthy import HEALTHY, TICK_MS, Healthy

EXTENDED = 0x8000_0000
LIFE_MS = 30_000
HOUR_MS = 3_600_000
NOTHING: frozenset[Contactor] = frozenset()

REQUIRED = (Feed.VOLTAGE, Feed.CURRENT, Feed.CELLS, Feed.TEMPERATURES, Feed.SOC)
REQUIRED_OF_A_PACK_THAT_CLOSES_ITSELF = (Feed.CONTACTOR, Feed.HVIL)

PLAUSIBLE: Mapping[str, tuple[float, float]] = {
    "pack_voltage_v": (0, 1000), "current_a": (-3300, 3300), "soc_pct": (0, 100), "soh_pct": (0, 130),
    "cell_min_v": (0, 5), "cell_max_v": (0, 5), "temp_min_c": (-128, 215), "temp_max_c": (-128, 215),
    "max_charge_w": (0, 4e6), "max_discharge_w": (0, 4e6), "max_charge_a": (0, 3300), "max_discharge_a": (0, 3300),
    "design_min_v": (0, 1000), "design_max_v": (0, 1000), "energy_full_wh": (0, 150_000),
    "energy_remaining_wh": (0, 150_000), "charged_wh": (0, 5e9), "discharged_wh": (0, 5e9),
    "isolation_kohm": (0, 65_535), "link_voltage_v": (-20, 1000), "lv_supply_v": (0, 30),
}  # fmt: skip
"""Nothing a bus can carry may be told outside of these."""


class Case(NamedTuple):
    """One battery and one healthy pack for it."""

    battery: BatteryProtocol
    healthy: Healthy

    @property
    def asked(self) -> frozenset[Contactor]:
        """Its contactors, all wanted closed."""
        return cast(frozenset[Contactor], WIRINGS[self.battery.wirings[0]])

    def start(self) -> BatteryState:
        return self.battery.start(self.healthy.options)


BY_NAME: Mapping[str, tuple[BatteryProtocol, tuple[Healthy, ...]]] = {
    **{name: (battery, HEALTHY.get(name, ())) for name, battery in BATTERIES.items()},
    EXAMPLE.name: (EXAMPLE.battery, EXAMPLE.healthy),
}
CASES = [Case(battery, healthy) for battery, rows in BY_NAME.values() for healthy in rows]
every_pack = pytest.mark.parametrize("case", CASES, ids=[case.healthy.title for case in CASES])
every_battery = pytest.mark.parametrize("battery", [b for b, _ in BY_NAME.values()], ids=list(BY_NAME))


class Tick(NamedTuple):
    """What was heard at now_ms, the state after it, and what was sent."""

    now_ms: int
    frames: Sequence[CanFrame]
    data: bytes
    state: BatteryState
    sent: tuple[CanFrame, ...]
    asked: bytes


def hear(
    battery: BatteryProtocol, state: BatteryState, frames: Sequence[CanFrame], data: bytes, now_ms: int
) -> BatteryState:
    """As the core does it."""
    state = state.receive(frames, now_ms)
    return state if battery.line is None else cast(LineBatteryState, state).hear(data, now_ms)


@lru_cache(maxsize=64)
def life(title: str, current_a: float = 0.0, ms: int = LIFE_MS) -> tuple[Tick, ...]:
    """The pack and its battery in dialogue, everything wanted closed."""
    case = next(case for case in CASES if case.healthy.title == title)
    far, state = case.healthy.far(current_a), case.start()
    ticks, sent, asked = [], tuple[CanFrame, ...](), b""
    for now_ms in range(0, ms, TICK_MS):
        frames, data = far.step(now_ms, sent, asked)
        state = hear(case.battery, state, frames, data, now_ms)
        state, sent = state.transmit(case.asked, now_ms)
        if case.battery.line is not None:
            state, asked = cast(LineBatteryState, state).ask(now_ms)
        ticks.append(Tick(now_ms, tuple(frames), data, state, sent, asked))
    return tuple(ticks)


def look(tick: Tick) -> BatterySnapshot:
    return tick.state.snapshot(tick.now_ms)


def values(pack: BatterySnapshot, feed: Feed) -> list[Any]:
    return [getattr(pack, name) for name in feed.signals]


def honest(case: Case, pack: BatterySnapshot, feed: Feed, now_ms: int) -> bool:
    """What is not fresh is not wholly known, unless a second source tells it."""
    return pack.feeds[feed].fresh(now_ms) or None in values(pack, feed) or feed in case.healthy.told_twice


def known(pack: BatterySnapshot) -> dict[str, Any]:
    """Every signal that has a value."""
    return {name: value for name in SIGNALS if (value := getattr(pack, name)) is not None}


def told(frame: CanFrame) -> int:
    return frame.id | EXTENDED * frame.extended


def distinct(frames: Iterator[CanFrame]) -> list[CanFrame]:
    """Of equal frames the first, their stamps 0."""
    return list(dict.fromkeys(frame._replace(at_ms=0) for frame in frames))


@lru_cache(maxsize=1)
def everything_said() -> Mapping[str, tuple[list[CanFrame], bytes]]:
    """Who → what it was heard to say: each battery and its controller, and an inverter's two ends."""
    said: dict[str, tuple[list[CanFrame], bytes]] = {}
    for case in CASES:
        ticks = life(case.healthy.title)
        frames, data = said.get(case.battery.name, ([], b""))
        frames += distinct(frame for tick in ticks for frame in (*tick.frames, *tick.sent))
        said[case.battery.name] = (frames, data + b"".join(tick.data + tick.asked for tick in ticks[:300]))
    sungrow, gen24 = BydCanInverter(garbage=True), Gen24(measures=True)
    said["inverters"] = (
        distinct(frame for now_ms in range(0, 5_000, TICK_MS) for frame in sungrow.step(now_ms, ())),
        b"".join(gen24.step(now_ms, b"", 0.0, 0.0) for now_ms in range(0, 5_000, TICK_MS)),
    )
    return said


def variants(battery: BatteryProtocol) -> list[dict[str, OptionValue]]:
    """The default options, and each other value a choice, a switch or a bound allows, one at a time."""
    return [{}, *({option.name: value} for option in battery.options for value in others(option))]


def others(option: Option) -> list[OptionValue]:
    if isinstance(option.default, bool):
        return [not option.default]
    if option.choices:
        return [choice for choice in option.choices if choice != option.default]
    bounds = [bound for bound in (option.low, option.high) if bound is not None]
    return [type(option.default)(bound) for bound in bounds]


# --- the tables ---


def test_every_battery_of_the_registry_has_a_healthy_pack_to_be_tried_with():
    assert {name for name, rows in HEALTHY.items() if rows} == set(BATTERIES)


@every_battery
def test_the_row_of_the_registry_is_sane(battery: BatteryProtocol):
    assert BY_NAME[battery.name][0] is battery
    assert re.fullmatch("[a-z][a-z0-9_]*", battery.name)
    assert battery.title
    assert battery.wirings
    assert set(battery.wirings) <= set(WIRINGS)
    assert battery.chemistries
    assert set(battery.chemistries) <= set(CHEMISTRIES)
    assert all(0 <= can_id < 0x800 for can_id in {*battery.rx, *battery.tx, *battery.telling})
    assert all(cycle_ms > 0 for cycle_ms in battery.rx.values()), "its round would be no time at all"
    assert battery.telling <= battery.rx.keys()
    assert all(feed in REQUIRED for feed in battery.lacks)
    assert not battery.lacks or battery.wirings == ("none",), "its own relays need every signal"


@every_battery
def test_what_tells_a_battery_is_not_what_another_one_sends(battery: BatteryProtocol):
    for other, _ in BY_NAME.values():
        if other.name not in (battery.name, EXAMPLE.name):
            assert not battery.telling & other.telling, other.name


@every_battery
def test_every_option_has_words_and_a_default_within_its_bounds(battery: BatteryProtocol):
    assert len({option.name for option in battery.options}) == len(battery.options)
    for option in battery.options:
        assert option.text, option.name
        assert not option.choices or option.default in option.choices
        assert not option.pattern or re.fullmatch(option.pattern, str(option.default))
        if isinstance(option.default, float) and not option.yours:
            assert (option.low or -math.inf) <= option.default <= (option.high or math.inf), option.name


@every_battery
def test_every_value_of_every_option_starts_and_any_other_is_refused(battery: BatteryProtocol):
    for options in variants(battery):
        assert battery.chosen(options) == {**battery.chosen({}), **options}
        battery.start(options)
        if battery.line is not None:
            assert battery.line(options).baud > 0
    with pytest.raises(KeyError):
        battery.start({"no_such_option": 1.0})
    for option in battery.options:
        with pytest.raises(ValueError, match=option.name):
            battery.start({option.name: b"" if option.choices else None})  # type: ignore[dict-item]


@every_battery
def test_a_battery_listens_to_its_table_or_to_a_line(battery: BatteryProtocol):
    for options in variants(battery):
        ids = battery.ids(options)
        assert bool(ids) != (battery.line is not None)
        assert all((can_id & ~EXTENDED) < (0x2000_0000 if can_id & EXTENDED else 0x800) for can_id in ids)
    assert (battery.line is not None) == hasattr(battery.start(), "hear")


@every_battery
def test_every_message_of_its_dbc_names_its_source(battery: BatteryProtocol):
    for path in dbc_files(battery):
        text = path.read_text(encoding="utf-8")
        messages = set(re.findall(r"^BO_ (\d+) ", text, re.MULTILINE))
        assert messages, path.name
        assert messages == set(re.findall(r'^CM_ BO_ (\d+) "[^"]+"', text, re.MULTILINE)), path.name


def dbc_files(battery: BatteryProtocol) -> list[Path]:
    folder = Path(EXAMPLE.folder if battery is EXAMPLE.battery else Path(registry.__file__).parent)
    return sorted(folder.glob(f"{battery.name}*.dbc"))


def test_every_dbc_belongs_to_a_battery_and_every_battery_on_can_has_one():
    owned = {name: dbc_files(battery) for name, (battery, _) in BY_NAME.items()}
    assert {name for name, files in owned.items() if files} == {n for n, (b, _) in BY_NAME.items() if b.line is None}
    there = set(Path(registry.__file__).parent.glob("*.dbc"))
    assert there == {path for name, files in owned.items() if name in BATTERIES for path in files}


# --- unknown, known, and too old ---


@every_battery
def test_nothing_is_known_before_the_first_frame(battery: BatteryProtocol):
    for options in variants(battery):
        pack = battery.start(options).snapshot(0)
        assert pack == BatterySnapshot(feeds=pack.feeds)
        assert all(freshness.valid_at_ms is None for freshness in pack.feeds.values())
        assert battery.start(options).snapshot(HOUR_MS) == pack


@every_pack
def test_a_healthy_pack_provides_every_required_signal_or_lacks_it(case: Case):
    end = life(case.healthy.title)[-1]
    pack, lacks = look(end), case.battery.lacks
    needed = [*REQUIRED]
    if Contactor.PACK in case.asked:
        needed += REQUIRED_OF_A_PACK_THAT_CLOSES_ITSELF
    assert set(needed) - lacks <= set(pack.feeds)
    assert not set(pack.feeds) & lacks
    for feed in set(needed) - lacks:
        assert pack.feeds[feed].fresh(end.now_ms), feed
        assert None not in values(pack, feed), feed
    assert pack.corrupt_frames == 0
    assert pack.decoded_frames > 0
    assert pack.report.fault is not True
    assert pack.report.refuses is not True


@every_pack
def test_what_a_pack_is_found_to_be_is_something_the_controller_knows(case: Case):
    kind = case.battery.kind(look(life(case.healthy.title)[-1]))
    assert kind.chemistry is None or kind.chemistry in case.battery.chemistries
    assert kind.cells is None or 1 <= kind.cells <= 300


@every_pack
def test_positive_current_charges(case: Case):
    charged, discharged = (look(life(case.healthy.title, amps)[-1]) for amps in (20.0, -20.0))
    assert charged.current_a is not None
    assert discharged.current_a is not None
    assert discharged.current_a < -1 < 1 < charged.current_a
    assert case.battery.start(case.healthy.options).snapshot(0).current_a is None


@every_pack
def test_a_value_is_told_only_while_it_is_fresh(case: Case):
    for tick in life(case.healthy.title):
        pack = look(tick)
        for feed in pack.feeds:
            assert honest(case, pack, feed, tick.now_ms), feed


@every_pack
def test_what_was_required_is_unknown_five_rounds_after_the_pack_fell_silent(case: Case):
    end = life(case.healthy.title)[-1]
    for feed, freshness in look(end).feeds.items():
        assert freshness.valid_at_ms is not None, feed
        last_ms = freshness.valid_at_ms + max(5 * freshness.round_ms, 100)
        assert end.state.snapshot(last_ms).feeds[feed].fresh(last_ms)
        after = end.state.snapshot(last_ms + 1)
        assert not after.feeds[feed].fresh(last_ms + 1)
        assert honest(case, after, feed, last_ms + 1), feed


@every_pack
def test_an_hour_of_silence_leaves_nothing_but_what_never_changes(case: Case):
    pack = life(case.healthy.title)[-1].state.snapshot(HOUR_MS)
    assert known(pack) == {}
    assert set(pack.cells_v) <= {None}
    assert pack.balancing is None
    assert pack.report == NO_REPORT


@every_pack
def test_what_one_silent_id_fed_becomes_unknown_while_the_others_talk_on(case: Case):
    ticks = life(case.healthy.title)
    ids = {told(frame) for tick in ticks for frame in tick.frames}
    slowest_ms = max(freshness.round_ms for freshness in look(ticks[-1]).feeds.values())
    fed = set[Feed]()
    for silent in sorted(ids):
        state = ticks[-1].state
        for turn, tick in product(range(1, 2 + 5 * slowest_ms // LIFE_MS), ticks):
            now_ms = turn * LIFE_MS + tick.now_ms
            heard = [frame._replace(at_ms=now_ms) for frame in tick.frames if told(frame) != silent]
            state = hear(case.battery, state, heard, b"", now_ms)
            if now_ms % 500 == 0:
                pack = state.snapshot(now_ms)
                assert all(honest(case, pack, feed, now_ms) for feed in pack.feeds)
                fed.update(feed for feed, freshness in pack.feeds.items() if not freshness.fresh(now_ms))
    if ids:
        assert fed == set(look(ticks[-1]).feeds)


# --- what is not its own, what is torn, what is corrupt ---


@every_pack
def test_foreign_frames_and_bytes_change_nothing(case: Case):
    own = case.battery.ids(case.healthy.options)
    untouched = case.start().snapshot(1000)
    for who, (frames, data) in everything_said().items():
        state = case.start()
        if who != case.battery.name:
            state = hear(case.battery, state, [frame for frame in frames if told(frame) not in own], data, 0)
        state = state.receive([frame for frame in frames if told(frame) not in own], 0)
        assert state.snapshot(1000) == untouched, who


@every_pack
def test_another_battery_on_the_wire_never_looks_like_this_one(case: Case):
    for who, (frames, data) in everything_said().items():
        if who == case.battery.name:
            continue
        state = hear(case.battery, case.start(), frames, data, 0)
        assert state.snapshot(0)._replace(corrupt_frames=0, decoded_frames=0) == case.start().snapshot(0), who


@every_pack
def test_frames_of_the_other_kind_of_id_change_nothing(case: Case):
    own = case.battery.ids(case.healthy.options)
    swapped = [f._replace(extended=not f.extended) for tick in life(case.healthy.title) for f in tick.frames]
    foreign = [frame for frame in swapped if told(frame) not in own]
    assert case.start().receive(foreign, 0).snapshot(0) == case.start().snapshot(0)


@every_pack
def test_foreign_traffic_in_between_is_not_noticed(case: Case):
    ticks, own = life(case.healthy.title)[:500], case.battery.ids(case.healthy.options)
    foreign = [f for frames, _ in everything_said().values() for f in frames if told(f) not in own][:200]
    state = case.start()
    for tick in ticks:
        stamped = [frame._replace(at_ms=tick.now_ms) for frame in foreign]
        state = hear(case.battery, state, [*stamped, *tick.frames, *stamped], tick.data, tick.now_ms)
    alone = case.start()
    for tick in ticks:
        alone = hear(case.battery, alone, tick.frames, tick.data, tick.now_ms)
    assert state.snapshot(ticks[-1].now_ms) == alone.snapshot(ticks[-1].now_ms)


@every_pack
def test_a_cut_frame_or_answer_never_says_what_a_whole_one_does_not(case: Case):
    ticks = life(case.healthy.title, 20.0)[: 12_000 // TICK_MS]
    names = [name for feed in look(ticks[-1]).feeds for name in feed.signals]
    whole = {name: {None, *(getattr(look(tick), name) for tick in ticks)} for name in names}
    for length in range(8):
        state = case.start()
        for tick in ticks:
            cut = [frame._replace(data=frame.data[:length]) for frame in tick.frames]
            state = hear(case.battery, state, cut, tick.data[: -length - 1], tick.now_ms)
            pack = state.snapshot(tick.now_ms)
            assert all(getattr(pack, name) in whole[name] for name in names), length
        if length == 0:
            assert known(state.snapshot(ticks[-1].now_ms)) == {}


@every_pack
def test_a_wrong_checksum_is_refused_counted_and_refreshes_nothing(case: Case):
    frames = distinct(f for tick in life(case.healthy.title) for f in tick.frames if f.id in case.healthy.checked)
    assert {frame.id for frame in frames} == case.healthy.checked
    for frame in frames[:20]:
        for bit in range(8 * len(frame.data)):
            flipped = bytearray(frame.data)
            flipped[bit // 8] ^= 1 << bit % 8
            pack = case.start().receive([frame._replace(data=bytes(flipped))], 0).snapshot(0)
            assert pack.corrupt_frames == 1
            assert known(pack) == {}
            assert all(freshness.valid_at_ms is None for freshness in pack.feeds.values())


@every_pack
def test_a_flipped_bit_on_the_line_never_says_anything_else(case: Case):
    answers = list(dict.fromkeys(tick.data for tick in life(case.healthy.title, 20.0) if tick.data))
    assert bool(answers) == (case.battery.line is not None)
    for answer in answers[:3]:
        truth = hear(case.battery, case.start(), (), answer, 0).snapshot(0)
        for bit in range(8 * len(answer)):
            flipped = bytearray(answer)
            flipped[bit // 8] ^= 1 << bit % 8
            pack = hear(case.battery, case.start(), (), bytes(flipped), 0).snapshot(0)
            assert known(pack) in ({}, known(truth)), bytes(flipped)


# --- any bytes at all ---


def assert_plausible(pack: BatterySnapshot) -> None:
    for name, digits in RESOLUTION.items():
        value = getattr(pack, name)
        if value is not None:
            low, high = PLAUSIBLE[name]
            assert math.isfinite(value), name
            assert low <= value <= high, (name, value)
            assert round(value, digits) == value, (name, value)
    for volts in pack.cells_v:
        assert volts is None or 0 <= volts <= 5
    for low_name, high_name in (("cell_min_v", "cell_max_v"), ("temp_min_c", "temp_max_c")):
        low, high = getattr(pack, low_name), getattr(pack, high_name)
        assert low is None or high is None or low <= high, (low_name, low, high)
    assert pack.cells is None or 1 <= pack.cells <= 300


@every_pack
def test_a_healthy_life_is_plausible_and_rounded(case: Case):
    for amps in (0.0, 20.0, -20.0):
        for tick in life(case.healthy.title, amps):
            assert_plausible(look(tick))


@every_pack
@settings(deadline=None)
@given(data=st.data())
def test_any_bytes_in_any_known_id_are_plausible_or_unknown(case: Case, data: st.DataObject):
    ids = sorted(case.battery.ids(case.healthy.options))
    if not ids:
        return
    state, now_ms = case.start(), 0
    for can_id, payload, well_formed, later_ms in data.draw(
        st.lists(
            st.tuples(
                st.sampled_from(ids), st.binary(max_size=8) | st.binary(min_size=8, max_size=8), st.booleans(),
                st.sampled_from((0, 10, 100, 1000)),
            ),
            max_size=25,
        )
    ):  # fmt: skip
        now_ms += later_ms
        if well_formed and can_id in case.healthy.checked:
            payload = case.healthy.sealed(payload)
        frame = CanFrame(can_id & ~EXTENDED, payload, now_ms, bool(can_id & EXTENDED))
        case.battery.explain(frame)
        state = state.receive([frame], now_ms)
        state, _ = state.transmit(case.asked, now_ms)
        assert_plausible(state.snapshot(now_ms))


@every_pack
@settings(deadline=None)
@given(pieces=st.lists(st.tuples(st.binary(max_size=60), st.booleans(), st.sampled_from((0, 10, 1000))), max_size=12))
@example(pieces=[(b":r50=1,0," + b"9" * 5000 + 12 * b",1" + b",\r\n", False, 0)])
@example(pieces=[(b":r50=1,0," + b"9" * 400 + 12 * b",1" + b",\r\n", False, 0)])
def test_any_bytes_on_the_line_are_plausible_or_unknown(case: Case, pieces: list[tuple[bytes, bool, int]]):
    if case.battery.line is None:
        return
    state, now_ms = cast(LineBatteryState, case.start()), 0
    for piece, well_formed, later_ms in pieces:
        now_ms += later_ms
        state = state.hear(case.healthy.answer(piece) if well_formed else piece, now_ms)
        assert_plausible(state.snapshot(now_ms))


@every_pack
@settings(deadline=None)
@given(data=st.data())
def test_a_healthy_pack_whose_bytes_turn_to_noise_stays_plausible(case: Case, data: st.DataObject):
    """As before, from a state in which everything is known."""
    ticks = life(case.healthy.title)
    state, now_ms = ticks[-1].state, LIFE_MS
    frames = distinct(frame for tick in ticks[-200:] for frame in tick.frames)
    if not frames:
        return
    for _ in range(data.draw(st.integers(1, 8))):
        now_ms += TICK_MS
        frame = data.draw(st.sampled_from(frames))
        at = data.draw(st.integers(0, max(0, len(frame.data) - 1)))
        spoilt = (frame.data[:at] + data.draw(st.binary(min_size=1, max_size=3)) + frame.data[at + 1 :])[:8]
        if frame.id in case.healthy.checked:
            spoilt = case.healthy.sealed(spoilt)
        state = state.receive([frame._replace(data=spoilt, at_ms=now_ms)], now_ms)
        assert_plausible(state.snapshot(now_ms))


# --- what is sent ---


def sent(case: Case, options: Mapping[str, OptionValue], ms: int, *wishes: frozenset[Contactor]) -> set[CanFrame]:
    """Everything sent to a pack that talks, the wish changing every second through `wishes`."""
    far, state = case.healthy.far(0.0), case.battery.start({**case.healthy.options, **options})
    found, frames = set[CanFrame](), tuple[CanFrame, ...]()
    for now_ms in range(0, ms, TICK_MS):
        said, _ = far.step(now_ms, frames, b"")
        state, frames = state.receive(said, now_ms).transmit(wishes[now_ms // 1000 % len(wishes)], now_ms)
        found.update(frames)
    return found


@every_battery
def test_in_a_minute_exactly_the_listed_ids_are_sent_as_classic_frames_of_11_bits(battery: BatteryProtocol):
    found = set[CanFrame]()
    cases = [case for case in CASES if case.battery is battery]
    for case, options in [*((case, {}) for case in cases), *((cases[0], options) for options in variants(battery))]:
        found |= sent(case, options, 60_000, *(20 * (NOTHING,)), *(20 * (case.asked,)), *(10 * (NOTHING, case.asked)))
    assert {frame.id for frame in found} == battery.tx
    assert not any(frame.extended for frame in found)
    assert all(len(frame.data) <= 8 for frame in found)


@every_pack
def test_to_a_silent_bus_only_listed_ids_are_sent(case: Case):
    state = case.start()
    for now_ms in range(0, 60_000, TICK_MS):
        state, frames = state.transmit(case.asked if now_ms % 7000 > 3000 else NOTHING, now_ms)
        assert {frame.id for frame in frames} <= case.battery.tx


@every_pack
def test_no_id_is_sent_twice_in_one_tick(case: Case):
    """A port keeps only the newest frame of an id."""
    for tick in life(case.healthy.title):
        ids = [frame.id for frame in tick.sent]
        assert len(set(ids)) == len(ids), tick.now_ms


@every_pack
def test_a_battery_that_holds_no_contactor_sends_the_same_whatever_is_closed(case: Case):
    if Contactor.PACK not in case.asked:
        assert sent(case, {}, 5_000, case.asked) == sent(case, {}, 5_000, NOTHING)


@every_battery
def test_a_line_that_is_only_listened_to_is_never_spoken_on(battery: BatteryProtocol):
    if battery.line is None:
        return
    for options in ({}, {"listen_only": True}):
        state, said = cast(LineBatteryState, battery.start(options)), b""
        for now_ms in range(0, 60_000, TICK_MS):
            state, question = state.ask(now_ms)
            said += question
        assert bool(said) != bool(options)


# --- values, not objects ---


@every_pack
def test_a_state_is_a_value_that_receiving_looking_and_sending_leave_as_it_was(case: Case):
    ticks = life(case.healthy.title)
    for before, tick in zip(ticks[::97], ticks[1::97], strict=False):
        at_ms, pack = before.now_ms, before.state.snapshot(before.now_ms)
        twice = [hear(case.battery, before.state, tick.frames, tick.data, tick.now_ms) for _ in range(2)]
        assert twice[0].snapshot(tick.now_ms) == twice[1].snapshot(tick.now_ms) == look(tick)
        assert twice[0].transmit(case.asked, tick.now_ms)[1] == twice[1].transmit(case.asked, tick.now_ms)[1]
        assert before.state.snapshot(HOUR_MS) == before.state.snapshot(HOUR_MS)
        assert before.state.snapshot(at_ms) == pack


@every_pack
def test_looking_in_between_makes_no_difference(case: Case):
    ticks = life(case.healthy.title)
    often = seldom = case.start()
    for tick in ticks:
        often = hear(case.battery, often, tick.frames, tick.data, tick.now_ms)
        seldom = hear(case.battery, seldom, tick.frames, tick.data, tick.now_ms)
        often.snapshot(tick.now_ms)
        often.snapshot(tick.now_ms + 5)
    assert often.snapshot(LIFE_MS) == seldom.snapshot(LIFE_MS)
    assert often.snapshot(LIFE_MS + 4000) == seldom.snapshot(LIFE_MS + 4000)


@every_pack
def test_equal_inputs_give_equal_outputs(case: Case):
    first, again = (life.__wrapped__(case.healthy.title, 20.0, 10_000) for _ in range(2))
    for one, other in zip(first, again, strict=True):
        assert (one.sent, one.asked, look(one)) == (other.sent, other.asked, look(other))


@every_pack
def test_a_frame_is_explained_exactly_when_it_is_accepted(case: Case):
    """As far as the default options go, which are all that `log decode` has."""
    if case.battery.ids(case.healthy.options) != case.battery.ids(NO_OPTIONS) or case.battery.line is not None:
        return
    for frame in distinct(f for tick in life(case.healthy.title) for f in tick.frames):
        for data in (frame.data, frame.data[:-1], b"", bytes(byte ^ 1 for byte in frame.data)):
            piece = frame._replace(data=data)
            accepted = case.start().receive([piece], 0).snapshot(0).decoded_frames
            explained = case.battery.explain(piece)
            assert accepted or not explained, piece
            assert explained or not accepted or data != frame.data, piece
        if told(other := frame._replace(extended=not frame.extended)) not in case.battery.ids(case.healthy.options):
            assert case.battery.explain(other) == ()
        assert case.battery.explain(frame._replace(id=0x7FE)) == ()


@every_pack
def test_late_frames_count_from_when_they_were_received(case: Case):
    """A stamp older than the tick ages the value; one from the future does not make it younger than now."""
    ticks = life(case.healthy.title)
    if not any(tick.frames for tick in ticks):
        return
    states = [case.start(), case.start()]
    for tick in ticks:
        early, late = ([frame._replace(at_ms=tick.now_ms + shift) for frame in tick.frames] for shift in (0, HOUR_MS))
        states = [s.receive(frames, tick.now_ms) for s, frames in zip(states, (early, late), strict=True)]
    now, future = (state.snapshot(ticks[-1].now_ms).feeds for state in states)
    assert future == now
    assert all(isinstance(freshness, Freshness) for freshness in now.values())
