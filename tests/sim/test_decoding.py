"""`log decode` and `log identify` on the inverter's side: who speaks, and every frame in words."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner

from controller.batteries.registry import BATTERIES
from controller.cli import app
from controller.inverters.registry import INVERTERS
from sim.decoding import Line, lines, text
from sim.gen24 import framed
from sim.identify import identify
from sim.recording import RecordingError, open_recording
from tests.shared import LOGS, needs_shared

POLL = "1503012C001886E1"
RTU = ("active", "ready", "standby", "standby-text")


def decoded(path: Path, name: str | None = None) -> list[Line]:
    return list(lines(path, name, BATTERIES, INVERTERS))


def rtu(folder: Path, *chunks: str | tuple[float, str]) -> Path:
    """A recording of these chunks, each 1 s after the one before unless it says when."""
    path = folder / "made.rtu"
    rows = [chunk if isinstance(chunk, tuple) else (float(n), chunk) for n, chunk in enumerate(chunks)]
    path.write_text("".join(f"({1_700_000_000 + s:.6f}) rs485 {data}\n" for s, data in rows))
    return path


def frame(body: str) -> str:
    return framed(bytes.fromhex(body)).hex().upper()


@needs_shared
@pytest.mark.parametrize("name", RTU)
def test_each_chunk_of_a_recorded_dialogue_is_understood(name: str) -> None:
    path = LOGS / f"byd-gen24-{name}.rtu"
    found = decoded(path)
    assert [line["data"] for line in found] == [row.split()[-1] for row in path.read_text().splitlines()]
    kinds = {str(line["name"]) for line in found}
    assert kinds <= {
        "read 301 x24", "answer 301 x24", "read 1001 x100", "answer 1001 x100", "read 402 x1", "answer 402 x1",
        "write 402 x1", "written 402 x1",
    }  # fmt: skip
    assert all(line["ok"] and line["unit"] == 21 for line in found)
    assert all("status" in line["signals"] for line in found if line["name"] == "answer 301 x24")  # type: ignore[operator]


@needs_shared
def test_the_answers_of_a_recorded_battery_have_names_and_units() -> None:
    line = decoded(LOGS / "byd-gen24-active.rtu")[1]
    signals = line["signals"]
    assert isinstance(signals, dict)
    assert (signals["status"], signals["soc_pct"], signals["outer_voltage_v"], signals["max_charge_w"]) == (
        3, 3.7, 204.3, 2500,
    )  # fmt: skip
    assert "soc_pct=3.7" in text(line)


def test_it_does_not_matter_how_a_listener_cut_the_stream(tmp_path: Path) -> None:
    answer = frame("150304534900 01")
    whole = decoded(rtu(tmp_path, (0.0, frame("150300640002")), (0.05, answer), (5.0, POLL)))
    data = frame("150300640002") + answer
    torn = decoded(rtu(tmp_path, (0.0, data[:6]), (0.01, data[6:22]), (0.02, data[22:]), (5.0, POLL)))
    assert [line["name"] for line in torn] == [line["name"] for line in whole]
    assert [line["name"] for line in whole] == ["read 101 x2", "answer 101 x2", "read 301 x24"]
    assert whole[1]["signals"] == {"101": 0x5349, "102": 1}


def test_half_a_frame_and_a_wrong_crc_are_refused_and_hide_nothing(tmp_path: Path) -> None:
    chunks = (POLL[:8], POLL[:-1] + "0", POLL, "00" + POLL, POLL[:6])
    found = decoded(rtu(tmp_path, *chunks))
    assert "".join(str(line["data"]) for line in found) == "".join(chunks)
    assert [(line["t_s"], line["name"]) for line in found if line["ok"]] == [
        (2.0, "read 301 x24"),
        (3.0, "read 301 x24"),
    ]
    assert all("refused" in text(line) for line in found if not line["ok"])


def test_what_goes_to_a_meter_is_told_by_number_only(tmp_path: Path) -> None:
    found = decoded(rtu(tmp_path, frame("2803012c0018"), frame("280330" + "00" * 48), POLL))
    assert [(line["unit"], line["name"]) for line in found] == [
        (40, "read 301 x24"), (40, "answer 301 x24"), (21, "read 301 x24"),
    ]  # fmt: skip
    assert "status" not in found[1]["signals"]  # type: ignore[operator]


@pytest.mark.parametrize(
    ("chunks", "names"),
    [
        (["150601a10fb2", "150601a10fb2"], ["write 418 x1", "written 418 x1"]),
        (["151001910001 0200ff", "151001910001"], ["write 402 x1", "written 402 x1"]),
        (
            ["151700c8000101910001 0200ff", "151702 2b33"],
            ["write 402 x1, read 201 x1", "answer 201 x1"],
        ),
        (["15030190000a", "158302", "150304 00010002"], ["read 401 x10", "exception 2", "unasked"]),
        (["1504012c0001", "15040 2 1234".replace(" ", "")], ["read 301 x1", "answer 301 x1"]),
        (["152b0e0100"], ["function 43"]),
    ],
)
def test_every_function_is_told(tmp_path: Path, chunks: list[str], names: list[str]) -> None:
    assert [line["name"] for line in decoded(rtu(tmp_path, *map(frame, chunks)))] == names


@needs_shared
def test_every_frame_between_a_battery_and_a_sungrow_has_a_name() -> None:
    found = decoded(LOGS / "byd-sungrow-discharge-30min.log")
    names = Counter(str(line["name"]) for line in found)
    assert all(line["ok"] for line in found)
    assert names["BYD_limits"] == 899
    assert names["INV_measured"] == 180
    assert "None" not in names


@needs_shared
@pytest.mark.parametrize(
    ("log", "protocol", "heard"),
    [
        *((f"byd-gen24-{name}.rtu", "byd_modbus", "heard: inverter and battery") for name in RTU),
        ("byd-sungrow-discharge-30min.log", "byd_can", "heard: inverter and battery"),
        ("goodwe-hello.log", "byd_can", "heard: inverter (GOODWE)"),
    ],
)
def test_who_speaks_on_an_inverters_side_is_told(log: str, protocol: str, heard: str) -> None:
    result = CliRunner().invoke(app, ["log", "identify", str(LOGS / log), "--json"])
    found = json.loads(result.stdout)
    assert found["battery"] is None
    assert protocol in found["partner"]
    assert found["partner"].endswith(heard)


def test_a_battery_that_nobody_answers_and_an_inverter_alone_are_told_apart(tmp_path: Path) -> None:
    alone = identify(open_recording(rtu(tmp_path, POLL)), BATTERIES)
    assert alone.partner is not None
    assert alone.partner.endswith("heard: inverter")
    battery = identify(open_recording(rtu(tmp_path, frame("15030453490001"))), BATTERIES)
    assert battery.partner is not None
    assert battery.partner.endswith("heard: battery")


def test_a_modbus_line_of_others_is_told_and_decoded_by_number(tmp_path: Path) -> None:
    path = rtu(tmp_path, frame("010300000001"), frame("0103020007"))
    found = identify(open_recording(path), BATTERIES)
    assert (found.inverter, found.partner) == (None, "Modbus RTU of nobody known here, units 1")
    assert [line["signals"] for line in decoded(path)] == [{}, {"1": 7}]


@needs_shared
@pytest.mark.parametrize(
    "log", ["leaf-ze1-62-startup-ignition.log", "tesla-m3-lfp-vehicle-bus-a.log", "pylon-lv-cubix100.log"]
)
def test_a_pack_or_a_whole_vehicle_is_not_taken_for_an_inverter(log: str) -> None:
    found = identify(open_recording(LOGS / log), {"tesla_model3": BATTERIES["tesla_model3"]})
    assert found.inverter is None
    assert found.partner is None


@needs_shared
@pytest.mark.parametrize(
    ("log", "name"),
    [
        ("byd-gen24-active.rtu", "byd_can"), ("byd-gen24-active.rtu", "tesla_model3"),
        ("goodwe-hello.log", "byd_modbus"), ("goodwe-hello.log", "tesla_model3"),
    ],
)  # fmt: skip
def test_a_name_that_cannot_be_in_it_is_one_clear_line(log: str, name: str) -> None:
    with pytest.raises(RecordingError, match=log):
        decoded(LOGS / log, name)


@needs_shared
def test_frames_of_nobody_known_are_told_without_a_meaning() -> None:
    found = decoded(LOGS / "pylon-lv-cubix100.log")
    assert len(found) == 16
    assert {(line["name"], line["ok"]) for line in found} == {(None, True)}
    assert text(found[0]).split() == ["0.000000", "351", "4802D007D007C001", "–"]


@needs_shared
def test_a_named_inverter_reads_any_recording_of_its_kind() -> None:
    assert decoded(LOGS / "goodwe-hello.log", "byd_can") == decoded(LOGS / "goodwe-hello.log")
    assert decoded(LOGS / "byd-gen24-ready.rtu", "byd_modbus") == decoded(LOGS / "byd-gen24-ready.rtu")
