"""How late the live loop wakes and what it costs: `controller run`, a full bus, a polling inverter, busy neighbours.

python benchmarks/live.py [--frames 4000] [--seconds 60] [--busy 2]
    over memory ports: the loop and the core alone, the frames made in the same process
python benchmarks/live.py --interface udp_multicast --channel 239.74.163.9
python benchmarks/live.py --interface socketcan --channel vcan0
    over real devices: a bus of python-can and a serial line, the pack and the inverter in another process
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from controller.client import Client  # noqa: E402
from tests.live.service import TERM, Service  # noqa: E402
from tests.live.world import CONFIG  # noqa: E402

HERTZ = os.sysconf("SC_CLK_TCK")
PRIORITIES = {0: "normal", 1: "real-time"}


def main() -> None:
    given = arguments()
    with tempfile.TemporaryDirectory() as folder, far_end(given) as port, busy(given.busy):
        service = Service(Path(folder), lambda config, control: command(given, config, control))
        if port:
            places = f'[can]\ninterface = "{given.interface}"\nchannel = "{given.channel}"\n[serial]\nport = "{port}"\n'
            service.config.write_text(CONFIG + places)
        try:
            service.start()
            with Client(service.socket, 60.0) as client:
                client.command("enable")
            service.until_state("RUNNING")
            measured(service, given)
            service.signal(TERM)
            print(f"ended with {service.ended()}")
        finally:
            service.close()


def measured(service: Service, given: argparse.Namespace) -> None:
    """Watch it for a while, twice a second as the gateway does, and print what that took."""
    assert service.process is not None
    pid = service.process.pid
    with Client(service.socket, 60.0) as client:
        looks = client.watch(500)
        first, cpu_s, rss_mib = next(looks), cpu(pid), memory_mib(pid)
        last = list(islice(looks, given.seconds * 2))[-1]
    took_s = (last["t_ms"] - first["t_ms"]) / 1000
    frames = (last["bus"]["pack"]["decoded"] - first["bus"]["pack"]["decoded"]) / took_s
    late: dict[str, Any] = last["lateness_ms"]
    load = f"load {os.getloadavg()[0]:.1f}, {given.busy} busy neighbours"
    print(f"{platform.machine()}, {os.cpu_count()} processors, {load}")
    print(f"{given.interface or 'memory ports'}, {took_s:.0f} s {last['state']}, {frames:,.0f} frames/s decoded, "
          f"{PRIORITIES.get(os.sched_getscheduler(pid) & 0xFF, '?')} priority")  # fmt: skip
    print("late by, ms:  " + "   ".join(f"{name} {late[name]}" for name in ("p50", "p99", "p99.9", "max"))
          + f"   in {late['turns']:,} turns")  # fmt: skip
    print(f"processor {100 * (cpu(pid) - cpu_s) / took_s:.1f} %   resident {rss_mib:.0f} → {memory_mib(pid):.0f} MiB   "
          f"{json.dumps(last['bus'])}")  # fmt: skip


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=4000, help="a second")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--busy", type=int, default=2, help="processes that do nothing but calculate")
    parser.add_argument("--interface", default="")
    parser.add_argument("--channel", default="")
    return parser.parse_args()


def command(given: argparse.Namespace, config: Path, control: Path) -> list[str]:
    if given.interface:
        run = ["-m", "controller", "run", "--no-gateway", "--config", str(config), "--socket", str(control)]
    else:
        run = ["-m", "tests.live.world", str(config), str(control), str(given.frames)]
    return [sys.executable, *run]


@contextmanager
def far_end(given: argparse.Namespace) -> Iterator[str]:
    """The pack and the inverter in a process of their own; the serial port to the inverter, empty without one."""
    if not given.interface:
        yield ""
        return
    words = [sys.executable, "-m", "tests.live.cables", given.interface, given.channel, str(given.frames)]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True, cwd=ROOT) as far:
        assert far.stdout is not None
        yield far.stdout.readline().strip()
        far.kill()


def spin() -> None:
    with suppress(KeyboardInterrupt):
        while True:
            sum(range(100_000))


@contextmanager
def busy(number: int) -> Iterator[None]:
    neighbours = [multiprocessing.Process(target=spin, daemon=True) for _ in range(number)]
    for neighbour in neighbours:
        neighbour.start()
    try:
        yield
    finally:
        for neighbour in neighbours:
            neighbour.terminate()


def cpu(pid: int) -> float:
    """Seconds of processor time so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / HERTZ


def memory_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


if __name__ == "__main__":
    main()
