"""Runs in the emulated Pi: the Tesla pack model on vcan0, in real time; silent while /run/pack-silent exists."""

from __future__ import annotations

import time
from pathlib import Path

import can

from controller.ports import CanFrame
from sim.tesla_pack import TeslaPack

SILENT = Path("/run/pack-silent")
TICK_MS = 10


def main() -> None:
    pack, begun_s = TeslaPack(soc_pct=55.0, temp_c=21.0, seed=1), time.monotonic()
    now_ms = 0
    while True:
        try:
            with can.Bus(channel="vcan0", interface="socketcan") as bus:
                while True:
                    heard = []
                    while (message := bus.recv(timeout=0)) is not None:
                        heard.append(CanFrame(message.arbitration_id, bytes(message.data), now_ms))
                    pack.receive(heard, now_ms)
                    for frame in pack.step(now_ms, 0.0):
                        if not SILENT.exists():
                            bus.send(can.Message(arbitration_id=frame.id, data=frame.data, is_extended_id=False))
                    now_ms = max(now_ms + TICK_MS, int((time.monotonic() - begun_s) * 100) * TICK_MS)
                    time.sleep(max(0.0, begun_s + now_ms / 1000 - time.monotonic()))
        except (can.CanError, OSError):
            time.sleep(0.2)  # the bus is down; a pack waits for it


if __name__ == "__main__":
    main()
