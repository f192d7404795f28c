"""What an inverter held before it was steered, on disk until it is put back. Survives a crash and a power cut."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from controller.gateway.brands import BRANDS, Site

SCHEMA = 1
SIZE_MAX = 65_536
ABOUT = "What the inverter held before packwarden steered it; it is put back from here. See docs/dispatch.md."


class RestoreFileError(Exception):
    """The file cannot be read, understood or written. The message names it and says what to do."""


class Restore(NamedTuple):
    """Which inverter, told by its serial number, and what its registers held, by name."""

    site: Site
    serial: str
    kept: Mapping[str, int]


class RestoreFile:
    """One file, written beside its place, synced, and put there as a whole."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> Restore | None:
        """None when nothing has to be put back. Raises RestoreFileError and leaves the file as it is."""
        try:
            with self.path.open("rb") as file:
                data = file.read(SIZE_MAX)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._error(f"it cannot be read ({error.strerror})") from None
        try:
            return _understood(json.loads(data))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise self._error(f"it cannot be understood ({error})") from None

    def store(self, restore: Restore) -> None:
        """Returns when it is on the disk. Raises RestoreFileError; what is there already is never overwritten."""
        site = restore.site
        record = {
            "schema": SCHEMA, "about": ABOUT, "inverter": site.inverter, "host": site.host, "port": site.port,
            "unit": site.unit, "serial": restore.serial, "kept": dict(restore.kept),
        }  # fmt: skip
        fresh = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            with fresh.open("w", encoding="utf-8") as file:
                file.write(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
                file.flush()
                os.fsync(file.fileno())
            os.link(fresh, self.path)
            self._sync_folder()
        except FileExistsError:
            raise self._error("there is one already") from None
        except OSError as error:
            raise self._error(f"it cannot be stored ({error.strerror})") from None
        finally:
            with suppress(OSError):
                fresh.unlink()

    def remove(self) -> None:
        """Everything is as it was. Raises RestoreFileError."""
        try:
            self.path.unlink(missing_ok=True)
            self._sync_folder()
        except OSError as error:
            raise self._error(f"it cannot be removed ({error.strerror})") from None

    def _sync_folder(self) -> None:
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _error(self, what: str) -> RestoreFileError:
        return RestoreFileError(
            f"{self.path}: {what}; look into it, put the inverter back by hand (docs/dispatch.md), then move it away"
        )


def _understood(record: Any) -> Restore:
    """Raises ValueError, KeyError or TypeError for what this program did not write."""
    if type(record) is not dict:
        raise ValueError("no record")
    if record["schema"] != SCHEMA:
        raise ValueError(f"it has schema {record['schema']!r}, this program reads {SCHEMA}")
    host, serial, kept, brand = (record[name] for name in ("host", "serial", "kept", "inverter"))
    if brand not in BRANDS or type(host) is not str or type(serial) is not str or type(kept) is not dict or not kept:
        raise ValueError("not a record of an inverter")
    whole = [record["port"], record["unit"], *kept.values()]
    if any(type(number) is not int or not 0 <= number <= 0xFFFF for number in whole):
        raise ValueError("a number is no register value")
    return Restore(Site(brand, host, record["port"], record["unit"], sungrow_mode=2), serial, kept)
