"""Each component, expanded as Home Assistant does it, against the schemas of homeassistant 2024.3.3.

It is the last release for Python 3.11 and gets a venv of its own: what it pins must not touch ours.
$PACKWARDEN_HA_VENV names one that is there already.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from controller.gateway.home_assistant import COILS, About, discovery
from controller.gateway.topics import Names

pytestmark = pytest.mark.slow
RELEASE = "homeassistant==2024.3.3"
SHARED = {"avty_t": "availability_topic"}
"""Options of the device that each component inherits (SHARED_OPTIONS of home-assistant/core, mqtt/schemas.py)."""
LATER = {"options"}
"""`options` of an enum sensor came in 2024.9 (home-assistant/core#123248), before device-based discovery."""


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python that has it."""
    if given := os.environ.get("PACKWARDEN_HA_VENV"):
        return Path(given) / "bin" / "python"
    if sys.version_info[:2] not in ((3, 11), (3, 12)):
        pytest.skip(f"{RELEASE} needs Python 3.11 or 3.12")
    folder = tmp_path_factory.mktemp("home-assistant")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    installed = subprocess.run(
        [folder / "bin" / "pip", "install", "--quiet", RELEASE], capture_output=True, text=True, check=False
    )
    if installed.returncode:
        pytest.skip(f"{RELEASE} cannot be installed here: {installed.stderr.strip().splitlines()[-1]}")
    return folder / "bin" / "python"


def expanded(payload: str) -> dict[str, Any]:
    """Component → platform and config, as discovery.py of home-assistant/core splits a device's message."""
    told = json.loads(payload)
    shared = {long: told[short] for short, long in SHARED.items()}
    return {
        name: {
            "platform": component.pop("p"),
            "config": {**shared, **component, "device": told["dev"], "origin": told["o"]},
        }
        for name, component in told["cmps"].items()
    }  # fmt: skip


def judged(python: Path, components: dict[str, Any]) -> dict[str, list[str]]:
    judge = Path(__file__).with_name("judge.py")
    done = subprocess.run([python, judge], input=json.dumps(components), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("wiring", COILS)
def test_each_component_passes_the_schema_of_its_platform(python: Path, wiring: str):
    about = About("Tesla Model 3", wiring, 96, True, 5000.0, "0.1.0")
    found = judged(python, expanded(discovery(Names("packwarden", "home", "pack"), "homeassistant", about).payload))
    wrong = {name: [flaw for flaw in flaws if flaw not in {f"{key} is unknown" for key in LATER}]
             for name, flaws in found.items()}  # fmt: skip
    assert {name: flaws for name, flaws in wrong.items() if flaws} == {}


@pytest.mark.parametrize(("change", "flaw"), [
    ({"dev_cla": "wattage"}, "device_class"),
    ({"stat_cla": "sometimes"}, "state_class"),
    ({"stat_t": "a/#/b"}, "state_topic"),
    ({"val_tpl": "{{ value_json."}, "value_template"),
    ({"ent_cat": "interesting"}, "entity_category"),
    ({"unit": "W"}, "unit is unknown"),
])  # fmt: skip
def test_the_judge_finds_what_is_wrong(python: Path, change: dict[str, str], flaw: str):
    about = About("Tesla Model 3", "pack", 0, True, 5000.0, "0.1.0")
    components = expanded(discovery(Names("packwarden", "home", "pack"), "homeassistant", about).payload)
    components["battery_power"]["config"].update(change)
    found = judged(python, {"battery_power": components["battery_power"]})
    assert flaw in found["battery_power"][0]
