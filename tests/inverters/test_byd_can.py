"""BYD over CAN against the note's examples, a recorded HVM 8.3 with its Sungrow, and the real core."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller import core
from controller.batteries.registry import BATTERIES
from controller.inverters import byd_can
from controller.inverters.byd_can import CYCLE, PROFILES, PROTOCOL, TABLES, BydCanState
from controller.inverters.registry import INVERTERS
from controller.loop import Loop, Ports
from controller.model.events import Event
from controller.model.inverter import InverterStatus, InverterView
from controller.model.settings import CHEMISTRIES, PackSettings, PrechargeSettings, Settings
from controller.ports import CanFrame, Command, CommandKind
from drivers.memory import HandClock, MemoryCan, MemoryEvents, MemoryRecords, MemoryRelays
from sim.byd_can_inverter import BydCanInverter
from sim.recording import open_recording
from sim.tesla_pack import TeslaPack
from statecharts.supervisor import Contactor, State
from tests.bench import TICK_MS, Bench
from tests.shared import LOGS, needs_shared

ACTIVE = InverterStatus.ACTIVE
TESLA = InverterView(
    status=ACTIVE, soc_pct=49.1, soh_pct=88.3, energy_full_wh=60_000.0, max_charge_w=22.0 * 361.9,
    max_discharge_w=22.0 * 361.9, pack_voltage_v=361.9, outer_voltage_v=361.9, current_a=-12.3, power_w=-4451.0,
    temp_min_c=23.0, temp_max_c=27.0, cell_min_v=3.764, cell_max_v=3.778, design_max_v=402.5, design_min_v=242.1,
    max_power_w=10_000.0, charged_wh=None, discharged_wh=None,
)  # fmt: skip
"""The seed's Tesla pack, as the note encodes it."""

HELLO = CanFrame(0x151, b"\x00GOODWE\x00")
ASK = CanFrame(0x151, b"\x01" + bytes(7))
MEASURES = CanFrame(0x091, bytes.fromhex("0E1FFF97012D0000"))
IDENTITY = ["250", "290", "2D0", "3D0/0", "3D0/1", "3D0/2", "3D0/3"]


def told(view: InverterView, profile: str = "sungrow") -> dict[int, str]:
    """Every cyclic frame that tells this view."""
    state = PROTOCOL.start({"profile": profile})
    return {frame.id: frame.data.hex(" ").upper() for frame in state.image(view) if frame.id in CYCLE}


def name(frame: CanFrame) -> str:
    return f"{frame.id:03X}/{frame.data[0]}" if frame.id == 0x3D0 else f"{frame.id:03X}"


