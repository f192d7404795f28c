"""Our full replay beside the script one would write without us, on the same log and ids. Prints, judges nothing.

    python benchmarks/replay.py LOG [LOG ...]

The bare loop is `can.LogReader` + `cantools` decode of the ids we know, with our DBC. Each is a process of its own;
the figures are the medians of RUNS runs, imports left out.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path

RUNS = 5

BARE = """
import json, sys, time
from pathlib import Path
import can, cantools
import controller.batteries
from controller.batteries.registry import BATTERIES
folder = Path(controller.batteries.__path__[0])
known = BATTERIES["tesla_model3"].rx.keys()
messages = {}
for path in sorted(folder.glob("tesla_model3*.dbc")):
    for message in cantools.database.load_file(path, strict=True).messages:
        if message.frame_id in known:
            messages.setdefault(message.frame_id, message)
began = time.perf_counter()
frames = decoded = 0
for frame in can.LogReader(sys.argv[1]):
    frames += 1
    message = messages.get(frame.arbitration_id)
    if message is not None and not frame.is_extended_id:
        try:
            message.decode(frame.data, decode_choices=False, allow_truncated=True)
            decoded += 1
        except Exception:
            pass
print(json.dumps({"s": time.perf_counter() - began, "frames": frames, "decoded": decoded}))
"""

OURS = """
import json, sys, time
from controller.cli_bench import _prepare
from sim.replay import Replay
began = time.perf_counter()
run = _prepare(sys.argv[1], "tesla_model3", None, None, everything=False)
result = Replay(run.recording, run.settings, run.battery, run.inverter).run()
print(json.dumps({"s": time.perf_counter() - began, "frames": run.recording.frames,
                  "decoded": result.core.pack.decoded_frames, "ticks": result.ticks,
                  "of": run.recording.duration_us / 1e6}))
"""


def measure(script: str, log: str) -> dict[str, float]:
    """The median run of a script on a log."""
    runs = []
    for _ in range(RUNS):
        done = subprocess.run([sys.executable, "-c", script, log], check=True, capture_output=True, text=True)
        runs.append(json.loads(done.stdout))
    middle: dict[str, float] = dict(runs[0])
    middle["s"] = statistics.median(run["s"] for run in runs)
    return middle


def main(logs: list[str]) -> None:
    print(f"{'log':<40} {'frames/s':>9} {'ticks':>7} {'ours s':>8} {'bare s':>8} {'ours/bare':>10}")
    for log in logs:
        ours, bare = measure(OURS, log), measure(BARE, log)
        rate = ours["frames"] / max(ours["of"], 1e-9)
        print(
            f"{Path(log).name:<40} {rate:>9.0f} {ours['ticks']:>7} {ours['s']:>8.3f} {bare['s']:>8.3f} "
            f"{ours['s'] / bare['s']:>10.2f}"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
