"""The page of a run: complete in itself, harmless whatever the texts say, and honest about what was unknown."""

import json
import math
import random
import re
import shutil
import subprocess
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.plot import PlotData, PlotRecorder, page, unit_of

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
VOID = {"meta", "link", "br", "hr", "img", "input"}
NASTY = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&\u2028"


def run(**changes: object) -> PlotData:
    fields: dict[str, object] = {
        "title": "drive.log",
        "subtitle": "Tesla Model 3, BYD Modbus",
        "duration_s": 30.0,
        "states": [(0.0, "STARTING", "boot"), (3.0, "RUNNING", "recorded-closed"), (20.0, "FAULT", "faulted")],
        "events": [
            {"t_s": 11.3, "id": "cell-data-stale", "severity": "limit", "detail": "1.3 s", "text": "Cells are old."}
        ],
        "series": {
            "pack_voltage_v": ("V", [(0.0, 356.12), (1.0, None), (2.0, 357.0), (30.0, 358.0)]),
            "soc_pct": ("%", [(0.0, None), (30.0, None)]),
            "fan_rpm": ("rpm", [(0.0, 100.0)]),
        },
        "cells_v": [3.7, None, 3.712],
        "inverter_image": {"101": [21321, 1], "401": [1]},
        "notes": ["A note."],
        "badges": ["synthetic recording"],
        "bands": {"contactor_state": [(0.0, None), (3.0, "CLOSED")], "hvil_ok": [(0.0, None)]},
    }
    return PlotData(**(fields | changes))  # type: ignore[arg-type]