class Cable:
    """The state alone, ticked by hand. said: (ms, frame) of everything it sent."""

    def __init__(self, view: InverterView = TESLA, profile: str = "sungrow") -> None:
        self.view, self.now_ms = view, 0
        self.state = PROTOCOL.start({"profile": profile})
        self.said: list[tuple[int, CanFrame]] = []

    def run_ms(self, duration_ms: int, *frames: CanFrame) -> list[CanFrame]:
        """The frames are heard in the first tick. Returns what was sent meanwhile."""
        said: list[tuple[int, CanFrame]] = []
        for _ in range(duration_ms // TICK_MS):
            self.state = self.state.receive(frames, (), 0, self.now_ms)
            self.state, answer = self.state.answer(self.view, self.now_ms)
            assert len({frame.id for frame in answer.frames}) == len(answer.frames), "a CAN port keeps the newest only"
            said += [(self.now_ms, frame) for frame in answer.frames]
            frames, self.now_ms = (), self.now_ms + TICK_MS
        self.said += said
        return [frame for _, frame in said]

    def times(self, can_id: int) -> list[int]:
        return [at_ms for at_ms, frame in self.said if frame.id == can_id]

    def newest(self, can_id: int) -> bytes:
        return [frame.data for _, frame in self.said if frame.id == can_id][-1]


def names(frames: Iterable[CanFrame]) -> list[str]:
    return [name(frame) for frame in frames]


# --- the note's examples ---


@pytest.mark.parametrize(
    ("frame", "message", "values"),
    [
        ("110#0920064001000100", "BYD_limits", {"highest_voltage_v": 233.6, "lowest_voltage_v": 160.0,
                                                "max_discharge_a": 25.6, "max_charge_a": 25.6}),
        ("150#260C271000F300FA", "BYD_state", {"soc_pct": 97.40, "soh_pct": 100.0, "charge_remaining_ah": 24.3,
                                               "charge_full_ah": 25.0}),
        ("1D0#0849000000B40308", "BYD_values", {"pack_voltage_v": 212.1, "current_a": 0.0, "temp_c": 18.0, "ready": 3,
                                                "always_8": 8}),
        ("210#00BE00B400000000", "BYD_temperatures", {"temp_max_c": 19.0, "temp_min_c": 18.0}),
        ("250#0316006600330209", "BYD_nameplate", {"firmware": 0x0316, "always_102": 0x66, "energy_full_wh": 5_100.0,
                                                   "modules": 2, "family": 9}),
        ("151#00474F4F44574500", "INV_brand", {"fragment": 0, "brand_text": "GOODWE"}),
        ("0D1#01EB000000000000", "INV_soc", {"soc_pct": 49.1, "unexplained": 0}),
        ("091#0E1FFF97012D0000", "INV_measured", {"battery_voltage_v": 361.5, "discharge_current_a": -10.5,
                                                  "inverter_temp_c": 30.1, "unexplained": 0}),
    ],
)  # fmt: skip
def test_the_notes_examples_read_as_it_says(frame: str, message: str, values: dict[str, float | str]) -> None:
    can_id, data = frame.split("#")
    [(found, said)] = PROTOCOL.explain_frame(CanFrame(int(can_id, 16), bytes.fromhex(data)))
    assert (found, {n: round(v, 6) if isinstance(v, float) else v for n, v in said.items()}) == (message, values)


def test_the_seeds_pack_becomes_the_notes_bytes() -> None:
    assert told(TESLA) == {
        0x110: "0F A5 09 89 00 DC 00 DC",
        0x150: "13 2E 22 7E 03 92 07 45",
        0x1D0: "0E 23 FF 85 00 FA 03 08",
        0x190: "00 00 03 00 00 00 00 00",
        0x210: "01 0E 00 E6 00 00 00 00",
    }
    assert told(TESLA._replace(current_a=1.0))[0x1D0] == "0E 23 00 0A 00 FA 03 08"
    assert told(TESLA._replace(temp_max_c=-1.5, temp_min_c=-3.2))[0x210] == "FF F1 FF E0 00 00 00 00"


def test_the_identity_is_the_notes() -> None:
    assert [f"{frame.id:03X} {frame.data.hex(' ').upper()}" for frame in byd_can.identity(TESLA)] == [
        "250 03 29 00 66 02 58 02 09",
        "290 06 37 10 D9 00 00 00 00",
        "2D0 00 42 59 44 00 00 00 00",
        "3D0 00 42 61 74 74 65 72 79",
        "3D0 01 2D 42 6F 78 20 50 72",
        "3D0 02 65 6D 69 75 6D 20 48",
        "3D0 03 56 53 00 00 00 00 00",
    ]


# --- a recorded battery ---


def recorded() -> list[tuple[float, CanFrame]]:
    return [(us / 1000, frame) for us, frame in open_recording(LOGS / "byd-sungrow-discharge-30min.log")]


@needs_shared
def test_every_recorded_frame_is_read_and_written_back_byte_by_byte() -> None:
    frames = [frame for _, frame in recorded()]
    assert len(frames) == 2009
    for frame in frames:
        [(message, said)] = TABLES.explain(frame.id, frame.data)
        again = TABLES.encode(message, {n: v for n, v in said.items() if v is not None})
        known = {0x0D1: slice(0, 2), 0x111: slice(0, 4)}.get(frame.id, slice(0, 8))
        assert again[known] == frame.data[known]


@needs_shared
def test_told_what_the_recorded_battery_tells_ours_says_the_same_bytes_but_where_we_mean_to() -> None:
    """It shows its lowest temperature in 0x1D0, we the mean; its alarm frame is nobody's to copy."""
    newest: dict[int, CanFrame] = {}
    seen = 0
    for _, frame in recorded():
        newest[frame.id] = frame
        if frame.id != 0x150 or not {0x110, 0x1D0, 0x210} <= newest.keys():
            continue
        told_by = (newest[can_id] for can_id in (0x110, 0x1D0, 0x210))
        said = {n: v for f in told_by for n, v in TABLES.explain(f.id, f.data)[0][1].items() if v is not None}
        middle_v = (said["highest_voltage_v"] + said["lowest_voltage_v"]) / 2
        volts = said["pack_voltage_v"]
        view = TESLA._replace(
            soc_pct=int.from_bytes(frame.data[:2], "big") / 100, soh_pct=100.0, energy_full_wh=54.0 * middle_v,
            pack_voltage_v=volts, current_a=said["current_a"], temp_min_c=said["temp_min_c"],
            temp_max_c=said["temp_max_c"], max_charge_w=40.0 * volts, max_discharge_w=40.0 * volts,
            design_max_v=said["highest_voltage_v"] + 2.0, design_min_v=said["lowest_voltage_v"] - 2.0,
        )  # fmt: skip
        ours = {f.id: f.data for f in PROTOCOL.start().image(view)}
        seen += 1
        for can_id in (0x110, 0x210):
            assert ours[can_id] == newest[can_id].data
        assert ours[0x1D0][:4] + ours[0x1D0][6:] == newest[0x1D0].data[:4] + newest[0x1D0].data[6:]
        assert ours[0x150][:4] + ours[0x150][6:] == frame.data[:4] + frame.data[6:]
        remaining_ah = [int.from_bytes(data[4:6], "big") / 10 for data in (ours[0x150], frame.data)]
        assert abs(remaining_ah[0] - remaining_ah[1]) <= 0.2
    assert seen == 180


@needs_shared
def test_ours_speaks_in_the_recorded_order_and_each_frame_a_tenth_of_a_second_earlier() -> None:
    frames = recorded()
    stamps = {can_id: [at_ms for at_ms, frame in frames if frame.id == can_id] for can_id in CYCLE}
    for can_id, beat in CYCLE.items():
        gaps_ms = [b - a for a, b in pairwise(stamps[can_id])]
        assert max(gaps_ms) - min(gaps_ms) < 10
        assert sum(gaps_ms) / len(gaps_ms) == pytest.approx(beat.period_ms + 100, abs=2)
    slow = [can_id for _, frame in frames[15:19] for can_id in [frame.id]]
    assert slow == sorted((can_id for can_id in CYCLE if can_id != 0x110), key=lambda can_id: CYCLE[can_id].phase_ms)
    for before, after in pairwise(slow):
        gap_ms = min(b - a for a in stamps[before] for b in stamps[after] if b > a)
        assert gap_ms == pytest.approx(CYCLE[after].phase_ms - CYCLE[before].phase_ms, abs=5)


@needs_shared
def test_a_sungrow_counts_current_in_tenths_of_an_ampere_and_discharging_as_positive() -> None:
    newest: dict[int, bytes] = {}
    for _, frame in recorded():
        newest[frame.id] = frame.data
        if frame.id == 0x091 and 0x1D0 in newest:
            theirs = TABLES.explain(0x091, frame.data)[0][1]["discharge_current_a"]
            ours = TABLES.explain(0x1D0, newest[0x1D0])[0][1]["current_a"]
            assert theirs is not None
            assert ours is not None
            assert theirs == pytest.approx(-ours, abs=1.3)


# --- the dialogue ---


def test_it_is_silent_until_an_inverter_is_heard() -> None:
    cable = Cable()
    assert cable.run_ms(70_000) == []
    assert cable.run_ms(10, MEASURES)


def test_the_first_frame_of_any_kind_brings_the_identity_once_and_then_the_cyclic_frames() -> None:
    cable = Cable()
    said = names(cable.run_ms(1_890, CanFrame(0x191, bytes(8))))
    assert [n for n in said if n in IDENTITY] == IDENTITY
    assert [n for n in said if n not in IDENTITY] == ["110", "190", "210", "1D0"]
    assert names(cable.run_ms(1_000)) == ["110", "150"]


def test_each_request_brings_the_identity_again() -> None:
    cable = Cable()
    cable.run_ms(1_000, HELLO)
    for _ in range(3):
        assert [n for n in names(cable.run_ms(100, ASK)) if n in IDENTITY] == IDENTITY
    assert [n for n in names(cable.run_ms(100, HELLO)) if n in IDENTITY] == []


def test_a_request_while_the_identity_is_on_its_way_is_answered_after_it() -> None:
    cable = Cable()
    cable.run_ms(1_000, HELLO)
    said = cable.run_ms(10, ASK) + cable.run_ms(200, ASK)
    assert [n for n in names(said) if n in IDENTITY] == IDENTITY * 2


def test_periods_hold() -> None:
    cable = Cable()
    cable.run_ms(600_000, HELLO)
    for can_id, beat in CYCLE.items():
        assert {b - a for a, b in pairwise(cable.times(can_id))} == {beat.period_ms}


def test_the_brand_is_read_from_the_first_fragment() -> None:
    state = PROTOCOL.start().receive([CanFrame(0x151, b"\x00SUNGROW"), ASK], (), 0, 0)
    assert state.brand == "SUNGROW"


@pytest.mark.parametrize(
    "frame",
    [
        CanFrame(0x151, b""), CanFrame(0x151, b"\x00GOODWE"), CanFrame(0x091, bytes(7)),
        CanFrame(0x4200, bytes(8), 0, True),
        CanFrame(0x151, b"\x01" + bytes(7), 0, True), CanFrame(0x110, bytes(8)), CanFrame(0x132, bytes(8)),
        CanFrame(0x100, bytes(8)), CanFrame(0x091, b""),
    ],
)  # fmt: skip
def test_foreign_torn_and_extended_frames_are_no_sign_of_life(frame: CanFrame) -> None:
    cable = Cable()
    assert cable.run_ms(100, frame) == []
    assert cable.state.request(100).heard_at_ms is None


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from([*sorted(PROTOCOL.rx), 0x110]), st.binary(max_size=8), st.booleans())))
def test_whatever_is_received_nothing_breaks_and_only_whole_frames_count(
    frames: list[tuple[int, bytes, bool]],
) -> None:
    state: BydCanState = PROTOCOL.start()
    whole = False
    for can_id, data, extended in frames:
        state = state.receive([CanFrame(can_id, data, 0, extended)], (), 0, 5)
        whole = whole or (can_id in PROTOCOL.rx and len(data) == 8 and not extended)
    request = state.request(5)
    assert (request.heard_at_ms is not None) is whole
    assert request.link_voltage_v is None or 0 < request.link_voltage_v <= 1500
    assert request.go is None


