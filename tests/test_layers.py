"""The import table of the project, executed: data flows one way, imports point inwards."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("statecharts", "controller", "drivers", "sim")
OUTWARD = {
    "controller.__main__", "controller.cli", "controller.cli_bench", "controller.cli_chart", "controller.cli_config",
    "controller.cli_doctor", "controller.cli_gateway", "controller.cli_incident", "controller.cli_live",
    "controller.catalogue", "controller.cli_log", "controller.cli_sim", "controller.coils", "controller.link",
    "controller.live", "controller.live_view", "controller.protocol_pages", "controller.reference", "controller.run",
    "controller.safety_report", "controller.shown", "controller.story", "controller.wiring",
}  # fmt: skip
CORE_MODEL = "controller.model"

# a module, or every module below a package → what of ours it may import (prefixes)
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "statecharts.chart": (),
    "statecharts.supervisor": ("statecharts.chart",),
    "statecharts.shadow": ("statecharts.chart", "statecharts.supervisor"),
    "statecharts.runner": ("statecharts.chart",),
    "statecharts.render": ("statecharts.chart",),
    "statecharts.explore": ("statecharts.chart",),
    "statecharts.interlocks": ("statecharts.chart", "statecharts.explore", "statecharts.supervisor"),
    "controller.model": ("controller.model",),
    "controller.codec": ("controller.codec",),
    "controller.schedule": (),
    "controller.ports": ("controller.model.events", "statecharts.supervisor"),
    "controller.batteries": (
        "controller.batteries", "controller.model", "controller.codec", "controller.ports", "controller.schedule",
        "statecharts.supervisor",
    ),
    "controller.inverters": (
        "controller.inverters", "controller.model", "controller.codec", "controller.ports", "controller.schedule",
        "statecharts.supervisor",
    ),
    "controller.hazards": ("controller.model.events",),
    "controller.version": (),
    "controller.console": (),
    "controller.safety.situation": ("controller.model", "statecharts.supervisor"),
    "controller.safety.rules": ("controller.model", "controller.safety.situation", "statecharts.supervisor"),
    "controller.safety.monitor": (
        "controller.model", "controller.safety.situation", "controller.safety.rules", "statecharts.supervisor",
    ),
    "controller.safety.envelope": ("controller.model", "controller.safety.monitor", "statecharts.supervisor"),
    "controller.safety.gate": ("controller.model", "controller.ports", "statecharts.supervisor"),
    "controller.precharge": ("controller.model", "controller.safety.situation", "statecharts.supervisor"),
    "controller.weld": ("controller.model", "controller.safety.situation", "statecharts.supervisor"),
    "controller.watch": ("controller.model", "controller.ports", "statecharts.supervisor"),
    "controller.supervisor": (
        "controller.model", "controller.safety.situation", "controller.safety.monitor", "controller.precharge",
        "controller.weld", "statecharts",
    ),
    "controller.core": (
        "controller.model", "controller.ports", "controller.batteries.base", "controller.inverters.base",
        "controller.safety", "controller.supervisor", "controller.watch", "controller.weld",
        "statecharts.chart", "statecharts.supervisor",
    ),
    "controller.loop": (
        "controller.core", "controller.ports", "controller.model.events", "statecharts.supervisor",
    ),
    "controller.trace": (
        "controller.core", "controller.model", "controller.ports", "statecharts.supervisor",
    ),
    "controller.blackbox": (
        "controller.core", "controller.model", "controller.ports", "controller.codec", "controller.batteries",
        "controller.inverters", "controller.safety", "controller.supervisor", "controller.precharge",
        "controller.schedule", "controller.watch", "controller.weld", "controller.trace", "statecharts",
    ),
    "controller.incident": ("controller.blackbox", "controller.safety.monitor"),
    "controller.messages": ("controller.ports",),
    "controller.client": ("controller.messages",),
    "controller.status": (
        "controller.core", "controller.model", "controller.safety.monitor", "controller.supervisor",
        "statecharts.supervisor",
    ),
    "controller.doctor": ("controller.batteries.base", "controller.config", "controller.inverters.base"),
    "controller.config_keys": ("controller.model",),
    "controller.config_places": ("controller.config_keys",),
    "controller.config_check": ("controller.model", "controller.config_keys", "controller.config_places"),
    "controller.config": (
        "controller.model", "controller.config_keys", "controller.config_check", "controller.config_file",
        "controller.config_places",
    ),
    "controller.config_file": ("controller.config_check",),
    "controller.config_proposal": (
        "controller.config", "controller.config_check", "controller.config_file", "controller.config_keys",
    ),
    "controller.gateway": (
        "controller.gateway", "controller.model", "controller.ports", "controller.messages", "controller.client",
        "controller.codec.candump", "controller.config", "controller.config_check", "controller.config_file",
        "controller.config_keys", "controller.config_proposal", "controller.console", "drivers.can_ear",
        "drivers.systemd", "statecharts.supervisor",
    ),
    "controller.gateway.pages": ("controller.gateway", "controller.model", "controller.config", "statecharts"),
    "drivers": ("controller.ports", "controller.model.events", "statecharts.supervisor"),
    "drivers.can_bus": ("controller.ports", "controller.model.events", "drivers.reopening"),
    "drivers.serial_lines": ("controller.ports", "drivers.reopening"),
    "drivers.modbus_master": ("controller.ports", "controller.codec.rtu"),
    "drivers.modbus_relays": ("controller.ports", "drivers.modbus_master", "statecharts.supervisor"),
    "drivers.modbus_link": ("controller.ports", "drivers.modbus_master"),
    "drivers.modbus_server": ("controller.ports", "controller.codec"),
    "sim.gen24": (),
    "sim.tesla_pack": ("controller.ports",),
    "sim.leaf_pack": ("controller.ports",),
    "sim.byd_can_inverter": ("controller.ports",),
    "sim.small_packs": ("controller.ports",),
    "sim.plant": ("controller.ports", "statecharts.supervisor"),
    "sim.michael": ("controller.ports", "sim.tesla_pack"),
    "sim.plot": ("controller.model",),
    "sim.invariants": (
        "controller.core", "controller.model", "controller.ports", "controller.safety", "controller.supervisor",
        "statecharts.supervisor",
    ),
    "sim.garage": ("controller", "drivers.memory", "drivers.modbus_server", "sim", "statecharts"),
    "sim.plain_pack": (
        "controller.batteries.base", "controller.model", "controller.ports", "statecharts.supervisor",
    ),
    "sim": ("controller", "drivers.memory", "sim", "statecharts"),
}  # fmt: skip

PAGES = {
    f"controller.gateway.pages.{name}"
    for name in ("bus", "cells", "events", "frame", "history", "inverter", "machine", "now", "papers", "recordings")
}
ONLY_IN = {
    "transitions": {"statecharts.runner"},
    "distributed": {"sim.lives"},
    "cantools": {"controller.codec.dbc", "controller.protocol_pages"},
    "can": {"sim.recording", "sim.vcan", "drivers.can_bus", "drivers.can_ear"},
    "serial": {"drivers.serial_lines"},
    "gpiozero": {"drivers.gpio"},
    "aiomqtt": {"controller.gateway.mqtt"},
    "prometheus_client": {"controller.gateway.metrics"},
    "nicegui": {"controller.gateway.web", *PAGES},
    "fastapi": {"controller.gateway.web", *PAGES},
    "uvicorn": {"controller.gateway.web"},
    "typer": {
        "controller.cli",
        "controller.cli_bench",
        "controller.cli_chart",
        "controller.cli_config",
        "controller.cli_log",
        "controller.console",
        "controller.cli_gateway",
        "controller.cli_live",
        "controller.cli_incident",
        "controller.cli_doctor",
        "controller.cli_sim",
        "controller.gateway.commands",
        "controller.gateway.owner",
    },
    "pymodbus": {"controller.gateway.modbus_tcp", "drivers.modbus_server"},
    "tomlkit": {"controller.config", "controller.config_proposal", "controller.config_keys", "controller.config_check"},
    "pydantic": {"controller.config", "controller.config_keys", "controller.config_check"},
}
IMPURE = {"time", "random", "datetime", "os", "socket", "threading", "logging", "uuid", "secrets", "asyncio"}
PURE = ("statecharts.", "controller.model", "controller.codec", "controller.batteries", "controller.inverters",
        "controller.safety", "controller.core", "controller.supervisor", "controller.precharge", "controller.weld",
        "controller.watch", "controller.schedule", "controller.ports", "controller.loop",
        "controller.messages", "controller.status", "controller.trace", "controller.blackbox",
        "controller.incident")  # fmt: skip
IMPURE_ALLOWED = {"statecharts.render"}  # runs dot


def modules() -> dict[str, ast.Module]:
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = ast.parse(path.read_text(encoding="utf-8"))
    return found


MODULES = modules()


def imports(tree: ast.Module) -> set[str]:
    """Every module imported, anywhere in the file; `from a import b` is a.b where that is a module of ours."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                names.add(full if full in MODULES else str(node.module))
    return names


