"""The simulated inverters against the worked examples of the control note, byte for byte over TCP."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from sim.tcp_inverters import FroniusSim, GoodWeSim, SungrowSim, TcpInverter

Talk = Callable[[str], Awaitable[str]]


def told(inverter: TcpInverter, story: Callable[[Talk], Awaitable[None]]) -> None:
    """Run a story that talks to the inverter in hex; "" is the answer when it hangs up."""

    async def run() -> None:
        async with inverter:
            reader, writer = await asyncio.open_connection(inverter.host, inverter.port)

            async def talk(frame: str) -> str:
                writer.write(bytes.fromhex(frame))
                try:
                    head = await reader.readexactly(6)
                    return (head + await reader.readexactly(int.from_bytes(head[4:], "big"))).hex(" ").upper()
                except (asyncio.IncompleteReadError, ConnectionError):
                    return ""

            await story(talk)
            writer.close()

    asyncio.run(run())


def test_a_sungrow_answers_the_recorded_soc_request_and_charges_as_the_examples_write_it() -> None:
    sim = SungrowSim()

    async def story(talk: Talk) -> None:
        assert await talk("00 2D 00 00 00 06 01 04 32 DE 00 01") == "00 2D 00 00 00 05 01 04 02 03 DC"
        for frame in ("00 01 00 00 00 06 01 06 32 FB 0B B8", "00 02 00 00 00 06 01 06 32 FA 00 AA"):
            assert await talk(frame) == frame
        assert sim.battery_w == 0
        await talk("00 03 00 00 00 06 01 06 32 F9 00 02")
        assert sim.battery_w == 3000
        assert (await talk("00 04 00 00 00 06 01 04 14 5D 00 02"))[-11:] == "F4 48 FF FF"
        await talk("00 05 00 00 00 06 01 06 32 FA 00 CC")
        assert sim.battery_w == 0

    told(sim, story)


def test_a_sungrow_in_mode_3_falls_back_when_its_heartbeat_runs_out_and_in_mode_2_it_does_not() -> None:
    sim = SungrowSim()

    async def story(talk: Talk) -> None:
        await talk("00 06 00 00 00 06 01 06 33 17 00 1E")
        await talk("00 07 00 00 00 06 01 06 32 F9 00 03")
        sim.pass_s(29)
        assert sim.holding[13049] == 3
        sim.pass_s(1)
        assert sim.holding[13049] == 0
        await talk("00 08 00 00 00 06 01 06 32 F9 00 02")
        sim.pass_s(100_000)
        assert sim.holding[13049] == 2

    told(sim, story)


@pytest.mark.parametrize(("floating", "shift"), [(False, 0), (True, 10)])
def test_a_gen24_has_its_storage_model_where_the_note_says(floating: bool, shift: int) -> None:
    sim = FroniusSim(floating)

    async def story(talk: Talk) -> None:
        assert (await talk("00 01 00 00 00 06 01 03 9C 40 00 02"))[-11:] == "53 75 6E 53"
        header = (40343 + shift).to_bytes(2, "big").hex()
        assert (await talk(f"00 02 00 00 00 06 01 03 {header} 00 02"))[-11:] == "00 7C 00 18"

    told(sim, story)
    assert (sim.at, sim.mppt) == (40345 + shift, 40255 + shift)


def test_a_gen24_charges_with_half_its_power_as_the_example_writes_it_and_drops_it_in_time() -> None:
    sim = FroniusSim()

    async def story(talk: Talk) -> None:
        await talk("00 03 00 00 00 06 01 06 9D A6 01 2C")
        answer = await talk("00 01 00 00 00 0B 01 10 9D A3 00 02 04 EC 78 27 10")
        assert answer == "00 01 00 00 00 06 01 10 9D A3 00 02"
        assert sim.battery_w == 0
        await talk("00 02 00 00 00 06 01 06 9D 9C 00 02")
        assert sim.battery_w == round(11059 / 2)
        sim.pass_s(299)
        assert sim.battery_w > 0
        sim.pass_s(1)
        assert sim.battery_w == 0

    told(sim, story)


def test_a_goodwe_takes_both_registers_in_one_request_and_tells_the_flow_high_word_first() -> None:
    sim = GoodWeSim()

    async def story(talk: Talk) -> None:
        await talk("00 01 00 00 00 0B F7 10 B9 97 00 02 04 00 0C 11 62")
        assert (await talk("00 02 00 00 00 06 F7 03 89 6C 00 05"))[27:] == "0E 23 00 00 00 00 11 62 00 02"
        await talk("00 03 00 00 00 0B F7 10 B9 97 00 02 04 00 0B 11 62")
        assert (await talk("00 04 00 00 00 06 F7 03 89 6C 00 05"))[27:] == "0E 23 00 00 FF FF EE 9E 00 03"

    told(sim, story)


def test_it_can_misbehave() -> None:
    sim = SungrowSim()
    sim.broken.add(13049)
    sim.stuck.add(13051)

    async def story(talk: Talk) -> None:
        assert (await talk("00 01 00 00 00 06 01 06 32 F9 00 02"))[-5:] == "86 04"
        assert (await talk("00 01 00 00 00 06 01 03 00 09 00 01"))[-5:] == "83 02"
        assert (await talk("00 01 00 00 00 06 02 03 32 F9 00 01"))[-5:] == "83 0B"
        await talk("00 01 00 00 00 06 01 06 32 FB 0B B8")
        assert (sim.holding[13051], sim.writes) == (0, [(13051, (3000,))])
        sim.deaf = True
        assert await talk("00 01 00 00 00 06 01 03 32 F9 00 01") == ""

    told(sim, story)