# --- limits ---


@pytest.mark.parametrize("status", [status for status in InverterStatus if status is not ACTIVE])
def test_unless_active_both_currents_are_zero_and_it_is_not_ready(status: InverterStatus) -> None:
    said = told(TESLA._replace(status=status))
    assert said[0x110] == "0F A5 09 89 00 00 00 00"
    assert said[0x1D0][18:20] == "02"


def test_bad_news_is_told_at_once() -> None:
    cable = Cable()
    cable.run_ms(5_000, HELLO)
    cable.view = TESLA._replace(status=InverterStatus.STANDBY)
    said = cable.run_ms(10)
    assert names(said) == ["110", "1D0", "150"]
    assert said[0].data[4:] == bytes(4)
    assert said[1].data[6] == 2
    assert names(cable.run_ms(600)) == []


@pytest.mark.parametrize("direction", ["max_charge_w", "max_discharge_w"])
def test_a_limit_that_falls_to_nothing_is_told_at_once_and_one_that_returns_in_its_turn(direction: str) -> None:
    cable = Cable()
    cable.run_ms(5_000, HELLO)
    cable.view = TESLA._replace(**{direction: 20.0})  # less than 0.1 A
    assert cable.run_ms(10)[0].id == 0x110
    cable.view = TESLA
    assert cable.run_ms(10) == []
    cable.run_ms(2_000)
    assert cable.newest(0x110)[4:] == bytes.fromhex("00DC00DC")