class Reader(HTMLParser):
    """Fails where elements do not nest; collects what they say."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.said = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.said += data


def numbers(text: str) -> dict[str, list[dict[str, object]]]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def line(text: str, label: str) -> list[tuple[float, float | None]]:
    """The points of a series as the page holds them."""
    for chart in numbers(text)["charts"]:
        for series in chart["series"]:
            if series["label"] == label:
                times = [sum(series["t"][: i + 1]) / 1000 for i in range(len(series["t"]))]
                return list(zip(times, series["v"], strict=True))
    raise AssertionError(label)


# ---- the page -------------------------------------------------------------------------------------------------------


def test_the_page_needs_nothing_from_outside():
    text = page(run())
    assert re.findall(r"https?:|//[a-z]|@import|url\(|\ssrc=|<link(?! rel=\"icon\" href=\"data:,\")", text) == []
    assert "default-src 'none'" in text


def test_the_page_is_whole_and_says_what_happened():
    read = Reader(page(run()))
    words = (
        "drive.log|Tesla Model 3, BYD Modbus|synthetic recording|FAULT|30.00 s|recorded-closed|cell-data-stale|limit|"
        "Cells are old.|1.3 s|A note.|contactors, by the pack|21321 1|3 cells at the end, 3.700 to 3.712 V|"
        "spread 12 mV|"
        "1 unknown|Never known: state of charge, interlock loop closed.|Fan"
    )
    for word in words.split("|"):
        assert word in read.said, word
    assert read.tags.count("script") == 2


def test_equal_data_gives_an_equal_page():
    assert page(run()) == page(run())


def test_a_page_of_nothing_is_a_page():
    Reader(page(PlotData("empty", "", 0.0)))


def test_no_text_can_do_harm():
    text = page(
        run(
            title=NASTY,
            subtitle=NASTY,
            states=[(0.0, NASTY, NASTY)],
            events=[{"t_s": NASTY, "id": NASTY, "severity": NASTY, "detail": NASTY, "text": NASTY}],
            series={NASTY: (NASTY, [(0.0, 1.0)]), NASTY + "_v": ("V", [(0.0, None)])},
            inverter_image={NASTY: NASTY},
            notes=[NASTY],
            badges=[NASTY],
            bands={NASTY: [(0.0, NASTY)]},
        )
    )
    read = Reader(text)
    assert read.tags.count("script") == 2
    assert "img" not in read.tags
    assert not [name for name, _ in read.attributes if name.startswith("on")]
    assert NASTY in read.said
    assert numbers(text)["bands"][1][0][1] == NASTY


def test_an_unknown_value_is_a_gap_and_never_zero():
    assert line(page(run()), "pack") == [(0, 356.12), (1, None), (2, 357.0), (30, 358.0)]
    assert numbers(page(run()))["cells"] == [3.7, None, 3.712]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_none_is_unknown(value):
    text = page(run(series={"pack_voltage_v": ("V", [(0.0, 356.0), (1.0, value)])}, cells_v=[3.7, value]))
    assert line(text, "pack")[1] == (1, None)
    assert numbers(text)["cells"] == [3.7, None]


def test_of_very_many_events_the_gravest_are_shown():
    many = [{"t_s": k, "id": f"e{k}", "severity": "warning"} for k in range(3000)]
    many[2500] = {"t_s": 2500, "id": "grave-one", "severity": "open"}
    read = Reader(page(run(events=many)))
    assert "grave-one" in read.said
    assert "2000 more" in read.said


def test_a_day_fits_in_three_megabytes():
    dice = random.Random(5)
    series = {
        f"thing{k}_v": ("V", [(t * 4.0, 300 + 100 * dice.random()) for t in range(86400 // 4)]) for k in range(20)
    }
    assert len(page(run(series=series, duration_s=86400.0))) < 3_000_000


# ---- the recorder ---------------------------------------------------------------------------------------------------

samples = st.lists(
    st.tuples(st.integers(1, 5000), st.one_of(st.none(), st.floats(-500, 500))), min_size=1, max_size=300
)


def recorded(found: list[tuple[int, float | None]], buckets: int) -> tuple[list, list]:
    """(what was put in, what came out), times in ms."""
    recorder, now_ms, put = PlotRecorder(buckets), 0, []
    for after_ms, value in found:
        now_ms += after_ms
        put.append((now_ms, value))
        recorder.add(now_ms / 1000, {"pack_voltage_v": value})
    unit, points = recorder.series()["pack_voltage_v"]
    assert unit == "V"
    return put, [(round(t * 1000), value) for t, value in points]


@given(samples)
def test_a_short_run_is_kept_as_it_was(found):
    put, got = recorded([(10 * after, value) for after, value in found], 300)
    assert got == put


@given(samples, st.integers(2, 40))
def test_thinning_keeps_every_spike_and_joins_nothing_across_a_gap(found, buckets):
    put, got = recorded(found, buckets)
    known = [value for _, value in put if value is not None]
    kept = [value for _, value in got if value is not None]
    assert len(got) <= 8 * buckets
    assert {point for point in got if point[1] is not None} <= set(put)
    assert [t for t, _ in got] == sorted(t for t, _ in got)
    if known:
        assert (min(kept), max(kept)) == (min(known), max(known))
    for (begin, first), (end, last) in pairwise(got):
        if first is not None and last is not None:
            assert not [t for t, value in put if value is None and begin < t < end]


def test_the_spread_of_the_cells_and_words_are_recorded_too():
    recorder = PlotRecorder()
    for k, (low, closed) in enumerate([(3.7, "OPEN"), (None, "OPEN"), (3.69, None), (3.69, "CLOSED")]):
        recorder.add(k, {"cell_min_v": low, "cell_max_v": 3.71, "contactor_state": closed, "hvil_ok": True})
    spread = recorder.series()["cell_spread_mv"]
    assert spread[0] == "mV"
    assert [None if v is None else round(v) for _, v in spread[1]] == [10, None, 20, 20]
    assert recorder.bands() == {
        "contactor_state": [(0, "OPEN"), (2, None), (3, "CLOSED")],
        "hvil_ok": [(0, "yes")],
    }


def test_units_are_read_from_names():
    assert [unit_of(name) for name in ("pack_voltage_v", "soc_pct", "temp_min_c", "hvil_ok")] == ["V", "%", "°C", ""]


# ---- in a browser ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")
def test_a_browser_draws_lines_with_gaps(tmp_path):
    (tmp_path / "page.html").write_text(page(run(title=NASTY)), encoding="utf-8")
    switches = (
        "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync --virtual-time-budget=2000 --dump-dom"
    )
    command = [CHROMIUM, *switches.split(), f"--user-data-dir={tmp_path / 'profile'}", f"file://{tmp_path}/page.html"]
    drawn = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    paths = re.findall(r'<path d="([^"]*)" class="line', drawn)
    assert len(paths) == 2  # the voltage, and the fan's single dot
    assert paths[0].count("M") == 2
    assert "h0M" in paths[0]
    assert paths[1].endswith("h0")
    assert drawn.count('class="state ') == 4
    assert "356.12 … 358.00" in drawn
