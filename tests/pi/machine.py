"""An emulated Raspberry Pi 3B: made from the parts of image.sh, started, and driven over its serial console."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path

HERE = Path(__file__).parent
AUTOLOGIN = """[Service]
ExecStart=
ExecStart=-/sbin/agetty --autologin root --noclear --keep-baud 115200 - dumb
"""
KERNEL_ARGUMENTS = (
    "maxcpus=1 console=ttyS1,115200 rw quiet iomem=relaxed systemd.show_status=0 "
    "modprobe.blacklist=vc4,hci_uart,snd_bcm2835,bcm2835_v4l2 systemd.unit=multi-user.target"
)
ICOUNT = "shift=0,sleep=off"
"""The guest's clock counts its instructions, 1 ns each, and jumps while it idles: however busy this machine is, the
guest is a steady one. With one processor, since QEMU lets several take turns, and one that
waits for its turn is late.
"""
TELL_THE_TIME = """
import os, time
while True:
    os.write(1, b"\\036%d\\037" % (time.monotonic() * 1000))
    time.sleep(0.1)
"""
"""The guest's clock on its console, for everybody who has to live by it."""
TOLD_TIME = re.compile(rb"\036(\d+)\037")
ASK_AGAIN_S = 2.0
"""On the guest's clock, as every time here but STALLED_S. Each question costs the guest time of its own."""
STALLED_S = 900.0
"""On the clock on the wall: longer than any wait in the tests."""
LOST = 99
"""The exit status of a command that its console swallowed."""


class PiError(Exception):
    """The emulated machine did not do what it was told. The message holds the last lines of its console."""


def parts(folder: Path) -> Path:
    """The folder with kernel, initrd, device tree and root file system; made when it is not there."""
    if not all((folder / name).exists() for name in ("vmlinuz", "initrd.gz", "pi.dtb", "rootfs.tar")):
        subprocess.run([str(HERE / "image.sh"), str(folder)], check=True)
    return folder


def card(base: Path, image: Path, folders: Mapping[str, Path]) -> None:
    """An SD card with the root file system and `folders` (path in the guest → folder here) copied into it."""
    with tempfile.TemporaryDirectory(dir=image.parent) as work:
        root = Path(work)
        subprocess.run(["tar", "-C", work, "-xpf", str(base / "rootfs.tar")], check=True)
        (root / "etc/hostname").write_text("pi\n")
        (root / "etc/fstab").write_text("/dev/mmcblk0 / ext4 rw 0 0\n")
        override = root / "etc/systemd/system/serial-getty@ttyS1.service.d"
        override.mkdir(parents=True)
        (override / "override.conf").write_text(AUTOLOGIN)
        for target, source in folders.items():
            shutil.copytree(source, root / target.lstrip("/"), symlinks=True)
        subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-d", work, str(image), "2048M"], check=True)