def test_a_limit_that_flickers_is_not_told_a_hundred_times_a_second() -> None:
    cable = Cable()
    cable.run_ms(1_000, HELLO)
    for n in range(90):
        cable.view = TESLA._replace(max_charge_w=0.0 if n % 2 else 5_000.0)
        cable.run_ms(10)
    assert len(cable.times(0x110)) <= 3


@settings(deadline=None)
@given(
    charge_w=st.floats(0, 60_000), discharge_w=st.floats(0, 60_000), volts=st.floats(50, 1000),
    profile=st.sampled_from(sorted(PROFILES)),
)  # fmt: skip
def test_no_limit_is_ever_rounded_up(charge_w: float, discharge_w: float, volts: float, profile: str) -> None:
    view = TESLA._replace(max_charge_w=charge_w, max_discharge_w=discharge_w, pack_voltage_v=volts)
    raw = bytes.fromhex(told(view, profile)[0x110])
    discharge_a, charge_a = (int.from_bytes(raw[at : at + 2], "big") / 10 for at in (4, 6))
    assert 0 <= charge_a * volts <= charge_w + 0.001
    assert 0 <= discharge_a * volts <= discharge_w + 0.001
    assert max(charge_a, discharge_a) <= PROFILES[profile].max_a


@pytest.mark.parametrize("watts", [-5_000.0, float("nan"), float("inf"), float("-inf")])
def test_a_limit_that_is_no_limit_offers_nothing(watts: float) -> None:
    assert told(TESLA._replace(max_charge_w=watts, max_discharge_w=watts))[0x110][12:] == "00 00 00 00"


