"""What every inverter protocol owes the controller. A new one is put through all of it by its row in `speaking.py`."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import pairwise, product
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from controller.batteries.registry import BATTERIES
from controller.inverters import registry
from controller.inverters.base import Answer, InverterProtocol, InverterState
from controller.inverters.registry import INVERTERS
from controller.model.inverter import InverterRequest, InverterStatus, InverterView
from controller.model.settings import NO_OPTIONS, Option, OptionValue
from controller.ports import CanFrame, RegisterWrite
from sim.byd_can_inverter import RUBBISH
from tests.inverters.speaking import SPEAKING, Far, Says

TICK_MS = 10
WARM_MS = 30_000
SOON_MS = 2_000
LINK_MAX_V = 1_500
ACTIVE, STANDBY, FAULT = InverterStatus.ACTIVE, InverterStatus.STANDBY, InverterStatus.FAULT

GOOD = InverterView(
    status=ACTIVE, soc_pct=49.1, soh_pct=88.3, energy_full_wh=24_000.0, max_charge_w=4_000.0, max_discharge_w=5_000.0,
    pack_voltage_v=361.9, outer_voltage_v=361.9, current_a=-12.3, power_w=-4451.0, temp_min_c=23.0, temp_max_c=27.0,
    cell_min_v=3.764, cell_max_v=3.778, design_max_v=402.5, design_min_v=242.1, max_power_w=6_000.0,
    charged_wh=1_000.0, discharged_wh=900.0,
)  # fmt: skip
UNKNOWN = GOOD._replace(
    **dict.fromkeys(
        (
            "soc_pct", "soh_pct", "energy_full_wh", "pack_voltage_v", "outer_voltage_v", "current_a", "power_w",
            "temp_min_c", "temp_max_c", "cell_min_v", "cell_max_v", "charged_wh", "discharged_wh",
        )
    )
)  # fmt: skip
NEEDED = ("soc_pct", "energy_full_wh", "pack_voltage_v", "temp_min_c", "temp_max_c")
"""Without these no inverter can use a battery safely; some protocols need more."""
MEASURED = re.compile("soc|soh|temp|cell|pack_voltage|inner|outer|remaining|current")
"""Names under which a protocol tells what was measured."""


class Case(NamedTuple):
    inverter: InverterProtocol
    options: Mapping[str, OptionValue]

    def __str__(self) -> str:
        return " ".join((self.inverter.name, *(f"{name} {value}" for name, value in self.options.items())))


def others(option: Option) -> list[OptionValue]:
    if isinstance(option.default, bool):
        return [not option.default]
    if option.choices:
        return [choice for choice in option.choices if choice != option.default]
    return [type(option.default)(bound) for bound in (option.low, option.high) if bound is not None]


def variants(inverter: InverterProtocol) -> list[Case]:
    """The default options, and each other value a choice, a switch or a bound allows, one at a time."""
    return [
        Case(inverter, NO_OPTIONS),
        *(Case(inverter, {option.name: value}) for option in inverter.options for value in others(option)),
    ]


every_inverter = pytest.mark.parametrize("inverter", INVERTERS.values(), ids=list(INVERTERS))
some = settings(max_examples=30, deadline=None)
every_case = pytest.mark.parametrize("case", [c for i in INVERTERS.values() for c in variants(i)], ids=str)


class Dialogue:
    """One inverter and its protocol, ticked by hand. said: (ms, frame) of everything the inverter was told."""

    def __init__(self, case: Case) -> None:
        self.state: InverterState = case.inverter.start({**SPEAKING[case.inverter.name].options, **case.options})
        self.far: Far = SPEAKING[case.inverter.name].far()
        self.said: list[tuple[int, CanFrame]] = []
        self.requests: list[InverterRequest] = []
        self.answer = Answer()
        self.now_ms = 0

    def run_ms(self, ms: int, view: InverterView) -> Dialogue:
        for _ in range(ms // TICK_MS):
            says = self.far.step(self.now_ms, self.answer, GOOD.pack_voltage_v or 0.0)
            self.state = self.state.receive(says.frames, says.writes, says.polls, self.now_ms)
            self.requests.append(self.state.request(self.now_ms))
            self.state, self.answer = self.state.answer(view, self.now_ms)
            self.said += [(self.now_ms, frame) for frame in self.answer.frames]
            self.now_ms += TICK_MS
        return self


@lru_cache(maxsize=64)
def warm(name: str, options: tuple[tuple[str, OptionValue], ...]) -> InverterState:
    """The state after half a minute with a good battery."""
    return Dialogue(Case(INVERTERS[name], dict(options))).run_ms(WARM_MS, GOOD).state


def understood(case: Case, view: InverterView) -> Far:
    """What an inverter that uses the battery makes of this view, two seconds after it changed."""
    state, far = warm(case.inverter.name, tuple(case.options.items())), SPEAKING[case.inverter.name].far()
    volts = view.pack_voltage_v if view.pack_voltage_v is not None and math.isfinite(view.pack_voltage_v) else 400.0
    for now_ms in range(WARM_MS, WARM_MS + SOON_MS, 5 * TICK_MS):
        state, answer = state.answer(view, now_ms)
        far.step(now_ms, answer, volts)
    return far


def values(case: Case, answer: Answer) -> Iterable[tuple[str, float | str | None]]:
    """Every value of an answer by its name."""
    for frame in answer.frames:
        for _, said in case.inverter.explain_frame(frame):
            yield from said.items()
    for block in case.inverter.explain(answer.registers or {}).values():
        yield from block.items()


# --- the tables ---


def test_every_inverter_of_the_registry_has_somebody_to_speak_with():
    assert set(SPEAKING) == set(INVERTERS)


@every_inverter
def test_the_row_of_the_registry_is_sane(inverter: InverterProtocol):
    assert INVERTERS[inverter.name] is inverter
    assert re.fullmatch("[a-z][a-z0-9_]*", inverter.name)
    assert inverter.title
    assert (inverter.line is None) != (inverter.bitrate is None)
    assert bool(inverter.tx) == bool(inverter.rx) == (inverter.bitrate is not None)
    assert all(0 <= can_id < 0x800 for can_id in inverter.tx | inverter.rx)
    assert (inverter.unit > 0) == (inverter.line is not None)
    assert 0 < inverter.zero_ms < inverter.silent_ms
    assert inverter.follow_ms > 0
    assert inverter.max_w > 0
    assert 0 < inverter.precharge_max_ms <= 10_000


@every_inverter
def test_every_option_has_words_and_a_default_within_its_bounds(inverter: InverterProtocol):
    assert len({option.name for option in inverter.options}) == len(inverter.options)
    for option in inverter.options:
        assert option.text, option.name
        assert not option.choices or option.default in option.choices
        assert not option.pattern or re.fullmatch(option.pattern, str(option.default))
        if isinstance(option.default, (int, float)) and not isinstance(option.default, bool) and not option.yours:
            assert (option.low or -math.inf) <= option.default <= (option.high or math.inf), option.name


@every_inverter
def test_a_foreign_option_is_refused(inverter: InverterProtocol):
    with pytest.raises(KeyError):
        inverter.start({"no_such_option": 1.0})


@every_inverter
def test_every_message_of_its_dbc_names_its_source(inverter: InverterProtocol):
    files = sorted(Path(registry.__file__).parent.glob(f"{inverter.name}*.dbc"))
    assert bool(files) == (inverter.bitrate is not None)
    for path in files:
        text = path.read_text(encoding="utf-8")
        messages = set(re.findall(r"^BO_ (\d+) ", text, re.MULTILINE))
        assert messages == set(re.findall(r'^CM_ BO_ (\d+) "[^"]+"', text, re.MULTILINE)), path.name


# --- what is told ---


@every_case
def test_a_good_battery_is_ready_and_offers_what_the_view_allows(case: Case):
    far = understood(case, GOOD)
    assert far.ready
    assert not far.faulted
    assert 0.9 * GOOD.max_charge_w < far.charge_w <= GOOD.max_charge_w
    assert 0.9 * GOOD.max_discharge_w < far.discharge_w <= GOOD.max_discharge_w


@every_case
@pytest.mark.parametrize("status", [status for status in InverterStatus if status is not ACTIVE])
def test_it_is_ready_only_when_the_view_is_active(case: Case, status: InverterStatus):
    far = understood(case, GOOD._replace(status=status))
    assert not far.ready
    if not case.inverter.offers_before_go:
        assert (far.charge_w, far.discharge_w) == (0, 0)


@every_case
def test_a_fault_is_told_where_there_is_a_word_for_it_and_is_not_ready_anyhow(case: Case):
    fault, standby = (understood(case, GOOD._replace(status=status)) for status in (FAULT, STANDBY))
    assert not fault.ready
    if fault.faulted is None:
        assert (fault.charge_w, fault.discharge_w) == (0, 0)
    else:
        assert (fault.faulted, standby.faulted) == (True, False)


@every_case
@some
@given(charge_w=st.floats(0, 60_000), discharge_w=st.floats(0, 60_000), pack_v=st.floats(120, 900))
def test_the_limits_of_the_view_are_never_exceeded(case: Case, charge_w: float, discharge_w: float, pack_v: float):
    view = GOOD._replace(max_charge_w=charge_w, max_discharge_w=discharge_w, pack_voltage_v=pack_v)
    far = understood(case, view)
    assert far.charge_w <= charge_w + 0.001
    assert far.discharge_w <= discharge_w + 0.001


@every_case
@some
@given(limits=st.tuples(*4 * (st.floats(0, 60_000),)))
def test_more_is_told_only_when_the_view_allows_more(case: Case, limits: tuple[float, float, float, float]):
    (low, high), (less, more) = sorted(limits[:2]), sorted(limits[2:])
    small = understood(case, GOOD._replace(max_charge_w=low, max_discharge_w=less))
    large = understood(case, GOOD._replace(max_charge_w=high, max_discharge_w=more))
    assert small.charge_w <= large.charge_w
    assert small.discharge_w <= large.discharge_w


@every_case
@pytest.mark.parametrize("nothing", [0.0, -1.0, -5_000.0, 0.4, math.nan, -math.inf])
def test_a_limit_of_nothing_is_told_as_nothing_and_leaves_the_other_alone(case: Case, nothing: float):
    no_charge = understood(case, GOOD._replace(max_charge_w=nothing))
    no_discharge = understood(case, GOOD._replace(max_discharge_w=nothing))
    assert (no_charge.charge_w, no_discharge.discharge_w) == (0, 0)
    assert no_charge.discharge_w > 0
    assert no_discharge.charge_w > 0


@every_case
@pytest.mark.parametrize(("name", "value"), [*product(NEEDED, (None, math.nan, math.inf))])
def test_nothing_is_offered_while_one_needed_value_is_unknown(case: Case, name: str, value: float | None):
    far = understood(case, GOOD._replace(**{name: value}))
    assert (far.charge_w, far.discharge_w) == (0, 0)


@every_case
def test_an_unknown_battery_offers_nothing_and_no_measurement_is_made_up(case: Case):
    talk = Dialogue(case)
    for ms in (WARM_MS, 100_000):
        talk.run_ms(ms, UNKNOWN)
        assert (talk.far.charge_w, talk.far.discharge_w) == (0, 0)
        told = {name: value for name, value in values(case, talk.answer) if MEASURED.search(name)}
        assert not any(told.values()), told
    assert all(frame.id in case.inverter.tx for _, frame in talk.said)
    assert talk.state.image(UNKNOWN) == ()


@every_case
def test_a_battery_that_becomes_unknown_is_taken_back_at_once_and_then_not_told_of(case: Case):
    talk = Dialogue(case).run_ms(WARM_MS, GOOD)
    assert talk.far.charge_w > 0
    began_ms = talk.now_ms
    talk.run_ms(SOON_MS, UNKNOWN)
    assert (talk.far.charge_w, talk.far.discharge_w) == (0, 0)
    talk.run_ms(10_000, UNKNOWN)
    told = [values(case, Answer((frame,))) for at_ms, frame in talk.said if at_ms >= began_ms]
    assert not any(value for said in told for name, value in said if MEASURED.search(name))
    talk.said.clear()
    talk.run_ms(60_000, UNKNOWN)
    assert talk.said == []


anything = st.none() | st.floats() | st.floats(-1e6, 1e6)
powers = st.floats() | st.floats(-1e6, 1e6)
some_changed = st.fixed_dictionaries(
    {"status": st.sampled_from(InverterStatus)},
    optional={
        name: powers if name.startswith("max_") else anything for name in InverterView._fields if name != "status"
    },
)


@every_case
@some
@given(changes=some_changed)
@example(changes={"design_min_v": 1.8e307})
@example(changes={"energy_full_wh": 1e308, "design_max_v": 5e-324, "design_min_v": 0.0, "soc_pct": 0.0})
def test_no_view_however_wrong_raises_or_offers_more_than_it_allows(case: Case, changes: dict[str, Any]):
    view = GOOD._replace(**changes)
    far, state = understood(case, view), warm(case.inverter.name, tuple(case.options.items()))
    assert all(len(frame.data) <= 8 for frame in state.image(view))
    for told, allowed in ((far.charge_w, view.max_charge_w), (far.discharge_w, view.max_discharge_w)):
        assert math.isfinite(told)
        assert told <= max(0.0, allowed if math.isfinite(allowed) else 0.0) + 0.001


@every_case
def test_what_is_told_fits_the_wire_and_the_list(case: Case):
    talk = Dialogue(case)
    for _ in range(130_000 // TICK_MS):
        talk.run_ms(TICK_MS, GOOD)
        ids = [frame.id for frame in talk.answer.frames]
        assert len(set(ids)) == len(ids), "a port keeps only the newest frame of an id"
        if talk.answer.registers is not None and talk.now_ms % 1_000 == 0:
            assert all(0 <= word < 0x1_0000 for words in talk.answer.registers.values() for word in words)
    frames = {frame for _, frame in talk.said}
    assert {frame.id for frame in frames} == case.inverter.tx, "nothing unlisted, and nothing listed in vain"
    assert not any(frame.extended for frame in frames)
    assert all(len(frame.data) <= 8 for frame in frames)
    assert all(case.inverter.explain_frame(frame) for frame in frames)
    assert {frame.id for frame in talk.state.image(GOOD)} <= case.inverter.tx


@every_case
def test_periods_are_kept_over_two_minutes(case: Case):
    """Never late, and hardly early: the inverter gives a battery up that is late, and one that floods it may be."""
    periods = SPEAKING[case.inverter.name].periods
    talk = Dialogue(case).run_ms(10_000, GOOD)
    talk.said.clear()
    talk.run_ms(130_000, GOOD)
    times: dict[CanFrame, list[int]] = {}
    for at_ms, frame in talk.said:
        times.setdefault(frame, []).append(at_ms)
    assert {frame.id for frame in times if len(times[frame]) > 1} == set(periods)
    for frame, stamps in times.items():
        for before, after in pairwise(stamps):
            assert 0.9 * periods[frame.id] <= after - before <= periods[frame.id], f"{frame.id:03X} at {after} ms"


@every_case
def test_an_answer_is_a_value_and_asking_twice_gives_it_twice(case: Case):
    state = warm(case.inverter.name, tuple(case.options.items()))
    for now_ms in range(WARM_MS, WARM_MS + SOON_MS, TICK_MS):
        before = state.request(now_ms)
        one, other = state.answer(GOOD, now_ms), state.answer(GOOD, now_ms)
        assert one[1].frames == other[1].frames
        assert dict(one[1].registers or {}) == dict(other[1].registers or {})
        assert state.request(now_ms) == before
        state = one[0]


# --- what is heard ---


def foreign(case: Case) -> list[CanFrame]:
    """Frames that this inverter does not send: other ids, other lengths, 29 bits, our own."""
    own = case.inverter.rx
    ids = {can_id for i in INVERTERS.values() for can_id in i.rx | i.tx} | {i for b in BATTERIES.values() for i in b.rx}
    frames = [CanFrame(can_id, bytes(8)) for can_id in sorted(ids - own)]
    frames += [CanFrame(can_id, bytes(length)) for can_id in sorted(own) for length in range(8)]
    frames += [CanFrame(can_id, bytes(8), extended=True) for can_id in sorted(own)]
    return frames + [frame for frame in RUBBISH if frame.id not in own or len(frame.data) != 8 or frame.extended]


@every_case
def test_nothing_is_heard_or_asked_before_the_inverter_speaks(case: Case):
    assert case.inverter.start({}).request(0) == InverterRequest()
    assert case.inverter.start({}).receive((), (), 0, 5).request(5) == InverterRequest()


@every_case
def test_only_the_inverters_own_frames_are_a_sign_of_life(case: Case):
    state = case.inverter.start(SPEAKING[case.inverter.name].options).receive(foreign(case), (), 0, 1_000)
    assert state.request(1_000) == InverterRequest()
    heard = warm(case.inverter.name, tuple(case.options.items()))
    after = heard.receive(foreign(case), (), 0, WARM_MS + 500)
    assert after.request(WARM_MS + 500) == heard.request(WARM_MS + 500)


@every_case
def test_it_is_heard_when_it_speaks_and_its_last_word_keeps_its_time(case: Case):
    talk = Dialogue(case).run_ms(WARM_MS, GOOD)
    heard_ms = talk.state.request(talk.now_ms).heard_at_ms
    assert heard_ms is not None
    assert 0 <= talk.now_ms - heard_ms <= case.inverter.zero_ms, "it would be cut off while it talks as it always does"
    silent = talk.state
    for now_ms in range(talk.now_ms, talk.now_ms + 200_000, 1_000):
        silent, _ = silent.receive((), (), 0, now_ms).answer(GOOD, now_ms)
        assert silent.request(now_ms).heard_at_ms == heard_ms


@every_case
def test_the_go_is_given_by_those_that_are_said_to_give_it(case: Case):
    goes = {request.go for request in Dialogue(case).run_ms(WARM_MS, GOOD).requests}
    assert (True in goes) == case.inverter.asks
    assert case.inverter.asks or goes == {None}


@every_case
def test_what_it_measured_is_forgotten_when_it_falls_silent(case: Case):
    request = warm(case.inverter.name, tuple(case.options.items())).request(WARM_MS + 3_600_000)
    assert request.link_voltage_v is None
    assert request.battery_voltage_v is None
    assert request.go is not True


garbage = st.builds(
    Says,
    st.lists(st.builds(CanFrame, st.integers(0, 0x7FF) | st.sampled_from(sorted({c for i in INVERTERS.values()
             for c in i.rx})), st.binary(max_size=8), st.just(0), st.booleans()), max_size=5),
    st.lists(st.builds(RegisterWrite, st.integers(-1, 70_000) | st.integers(395, 425),
             st.lists(st.integers(0, 65_535) | st.integers(-5, 70_000), max_size=25).map(tuple)), max_size=3),
    st.integers(0, 3),
)  # fmt: skip


@every_inverter
@settings(deadline=None)
@given(ticks=st.lists(garbage, max_size=10))
@example(ticks=[Says(writes=[RegisterWrite(418, (65_535,))], polls=1)])
@example(ticks=[Says(frames=[CanFrame(can_id, b"\xff" * 8) for can_id in range(0x800)])])
def test_garbage_never_raises_and_measures_nothing_impossible(inverter: InverterProtocol, ticks: list[Says]):
    for start in (inverter.start({}), warm(inverter.name, ())):
        state = start
        for now_ms, says in enumerate(ticks, WARM_MS):
            for frame in says.frames:
                inverter.explain_frame(frame)
            state = state.receive(says.frames, says.writes, says.polls, now_ms)
            request = state.request(now_ms)
            for volts in (request.link_voltage_v, request.battery_voltage_v):
                assert volts is None or 0 < volts <= LINK_MAX_V
            state, answer = state.answer(GOOD, now_ms)
            assert {frame.id for frame in answer.frames} <= inverter.tx


@every_inverter
def test_a_foreign_frame_is_not_explained(inverter: InverterProtocol):
    own = inverter.rx | inverter.tx
    assert inverter.explain_frame(CanFrame(next(i for i in range(0x7FF, 0, -1) if i not in own), bytes(8))) == ()
    for can_id in own:
        assert inverter.explain_frame(CanFrame(can_id, bytes(8), extended=True)) == ()
