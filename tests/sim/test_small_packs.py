"""The small packs, pinned by the worked examples of the protocol notes and by the recording."""

from __future__ import annotations

import pytest

from sim.small_packs import KgShunt, VatShunt, WatchMon
from tests.shared import LOGS, needs_shared


def test_a_watchmon_says_what_the_note_says():
    pack = WatchMon(
        pack_v=362.4, current_a=-20.0, cells_v=(3.764, 3.780), temps_c=(21, 25), soc_pct=49.1, soh_pct=98.0,
        targets_v=(400.0, 300.0), targets_a=(25.0, 100.0), flags=(1, 1, 1),
    )  # fmt: skip
    device, cells, temperatures, bypass, shunt, state, limits, flags = (
        data.hex(" ").upper() for data in pack.payloads()
    )
    assert device == "9A 01 DB 00 40 E2 01 00"
    assert cells == "B4 0E C4 0E BC 0E 11 04"
    assert temperatures == "3D 41 3F 03 0E"
    assert bypass == "00 00 00"
    assert shunt == "28 0E 38 FF 2B FD"
    assert state == "2E 13 48 26 EB 01 E8 03"
    assert limits == "A0 0F FA 00 B8 0B E8 03"
    assert flags == "01 01 01 00 00 00"


def test_a_watchmon_broadcasts_in_its_period_at_its_base_with_its_kind_of_id():
    pack = WatchMon(base=0, extended=True, period_ms=500)
    assert pack.frames(490) == []
    assert [(f.id, f.extended, f.at_ms) for f in pack.frames(500)] == [(n, True, 500) for n in range(8)]


@pytest.mark.parametrize(
    ("box", "noted"),
    [
        (
            VatShunt(32, pack_v=52.40, current_a=-20.0, used_ah=12.345, uptime_s=3600, temp_c=24),
            "AA 1C 01 20 14 78 00 C8 00 0F FD C0 00 00 30 39 00 09 DE F4 00 00 0E 10 00 18 00 00 81",
        ),
        (
            VatShunt(32, pack_v=362.40, current_a=15.6, used_ah=21.5, uptime_s=86400, temp_c=31),
            "AA 1C 01 20 8D 90 FF 64 00 56 43 98 00 00 53 FC 00 76 E3 F0 00 01 51 80 00 1F 00 00 21",
        ),
    ],
)
def test_a_vat_answers_as_in_the_note(box: VatShunt, noted: str):
    said = box.hear(bytes.fromhex("AA 04 01 20 CF"))
    for part in (slice(0, 8), slice(12, 16), slice(20, 28)):  # its power and energy are rounded there
        assert said[part] == bytes.fromhex(noted)[part]
    assert said[28] == sum(said[:28]) % 256


@pytest.mark.parametrize("poll", ["AA 04 01 1B CA", "AA 04 20 20 D0", "AA 04 00 20 CE", "AA 04 02 20 D0"])
def test_a_vat_answers_no_other_address_no_wrong_sum_and_no_other_command(poll: str):
    assert VatShunt(address=32).hear(bytes.fromhex(poll)) == b""


def test_a_vat_that_sleeps_answers_once_it_was_woken():
    box = VatShunt(address=32, asleep=True)
    poll = bytes.fromhex("AA 04 01 20 CF")
    assert box.hear(poll) == b""
    assert box.hear(bytes.fromhex("AA 04 FF 20 CD")) == b""
    assert len(box.hear(poll[:2])) == 0
    assert len(box.hear(poll[2:])) == 29


def test_a_vat_counts_what_is_used():
    box = VatShunt(current_a=-36.0, used_ah=1.0)
    box.pass_ms(100_000)
    assert box.used_ah == pytest.approx(2.0)


@needs_shared
def test_a_kg_answers_as_recorded():
    recorded = (LOGS / "juntek-kgf-serial.txt").read_text().splitlines()[5]
    box = KgShunt(pack_v=53.66, current_a=54.10, left_ah=416.983, temp_c=28)
    assert box.hear(b":R50=1,2,1,\r\n").decode() == recorded + "\r\n"


def test_a_kg_answers_whole_polls_of_its_address_only():
    box = KgShunt(current_a=-10.3)
    assert box.hear(b":R50=2,2,1,\r\n") == b""
    assert box.hear(b":R50=1,2") == b""
    said = box.hear(b",1,\r\n")
    assert said.split(b",")[3] == b"1030"
    assert said.split(b",")[11] == b"0"