def test_voltages_are_told_two_volts_inside_and_rounded_inwards() -> None:
    raw = bytes.fromhex(told(TESLA._replace(design_max_v=402.59, design_min_v=242.11))[0x110])
    assert (int.from_bytes(raw[:2], "big"), int.from_bytes(raw[2:4], "big")) == (4005, 2442)


# --- an inverter that ignores 0 A ---


def soc(view: InverterView) -> int:
    return int.from_bytes(bytes.fromhex(told(view, "deye")[0x150])[:2], "big")


def test_a_deye_is_stopped_by_the_soc_it_is_told() -> None:
    assert soc(TESLA) == 4910
    assert soc(TESLA._replace(max_charge_w=0.0)) == 10_000
    assert soc(TESLA._replace(max_discharge_w=0.0)) == 0
    for stopped in (TESLA._replace(max_charge_w=0.0, max_discharge_w=0.0),
                    TESLA._replace(status=InverterStatus.STANDBY)):  # fmt: skip
        assert soc(stopped._replace(soc_pct=20.0)) == 0
        assert soc(stopped._replace(soc_pct=99.0)) == 10_000  # a full pack told empty would be charged


@pytest.mark.parametrize(("first", "end"), [("max_discharge_w", 0), ("max_charge_w", 10_000)])
def test_a_deye_that_was_stopped_at_an_end_stays_there_when_the_other_direction_goes_too(first: str, end: int) -> None:
    cable = Cable(TESLA._replace(soc_pct=50.0 + (end == 0)), profile="deye")
    cable.run_ms(5_000, HELLO)
    cable.view = cable.view._replace(**{first: 0.0})
    cable.run_ms(5_000)
    cable.view = cable.view._replace(status=InverterStatus.FAULT, max_charge_w=0.0, max_discharge_w=0.0)
    cable.run_ms(20_000)
    assert int.from_bytes(cable.newest(0x150)[:2], "big") == end
    cable.view = TESLA
    cable.run_ms(5_000)
    assert int.from_bytes(cable.newest(0x150)[:2], "big") == 4910


def test_only_the_soc_is_told_otherwise_and_at_once() -> None:
    cable = Cable(profile="deye")
    cable.run_ms(5_000, HELLO)
    cable.view = TESLA._replace(max_charge_w=0.0)
    said = {frame.id: frame.data for frame in cable.run_ms(10)}
    assert said[0x150].hex().upper() == "2710" + "227E" + "0392" + "0745"


def test_a_deye_is_offered_150_amperes_at_most() -> None:
    view = TESLA._replace(max_charge_w=80_000.0, max_discharge_w=80_000.0)
    assert told(view, "deye")[0x110][12:] == "05 DC 05 DC"
    assert told(view)[0x110][12:] == "08 A2 08 A2"


@pytest.mark.parametrize("profile", ["sungrow", "goodwe"])
def test_who_follows_limits_is_told_the_true_soc(profile: str) -> None:
    assert told(TESLA._replace(max_charge_w=0.0, max_discharge_w=0.0), profile)[0x150].startswith("13 2E")


# --- unknown ---

NEEDED = ("soc_pct", "energy_full_wh", "pack_voltage_v", "current_a", "temp_min_c", "temp_max_c", "design_max_v")


@pytest.mark.parametrize("what", NEEDED)
@pytest.mark.parametrize("value", [None, float("nan")])
def test_of_a_pack_that_is_not_known_nothing_at_all_is_told(what: str, value: float | None) -> None:
    cable = Cable(TESLA._replace(**{what: value}))
    assert cable.run_ms(70_000, HELLO, ASK) == []
    assert cable.state.image(cable.view) == ()


@pytest.mark.parametrize("what", NEEDED)
def test_when_a_number_is_lost_zero_is_told_at_once_and_nothing_else_until_it_falls_silent(what: str) -> None:
    cable = Cable()
    cable.run_ms(5_000, HELLO)
    cable.view = TESLA._replace(**{what: None})
    assert [(f.id, f.data[4:]) for f in cable.run_ms(10)] == [(0x110, bytes(4))]
    while_blind = cable.run_ms(9_990, ASK)
    assert {frame.id for frame in while_blind} == {0x110}
    assert {frame.data[4:] for frame in while_blind} == {bytes(4)}
    assert cable.run_ms(60_000, ASK) == []


