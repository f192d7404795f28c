"""Runs in the emulated Pi: the Tesla pack model on vcan0, in real time; silent while /run/pack-silent exists.

By the kernel's own socket: python-can costs an emulated processor half of its time.
"""

from __future__ import annotations

import socket
import struct
import time
from pathlib import Path

from controller.ports import CanFrame
from sim.tesla_pack import TeslaPack

SILENT = Path("/run/pack-silent")
TICK_MS, TURN_MS = 10, 20
"""Two ticks in a turn: what costs an emulated processor most is to go from one process to another."""
FRAME = struct.Struct("=IB3x8s")


def heard(bus: socket.socket, now_ms: int) -> list[CanFrame]:
    frames = []
    while True:
        try:
            can_id, length, data = FRAME.unpack(bus.recv(FRAME.size))
        except BlockingIOError:
            return frames
        frames.append(CanFrame(can_id, data[:length], now_ms))


def live(pack: TeslaPack, bus: socket.socket, begun_s: float) -> None:
    """Until the bus breaks (OSError)."""
    now_ms = 0
    while True:
        now_ms = max(now_ms + TICK_MS, int((time.monotonic() - begun_s) * 100) * TICK_MS)
        pack.receive(heard(bus, now_ms), now_ms)
        said = pack.step(now_ms, 0.0)
        if not SILENT.exists():
            for frame in said:
                bus.send(FRAME.pack(frame.id, len(frame.data), frame.data))
        if now_ms % TURN_MS == 0:
            time.sleep(max(0.001, begun_s + (now_ms + TURN_MS) / 1000 - time.monotonic()))


def main() -> None:
    pack, begun_s = TeslaPack(soc_pct=55.0, temp_c=21.0, seed=1), time.monotonic()
    while True:
        try:
            with socket.socket(socket.AF_CAN, socket.SOCK_RAW, socket.CAN_RAW) as bus:
                bus.bind(("vcan0",))
                bus.setblocking(False)
                live(pack, bus, begun_s)
        except OSError:
            time.sleep(0.2)  # the bus is down; a pack waits for it


if __name__ == "__main__":
    main()