class Pi:
    """One running machine. rs485: a socket that is the other end of its /dev/ttyAMA0."""

    def __init__(self, base: Path, image: Path, log: Path) -> None:
        self.base, self.image, self.log = base, image, log
        self.now_ms, self.heard = 0, b""
        self._news = threading.Condition()

    def __enter__(self) -> Pi:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.cut_power()

    def start(self) -> None:
        """Power on, and wait for a shell. Raises PiError."""
        self.sockets = Path(tempfile.mkdtemp(prefix="pi"))
        uart, console = self.sockets / "uart", self.sockets / "console"
        self.process = subprocess.Popen(
            [
                "qemu-system-aarch64", "-M", "raspi3b", "-global", "bcm2837.enabled-cpus=1", "-icount", ICOUNT,
                "-display", "none", "-monitor", "none", "-no-reboot",
                "-kernel", str(self.base / "vmlinuz"), "-initrd", str(self.base / "initrd.gz"),
                "-dtb", str(self.base / "pi.dtb"), "-append", KERNEL_ARGUMENTS,
                "-drive", f"file={self.image},format=raw,if=sd,cache=unsafe",
                "-serial", f"unix:{uart},server=on,wait=off", "-serial", f"unix:{console},server=on,wait=off",
            ],
            stdout=subprocess.DEVNULL, stderr=self.log.open("ab"),
        )  # fmt: skip
        self.rs485, self.console = _connected(uart), _connected(console)
        self.now_ms, self.heard = 0, b""
        threading.Thread(target=self._listen, args=(self.console,), daemon=True).start()
        self.wait_for(rb"root@pi:[^\n]*# ")
        self.console.sendall(b"stty -echo; PS1=''; bind 'set enable-bracketed-paste off' 2>/dev/null\n")
        self.run("dmesg -n 1")  # the kernel's words would stand among the output of commands
        self.run(f"(chrt -r 20 python3 -SE -c '{TELL_THE_TIME}' &)")

    def cut_power(self) -> None:
        """Pull the plug."""
        self.process.kill()
        self.process.wait()
        for end in (self.rs485, self.console):
            end.close()
        shutil.rmtree(self.sockets, ignore_errors=True)

    def _listen(self, console: socket.socket) -> None:
        """Take the told time out of what the console says."""
        raw = b""
        while True:
            try:
                piece = console.recv(65536)
            except OSError:
                piece = b""
            if not piece:
                return
            with self._news:
                raw += piece
                for told in TOLD_TIME.finditer(raw):
                    self.now_ms = int(told[1])
                whole, mark, torn = TOLD_TIME.sub(b"", raw).partition(b"\036")
                self.heard, raw = self.heard + whole, mark + torn
                self._news.notify_all()

    def run(self, command: str, timeout_s: float = 120) -> tuple[int, str]:
        """A shell command's exit status and output. Raises PiError when it does not come back."""
        mark = f"done-{time.monotonic_ns()}"
        self.console.sendall(f"(exit {LOST})\n{command}\necho {mark[:4]}''{mark[4:]} $?\n".encode())
        found = self.wait_for(rb"(?s)(.*?)" + mark.encode() + rb" (\d+)\r?\n", timeout_s)
        return int(found[2]), found[1].decode(errors="replace").replace("\r\n", "\n")

    def check(self, command: str, timeout_s: float = 120) -> str:
        """The output of a command that must succeed. Raises PiError when it does not."""
        status, output = self.run(command, timeout_s)
        if status:
            raise PiError(f"{command}: exit {status}\n{output}")
        return output

    def until(self, command: str, pattern: str, timeout_s: float = 120) -> str:
        """Repeat a command until its output matches. Raises PiError when it never does."""
        give_up_ms = self.now_ms + 1000 * timeout_s
        while True:
            _, output = self.run(command, timeout_s)
            if re.search(pattern, output):
                return output
            if self.now_ms > give_up_ms:
                raise PiError(f"{command}: never matched {pattern!r}\n{output}")
            self.pause(ASK_AGAIN_S)

    def pause(self, duration_s: float) -> None:
        """Let the guest's clock go on. Raises PiError when it stands still."""
        until_ms = self.now_ms + 1000 * duration_s
        with self._news:
            if not self._news.wait_for(lambda: self.now_ms >= until_ms, STALLED_S):
                raise PiError("its clock stands still")

    def wait_for(self, pattern: bytes, timeout_s: float = STALLED_S) -> re.Match[bytes]:
        """Listen until the console has shown the pattern; what stood before it is taken off. Raises PiError."""
        give_up_ms = self.now_ms + 1000 * timeout_s

        def shown() -> re.Match[bytes] | bool | None:
            return re.search(pattern, self.heard) or self.now_ms > give_up_ms

        with self._news:
            found = self._news.wait_for(shown, STALLED_S)
            if not isinstance(found, re.Match):
                raise PiError(f"no {pattern!r} on the console:\n{self.heard[-3000:].decode(errors='replace')}")
            self.heard = self.heard[found.end() :]
        return found


def _connected(path: Path) -> socket.socket:
    """A connection to a socket that QEMU is about to make."""
    end = socket.socket(socket.AF_UNIX)
    give_up_s = time.monotonic() + 20
    while True:
        try:
            end.connect(os.fspath(path))
            return end
        except OSError:
            if time.monotonic() > give_up_s:
                raise PiError(f"{path}: the machine did not start") from None
            time.sleep(0.05)