def test_when_the_pack_is_back_everything_is_told_anew() -> None:
    cable = Cable()
    cable.run_ms(5_000, HELLO)
    cable.view = TESLA._replace(soc_pct=None)
    cable.run_ms(60_000)
    cable.view = TESLA
    said = names(cable.run_ms(2_010))
    assert [n for n in said if n in IDENTITY] == IDENTITY
    assert {"110", "1D0", "210", "150", "190"} <= set(said)


def test_a_pack_lost_while_active_and_found_again_while_not_is_told_not_ready_at_once() -> None:
    cable = Cable()
    cable.run_ms(5_000, HELLO)
    cable.view = TESLA._replace(current_a=None, status=InverterStatus.FAULT)
    cable.run_ms(1_000)
    cable.view = TESLA._replace(status=InverterStatus.FAULT)
    assert [f.data[6] for f in cable.run_ms(10) if f.id == 0x1D0] == [2]


def test_an_unknown_health_is_told_as_zero_unless_a_person_states_it() -> None:
    view = TESLA._replace(soh_pct=None)
    assert told(view)[0x150][6:11] == "00 00"
    stated = PROTOCOL.start({"soh_pct": 85.0}).image(view)
    assert next(f.data[2:4] for f in stated if f.id == 0x150) == (8500).to_bytes(2, "big")


def test_a_foreign_option_is_refused() -> None:
    with pytest.raises(KeyError, match="byd_can has no option brand"):
        PROTOCOL.start({"brand": "SUNGROW"})


# --- what it measures ---


def test_the_voltage_it_measures_counts_for_25_seconds() -> None:
    state = PROTOCOL.start().receive([MEASURES], (), 0, 1_000)
    request = state.request(26_000)
    assert (request.link_voltage_v, request.link_at_ms, request.battery_voltage_v) == (361.5, 1_000, 361.5)
    assert state.request(26_010).link_voltage_v is None
    assert state.request(26_010).heard_at_ms == 1_000


@pytest.mark.parametrize("raw", ["0000", "FFFF", "3A99"])
def test_what_cannot_be_a_voltage_is_none_and_ends_the_one_before(raw: str) -> None:
    frame = CanFrame(0x091, bytes.fromhex(raw) + bytes(6))
    assert PROTOCOL.start().receive([MEASURES, frame], (), 0, 0).request(0).link_voltage_v is None


def test_a_real_pack_is_asked_for_no_go() -> None:
    assert INVERTERS["byd_can"] is PROTOCOL
    assert (PROTOCOL.asks, PROTOCOL.zero_ms, PROTOCOL.silent_ms, PROTOCOL.follow_ms) == (False, 35_000, 180_000, 5_000)
    assert (PROTOCOL.bitrate, PROTOCOL.line) == (500_000, None)


# --- with the real core ---

UNMEASURED = PrechargeSettings(resistance_ohm=100.0, capacitance_f=0.001, unverified_reason="no sensor on the link")


class Wired(Bench):
    """The bench with this inverter on its cable. every: frames heard every 10 s; link_v is None, it alone measures."""

    def __init__(self, wiring: str = "pack", every: Sequence[CanFrame] = (HELLO,), **build: object) -> None:
        super().__init__(wiring, **build)  # type: ignore[arg-type]
        self.state = core.start(self.settings, self.state.setup.battery, PROTOCOL)
        self.every, self.link_v = every, None
        self.said: list[CanFrame] = []

    def hears(self, *frames: CanFrame) -> Wired:
        heard = self.state.inverter.receive(frames, (), 0, self.now_ms + TICK_MS)
        self.state = self.state._replace(inverter=heard)
        return self

    def _tick(self) -> None:
        if self.now_ms % 10_000 == 0:
            self.hears(*self.every)
        super()._tick()
        self.said += self.outputs.inverter_frames

    def newest(self, can_id: int) -> bytes:
        return [frame.data for frame in self.said if frame.id == can_id][-1]

    @property
    def offered_w(self) -> tuple[float, float]:
        return self.state.limits.charge_w, self.state.limits.discharge_w


def measures(volts: float) -> CanFrame:
    return CanFrame(0x091, round(10 * volts).to_bytes(2, "big") + bytes(6))


