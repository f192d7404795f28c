"""Run by the Python of a venv that has homeassistant 2024.3.3: {component: config} on stdin, what is wrong on stdout.

That release knows no device-based discovery, but its platforms' schemas are what a component has to pass once it is
expanded. They drop unknown keys silently: what is missing afterwards is told as well.
"""

import importlib
import json
import sys

import voluptuous
from homeassistant.components.mqtt.abbreviations import ABBREVIATIONS, DEVICE_ABBREVIATIONS, ORIGIN_ABBREVIATIONS


def spelt_out(config: dict, abbreviations: dict) -> dict:
    return {abbreviations.get(key, key): value for key, value in config.items()}


def judge(platform: str, config: dict) -> list[str]:
    told = spelt_out(config, ABBREVIATIONS)
    told["device"] = spelt_out(told["device"], DEVICE_ABBREVIATIONS)
    told["origin"] = spelt_out(told["origin"], ORIGIN_ABBREVIATIONS)
    schema = importlib.import_module(f"homeassistant.components.mqtt.{platform}").DISCOVERY_SCHEMA
    try:
        passed = schema(json.loads(json.dumps(told)))
    except voluptuous.Invalid as error:
        return [str(error)]
    return [f"{key} is unknown" for key in told if key not in passed]


if __name__ == "__main__":
    found = {name: judge(one["platform"], one["config"]) for name, one in json.load(sys.stdin).items()}
    print(json.dumps({name: wrong for name, wrong in found.items() if wrong}))
