"""The far ends of real cables, as a process of their own: a Tesla pack on a CAN bus of python-can, a Gen24 on a pty.

python -m tests.live.cables INTERFACE CHANNEL [FRAMES_PER_S]

Prints the serial port to give to the controller, and goes on until its standard input ends. With FRAMES_PER_S the pack
repeats itself until the bus carries that many.
"""

from __future__ import annotations

import os
import pty
import select
import sys
import time
import tty

import can

from controller.ports import CanFrame
from drivers.pacer import favour_this_thread
from sim.gen24 import Gen24
from sim.tesla_pack import TeslaPack
from tests.live.world import repeated

TICK_S = 0.01


def main(interface: str, channel: str, frames_per_s: int = 0) -> None:
    wire, port = pty.openpty()
    tty.setraw(port)
    os.set_blocking(wire, False)
    print(os.ttyname(port), flush=True)
    bus = can.Bus(channel, interface, receive_own_messages=False, ignore_config=True)
    favour_this_thread()  # a pack is never short of time
    pack, inverter, began_s, ticks = TeslaPack(), Gen24(), time.monotonic(), 0
    try:
        while not select.select([sys.stdin], [], [], max(0.0, began_s + ticks * TICK_S - time.monotonic()))[0]:
            now_ms, ticks = round(ticks * TICK_S * 1000), ticks + 1
            pack.receive(heard(bus), now_ms)
            for frame in repeated(pack.step(now_ms), round(frames_per_s * TICK_S)):
                bus.send(can.Message(arbitration_id=frame.id, data=frame.data, is_extended_id=False))
            request = inverter.step(now_ms, read(wire), pack.link_v, 0.0)
            if request:
                os.write(wire, request)
    finally:
        bus.shutdown()


def heard(bus: can.BusABC) -> list[CanFrame]:
    frames = []
    while (message := bus.recv(0)) is not None:
        frames.append(CanFrame(message.arbitration_id, bytes(message.data)))
    return frames


def read(wire: int) -> bytes:
    try:
        return os.read(wire, 4096)
    except BlockingIOError:
        return b""


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