def test_it_is_told_power_and_ready_only_while_running() -> None:
    bench = Wired()
    bench.enable().until(State.WAKING_PACK)
    while bench.at is not State.RUNNING:
        bench.run_ms(10)
        if bench.said:
            assert bench.newest(0x110)[4:] == bytes(4)
    bench.run_ms(15_000)
    assert bench.newest(0x1D0)[6] == 3
    assert bench.newest(0x110)[4:] == bytes.fromhex("01150115")  # 10 kW at 360 V
    bench.command(CommandKind.STOP).run_ms(10)
    assert bench.at is State.UNLOADING
    assert (bench.newest(0x110)[4:], bench.newest(0x1D0)[6]) == (bytes(4), 2)


def test_after_35_seconds_of_silence_the_limits_are_zero_and_after_180_it_is_opened() -> None:
    bench = Wired().running()
    bench.every = (CanFrame(0x110, bytes(8)), CanFrame(0x151, b"\x00"), CanFrame(0x4200, bytes(8), 0, True))
    began_ms = bench.state.request.heard_at_ms
    assert began_ms is not None
    bench.run_ms(began_ms + 35_000 - bench.now_ms)
    assert min(bench.offered_w) > 0
    bench.run_ms(20)
    assert bench.offered_w == (0.0, 0.0)
    assert bench.newest(0x110)[4:] == bytes(4)
    bench.run_ms(began_ms + 180_000 - bench.now_ms)
    assert bench.at is State.RUNNING
    bench.run_ms(3_000)
    assert bench.opened_after_ms(began_ms) <= 183_000
    assert Event.INVERTER_SILENT in bench.events()


def test_a_sungrow_that_speaks_every_ten_seconds_is_never_quiet() -> None:
    bench = Wired().running().run_ms(300_000)
    assert bench.at is State.RUNNING
    assert bench.events() == []


def test_an_inverter_never_heard_is_offered_nothing_after_35_seconds() -> None:
    bench = Wired(every=()).running()
    assert bench.said == []
    bench.run_ms(35_000)
    assert bench.offered_w == (0.0, 0.0)
    bench.run_ms(150_000)
    assert Contactor.PACK not in bench.closed


def test_what_it_measured_before_the_contactors_closed_contradicts_nothing() -> None:
    bench = Wired(every=()).hears(measures(3.0)).enable().until(State.RUNNING)
    bench.run_ms(24_000 - bench.now_ms)
    assert bench.state.request.battery_voltage_v == 3.0
    assert bench.events() == []


def test_a_voltage_that_contradicts_the_pack_while_running_stops_it() -> None:
    bench = Wired(every=(measures(361.0),)).running()
    bench.every = (measures(340.0),)
    bench.run_ms(20_000)
    assert bench.happened(Event.INVERTER_CONTRADICTS_PACK)
    assert bench.offered_w == (0.0, 0.0)
    bench.run_ms(26_000)
    assert bench.closed == frozenset()


def test_it_can_never_verify_a_precharge() -> None:
    bench = Wired("own", every=(measures(5.0),)).enable().until(State.PRECHARGING).run_ms(150)
    bench.hears(measures(359.0)).until(State.COOLING_DOWN)
    bench.hears(measures(5.0)).until(State.FAULT, 200_000)
    assert Contactor.POSITIVE not in bench.ever_closed


def test_without_its_voltage_nothing_of_ours_is_closed() -> None:
    bench = Wired("own").enable().run_ms(60_000)
    assert bench.ever_closed == frozenset()
    assert "link: no voltage known" in bench.state.withheld


def test_a_voltage_it_told_before_the_opening_does_not_prove_it() -> None:
    bench = Wired("own", every=(measures(5.0),), precharge=UNMEASURED, feedback=False)
    bench.enable().until(State.RUNNING)
    bench.every = ()
    bench.estop_ok = False
    bench.until(State.VERIFYING_OPEN).run_ms(1_000)
    assert bench.state.request.link_voltage_v == 5.0
    assert bench.at is State.VERIFYING_OPEN
    bench.hears(measures(20.0)).run_ms(20)
    assert bench.at is State.FAULT


def test_a_link_that_falls_slowly_is_no_weld_though_it_is_told_every_ten_seconds_only() -> None:
    bench = Wired("own", every=(measures(359.0),), precharge=UNMEASURED).run_ms(1_000)
    for seconds in range(1, 25):
        bench.every = (measures(max(3.0, 359.0 * 0.985**seconds)),)
        bench.run_ms(9_950)
    assert bench.at is State.STANDBY
    bench.every = (measures(3.0),)
    bench.run_ms(20_000)
    assert "link:" not in str(bench.state.withheld)