def rule_for(module: str) -> tuple[str, ...]:
    """The most specific row of the table."""
    rows = [name for name in MAY_IMPORT if module == name or module.startswith(f"{name}.")]
    assert rows, f"{module} has no row in the import table"
    return MAY_IMPORT[max(rows, key=len)]


@pytest.mark.parametrize("module", [m for m in MODULES if m not in PACKAGES and m not in OUTWARD])
def test_imports_point_inwards(module: str):
    if not MODULES[module].body:
        return
    allowed = rule_for(module)
    ours = {name for name in imports(MODULES[module]) if name.split(".")[0] in PACKAGES}
    wrong = {n for n in ours if not any(n == a or n.startswith(f"{a}.") for a in allowed)}
    assert not wrong


@pytest.mark.parametrize("module", [m for m in MODULES if m not in PACKAGES])
def test_nobody_imports_what_looks_outwards(module: str):
    looks_outwards = {n for n in imports(MODULES[module]) if n in OUTWARD}
    assert module in OUTWARD or not looks_outwards


@pytest.mark.parametrize("module", [m for m in MODULES if m not in OUTWARD and not m.startswith("controller.gateway")])
def test_the_core_never_imports_the_gateway(module: str):
    assert not {name for name in imports(MODULES[module]) if name.startswith("controller.gateway")}


@pytest.mark.parametrize("library", ONLY_IN)
def test_each_library_is_imported_in_its_own_file_only(library: str):
    users = {m for m, tree in MODULES.items() if any(n.split(".")[0] == library for n in imports(tree))}
    assert users
    assert users <= ONLY_IN[library]


@pytest.mark.parametrize("module", [m for m in MODULES if m.startswith(PURE) and m not in IMPURE_ALLOWED])
def test_the_core_knows_no_clock_no_chance_and_no_outside(module: str):
    assert not {n.split(".")[0] for n in imports(MODULES[module])} & IMPURE


def test_package_markers_stay_empty():
    assert all(not path.read_text() for package in PACKAGES for path in (ROOT / package).rglob("__init__.py"))


def test_no_file_is_called_utils():
    assert not [path for package in PACKAGES for path in (ROOT / package).rglob("*util*")]


def test_no_function_is_longer_than_seventy_lines():
    long = [
        f"{module}.{node.name}: {node.end_lineno - node.lineno + 1}"
        for module, tree in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno + 1 > 70
    ]
    assert long == []
