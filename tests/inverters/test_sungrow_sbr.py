"""Sungrow's own battery against the note's examples; no recording of one is public."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from controller.inverters.registry import INVERTERS
from controller.inverters.sungrow_sbr import INIT, MODELS, PROTOCOL, RUNNING, modbus_answer, said
from controller.model.inverter import InverterStatus, InverterView
from controller.ports import CanFrame

TICK_MS = 10
ACTIVE = InverterStatus.ACTIVE
TESLA = InverterView(
    status=ACTIVE, soc_pct=49.1, soh_pct=88.3, energy_full_wh=60_000.0, max_charge_w=22.0 * 361.9,
    max_discharge_w=22.0 * 361.9, pack_voltage_v=361.9, outer_voltage_v=361.9, current_a=-12.3, power_w=-4451.0,
    temp_min_c=23.0, temp_max_c=27.0, cell_min_v=3.764, cell_max_v=3.778, design_max_v=402.5, design_min_v=242.1,
    max_power_w=10_000.0, charged_wh=None, discharged_wh=None,
)  # fmt: skip
SEARCHES = CanFrame(0x191, bytes.fromhex("0000010600090400"))
CLOCK = CanFrame(0x101, bytes.fromhex("4590 9A64 0000 0000".replace(" ", "")))
WORKS = CanFrame(0x108, bytes(8))


def told(can_id: int, view: InverterView = TESLA, model: str = "SBR224") -> list[str]:
    return [frame.data.hex(" ").upper() for frame in said(can_id, view, MODELS[model])]


class Cable:
    """The state alone, ticked by hand. said: (ms, frame) of everything it sent."""

    def __init__(self, view: InverterView = TESLA) -> None:
        self.view, self.now_ms = view, 0
        self.state = PROTOCOL.start({"model": "SBR224"})
        self.said: list[tuple[int, CanFrame]] = []

    def run_ms(self, duration_ms: int, *frames: CanFrame) -> list[CanFrame]:
        said: list[tuple[int, CanFrame]] = []
        for _ in range(duration_ms // TICK_MS):
            self.state = self.state.receive(frames, (), 0, self.now_ms)
            self.state, answer = self.state.answer(self.view, self.now_ms)
            assert len({frame.id for frame in answer.frames}) == len(answer.frames), "a CAN port keeps the newest only"
            said += [(self.now_ms, frame) for frame in answer.frames]
            frames, self.now_ms = (), self.now_ms + TICK_MS
        self.said += said
        return [frame for _, frame in said]


def ids(frames: Iterable[CanFrame]) -> list[int]:
    return [frame.id for frame in frames]


@pytest.mark.parametrize(
    ("can_id", "bytes_told"),
    [
        (0x701, "B9 0F 75 09 DC 00 DC 00"),
        (0x702, "2E 13 7E 22 14 73 60 EA"),
        (0x704, "23 0E 85 FF 23 0E 0E 01"),
        (0x504, "23 0E 7B 00 23 0E 0E 01"),
        (0x705, "02 00 01 EB 20 23 0E 00"),
        (0x706, "0E 01 E6 00 C2 0E B4 0E"),
        (0x707, "30 00 00 01 80 57 07 00"),
        (0x714, "05 01 94 93 11 02 08 93"),
        (0x500, "01 01 03 FF 00 01 00 31"),
    ],
)
def test_the_seeds_pack_becomes_the_notes_bytes(can_id: int, bytes_told: str) -> None:
    assert told(can_id) == [bytes_told]


def test_the_pages_of_70f_carry_the_models_power_and_each_modules_soc() -> None:
    pages = told(0x70F)
    assert pages[0] == "00 00 88 13 80 34 80 34"
    assert [page[:2] for page in pages] == [f"0{n}" for n in range(8)]
    assert pages[5:] == ["05 00 2E 13 2E 13 2E 13", "06 00 2E 13 2E 13 2E 13", "07 00 2E 13 00 00 00 00"]


def test_short_and_start_up_frames_repeat_the_long_ones() -> None:
    for low in (0x01, 0x02, 0x03, 0x04, 0x06, 0x07, 0x08, 0x0A, 0x0B, 0x0D, 0x0E, *range(0x13, 0x1F)):
        assert told(low) == told(0x700 + low)
    for low in (0x01, 0x02, 0x03, 0x05, 0x06):
        assert told(0x500 + low) == told(0x700 + low)


def test_each_module_has_its_serial_number() -> None:
    frames = [frame.data for frame in said(0x71F, TESLA, 3)]
    assert len(frames) == 9
    assert [frame[:2] for frame in frames[:4]] == [b"\x01\x01", b"\x01\x02", b"\x01\x03", b"\x02\x01"]
    assert b"".join(frame[2:] for frame in frames[6:]) == b"EM032D231012346" + b"3DF"


@pytest.mark.parametrize(
    ("name", "modules", "model_id"), [("SBR064", 2, 8422), ("SBR096", 3, 8423), ("SBR256", 8, 8428)]
)
def test_a_model_is_its_number_of_modules(name: str, modules: int, model_id: int) -> None:
    assert MODELS[name] == modules
    raw = said(0x705, TESLA, modules)[0].data
    assert int.from_bytes(raw[3:5], "little") == model_id


# --- ends ---


def end_stop(view: InverterView) -> tuple[int, int, int]:
    """Of 0x005, of 0x705, and the stop in the fourth page of 0x70F."""
    return said(0x005, view, 7)[0].data[1], said(0x705, view, 7)[0].data[1], said(0x70F, view, 7)[4].data[7]


def test_the_end_stop_is_told_in_005_alone() -> None:
    assert end_stop(TESLA) == (0, 0, 0)
    assert end_stop(TESLA._replace(max_charge_w=0.0)) == (1, 0, 2)
    assert end_stop(TESLA._replace(soc_pct=0.0)) == (2, 0, 0)
    assert end_stop(TESLA._replace(soc_pct=0.0, max_charge_w=0.0)) == (2, 0, 2)


@pytest.mark.parametrize("status", [status for status in InverterStatus if status is not ACTIVE])
def test_unless_active_both_currents_are_zero_and_it_stands_by(status: InverterStatus) -> None:
    view = TESLA._replace(status=status)
    for can_id in (0x701, 0x001, 0x501):
        assert said(can_id, view, 7)[0].data[4:] == bytes(4)
    assert said(0x705, view, 7)[0].data[0] == 1


def test_no_more_than_a_modules_30_amperes_are_offered() -> None:
    assert told(0x701, TESLA._replace(max_charge_w=50_000.0, max_discharge_w=50_000.0))[0][12:] == "2C 01 2C 01"


# --- phases ---


def test_it_speaks_first_and_each_second_in_init() -> None:
    cable = Cable()
    first = ids(cable.run_ms(1_000))
    assert sorted(first) == sorted([*INIT[0].ids, 0x008, 0x00A])
    assert first[:3] == [0x402, 0x500, 0x401]
    assert ids(cable.run_ms(1_000)) == first
    assert not {can_id for can_id in first if can_id >= 0x700}


def test_it_runs_once_the_inverter_works_and_starts_anew_when_that_searches() -> None:
    cable = Cable()
    cable.run_ms(500)
    run = ids(cable.run_ms(1_000, WORKS))
    assert set(run) == {can_id for batch in RUNNING for can_id in batch.ids}
    assert run.count(0x70F) == 8
    for frame in (SEARCHES, CLOCK):
        assert max(ids(cable.run_ms(900, frame))) < 0x700
        assert max(ids(cable.run_ms(900, WORKS))) >= 0x700


def test_the_batches_of_a_second_begin_20_ms_apart_and_follow_their_order() -> None:
    cable = Cable()
    cable.run_ms(10_000, WORKS)
    for can_id, begin_ms in ((0x402, 0), (0x000, 20), (0x700, 40)):
        assert next(at_ms for at_ms, frame in cable.said if frame.id == can_id) == begin_ms
    second = [frame.id for at_ms, frame in cable.said if 2_000 <= at_ms < 3_000]
    assert second == [
        *RUNNING[0].ids, *RUNNING[1].ids, *RUNNING[2].ids, *[0x70F] * 8, *RUNNING[3].ids[1:], *RUNNING[4].ids,
    ]  # fmt: skip


def test_names_come_every_10_and_serial_numbers_every_60_seconds() -> None:
    cable = Cable()
    cable.run_ms(130_000, WORKS)
    said = ids(frame for _, frame in cable.said)
    assert said.count(0x707) == 13
    assert said.count(0x71F) == 3 * 21


# --- safety ---


def test_bad_news_is_told_at_once_and_nothing_older_follows_it() -> None:
    cable = Cable()
    cable.run_ms(2_090, WORKS)  # the pages of 0x70F are on their way, 0x501 behind them
    cable.view = TESLA._replace(status=InverterStatus.STANDBY)
    said = cable.run_ms(10)
    assert ids(said)[:4] == [0x001, 0x701, 0x501, 0x005]
    said += cable.run_ms(900)
    assert {frame.data[4:] for frame in said if frame.id in (0x001, 0x501, 0x701)} == {bytes(4)}


@pytest.mark.parametrize("what", ["soc_pct", "pack_voltage_v", "cell_min_v", "temp_max_c", "energy_full_wh"])
def test_what_is_unknown_is_never_told(what: str) -> None:
    cable = Cable(TESLA._replace(**{what: None}))
    assert cable.run_ms(20_000, WORKS) == []
    cable = Cable()
    cable.run_ms(5_000, WORKS)
    cable.view = TESLA._replace(**{what: None})
    blind = cable.run_ms(10_000)
    assert {frame.data[4:] for frame in blind} == {bytes(4)}
    assert set(ids(blind)) <= {0x001, 0x501, 0x701}
    assert cable.run_ms(30_000) == []


def test_foreign_and_torn_frames_are_no_sign_of_life() -> None:
    state = PROTOCOL.start()
    for frame in (CanFrame(0x108, bytes(7)), CanFrame(0x108, bytes(8), 0, True), CanFrame(0x110, bytes(8))):
        state = state.receive([frame], (), 0, 10)
    assert state.request(10).heard_at_ms is None
    assert not state.running


# --- Modbus inside CAN ---


def test_it_answers_the_notes_questions() -> None:
    def answered(request: str) -> list[str]:
        return [frame.data.hex(" ").upper() for frame in modbus_answer(bytes.fromhex(request))]

    assert answered("01 04 4D E2 00 02 C6 91") == ["01 04 04 01 F4 00 00 BB", "8A"]
    assert answered("01 04 4D E2 00 06 C7 52") == ["01 04 0C 01 F4 00 00 01", "2C 00 00 00 C8 00 00 D3", "B7"]
    assert answered("01 04 4D E2 00 06 C7 53") == []
    assert answered("02 04 4D E2 00 02 C6 91") == []


def test_the_pieces_of_an_answer_go_one_a_tick() -> None:
    cable = Cable()
    cable.run_ms(500, WORKS)
    said = cable.run_ms(300, CanFrame(0x1E0, bytes.fromhex("01044DE20006C752")))
    assert [frame.data.hex().upper() for frame in said if frame.id == 0x1E0] == [
        "01040C01F4000001", "2C000000C80000D3", "B7",
    ]  # fmt: skip


def test_a_flood_of_questions_is_answered_once_and_nothing_piles_up() -> None:
    cable = Cable()
    cable.run_ms(500, WORKS)
    question = CanFrame(0x1E0, bytes.fromhex("01044DE20006C752"))
    said = cable.run_ms(300, *[question] * 500)
    assert [frame.data[0] for frame in said if frame.id == 0x1E0] == [0x01, 0x2C, 0xB7]
    assert len(cable.state.waiting) < 30


# --- the row ---


def test_every_frame_it_shows_is_on_its_list_and_named() -> None:
    frames = PROTOCOL.start().image(TESLA)
    assert {frame.id for frame in frames} <= PROTOCOL.tx
    assert all(len(frame.data) == 8 and PROTOCOL.explain_frame(frame) for frame in frames)
    [(name, values)] = PROTOCOL.explain_frame(frames[ids(frames).index(0x701)])
    assert (name, values["max_charge_a"]) == ("SBR_limits", pytest.approx(22.0))
    assert PROTOCOL.explain_frame(CanFrame(0x104, b"\x00SUNGROW"))[0][1]["maker_text"] == "SUNGROW"


def test_it_is_in_the_registry_with_the_bus_speed_of_the_note() -> None:
    assert INVERTERS["sungrow_sbr"] is PROTOCOL
    assert (PROTOCOL.bitrate, PROTOCOL.asks, PROTOCOL.zero_ms, PROTOCOL.silent_ms) == (250_000, False, 35_000, 180_000)