def test_a_link_that_stays_at_pack_voltage_locks_out() -> None:
    bench = Wired("own", every=(measures(358.0),)).run_ms(60_000)
    assert bench.at is State.LOCKED_OUT


# --- with an inverter at the other end ---


class House:
    """Pack, controller and inverter on their cables, the real loop between them."""

    def __init__(self, brand: str, profile: str) -> None:
        settings = Settings(
            "tesla_model3", "byd_can", "pack", PackSettings(CHEMISTRIES["nca"], 96, 20.0, 20.0), max_power_w=5_000.0,
            inverter_options={"profile": profile},
        )  # fmt: skip
        self.pack, self.inverter = TeslaPack(soc_pct=55.0, temp_c=21.0), BydCanInverter(brand)
        self.bus, self.cable, self.clock, self.events = MemoryCan(), MemoryCan(), HandClock(), MemoryEvents()
        ports = Ports(self.bus, MemoryRelays(), self.clock, self.events, MemoryRecords(), self.cable)
        self.loop = Loop(core.start(settings, BATTERIES["tesla_model3"], PROTOCOL), ports)
        self.most_w = 0.0

    def run_ms(self, duration_ms: int) -> House:
        for _ in range(duration_ms // TICK_MS):
            now_ms = self.clock.ms
            volts = self.pack.pack_v
            load_a = self.inverter.power_w / volts if self.pack.conducting else 0.0
            self.most_w = max(self.most_w, abs(load_a * volts))
            self.bus.inbox = self.pack.step(now_ms, load_a)
            link_v = volts if self.pack.conducting else 0.0
            self.cable.inbox = self.inverter.step(now_ms, self.cable.outbox, link_v, load_a)
            self.bus.outbox, self.cable.outbox = [], []
            self.loop.tick()
            self.pack.receive([frame._replace(at_ms=now_ms) for frame in self.bus.outbox], now_ms)
            self.clock.ms += TICK_MS
        return self

    def ask(self, kind: CommandKind) -> House:
        self.loop.commands.append(Command(kind))
        return self

    @property
    def at(self) -> State:
        return self.loop.state.supervisor.state


@pytest.mark.parametrize(("brand", "profile"), [("SUNGROW", "sungrow"), ("GOODWE", "goodwe")])
def test_it_is_greeted_closes_takes_power_and_lets_go(brand: str, profile: str) -> None:
    house = House(brand, profile).run_ms(5_000)
    assert house.inverter.works
    assert house.inverter.sees_ready is False
    house.inverter.wish_w = 9_000.0
    house.ask(CommandKind.ENABLE).run_ms(40_000)
    assert house.at is State.RUNNING
    assert house.inverter.sees_ready
    assert 4_500 < house.inverter.power_w <= 5_000
    house.ask(CommandKind.STOP).run_ms(7_000)
    assert house.at is State.STANDBY
    assert house.inverter.power_w == 0.0
    assert not house.pack.conducting
    assert Event.OPENED_UNDER_LOAD not in [notice.id for _, notice in house.events.seen]
    assert house.most_w <= 5_000
    assert not house.inverter.battery_lost


def test_an_inverter_that_reboots_is_told_who_we_are_again() -> None:
    house = House("SUNGROW", "sungrow").ask(CommandKind.ENABLE).run_ms(40_000)
    house.inverter.reboot(house.clock.ms)
    assert not house.inverter.works
    house.run_ms(25_000)
    assert house.inverter.works
    assert house.at is State.RUNNING


def test_a_pack_that_goes_dumb_makes_the_inverter_let_go() -> None:
    house = House("SUNGROW", "sungrow").ask(CommandKind.ENABLE).run_ms(40_000)
    house.pack.silence(*BATTERIES["tesla_model3"].rx)
    house.run_ms(1_500)
    assert (house.inverter.charge_limit_w, house.inverter.discharge_limit_w) == (0.0, 0.0)
    house.run_ms(45_000)
    assert house.inverter.battery_lost


def test_rubbish_between_its_frames_changes_nothing() -> None:
    clean, dirty = House("GOODWE", "goodwe"), House("GOODWE", "goodwe")
    dirty.inverter.garbage = True
    for house in (clean, dirty):
        house.ask(CommandKind.ENABLE).run_ms(25_000)
        assert house.at is State.RUNNING
    assert dirty.events.seen == clean.events.seen
