"""The certificate of the page: the owner's own, or a self-made one that is kept."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import ssl
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

DAYS: Final = 3650
WITHIN_S: Final = 60.0
FOLDER: Final = "tls"


class CertificateError(Exception):
    """Why there is no certificate to be used, in one sentence."""


class Pair(NamedTuple):
    """Two files in PEM."""

    certificate: Path
    key: Path

    def fingerprint(self) -> str:
        """SHA-256 of the certificate, as browsers show it. Raises CertificateError."""
        try:
            der = ssl.PEM_cert_to_DER_cert(self.certificate.read_text(encoding="ascii"))
        except (OSError, ValueError) as error:
            raise CertificateError(f"{self.certificate} cannot be read ({error})") from None
        return hashlib.sha256(der).digest().hex(":").upper()

    def check(self) -> None:
        """Raises CertificateError when the two are not a pair that can be served."""
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.certificate, self.key)
        except (OSError, ssl.SSLError) as error:
            why = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
            raise CertificateError(f"{self.certificate} and {self.key} cannot be used ({why})") from None


def own(certificate: str, key: str) -> Pair:
    """The owner's. key: empty when it stands in the same file. Raises CertificateError."""
    pair = Pair(Path(certificate), Path(key or certificate))
    pair.check()
    return pair


def self_made(folder: Path, host: str | None = None) -> Pair:
    """The one in this folder, made when there is none or it is no good. Raises CertificateError."""
    pair = Pair(folder / FOLDER / "certificate.pem", folder / FOLDER / "key.pem")
    with suppress(CertificateError):
        pair.check()
        return pair
    _make(pair, host or socket.gethostname() or "packwarden")
    pair.check()
    return pair


def _make(pair: Pair, host: str) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        raise CertificateError("no certificate can be made without openssl: sudo apt install openssl")
    names = ",".join(dict.fromkeys((f"DNS:{host}", f"DNS:{host}.local", "DNS:localhost", "IP:127.0.0.1")))
    fresh = Pair(pair.certificate.with_suffix(".new"), pair.key.with_suffix(".new"))
    command = (
        openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-batch",
        "-days", str(DAYS), "-subj", f"/CN={host[:60]}/O=packwarden", "-addext", f"subjectAltName={names}",
        "-addext", "basicConstraints=critical,CA:FALSE", "-addext", "extendedKeyUsage=serverAuth",
        "-keyout", str(fresh.key), "-out", str(fresh.certificate),
    )  # fmt: skip
    try:
        pair.key.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh.key.unlink(missing_ok=True)
        fresh.key.touch(mode=0o600)
        made = subprocess.run(command, capture_output=True, text=True, timeout=WITHIN_S, check=False)
        if made.returncode:
            raise CertificateError(f"openssl made no certificate: {(made.stderr.strip().splitlines() or ['?'])[-1]}")
        os.replace(fresh.key, pair.key)
        os.replace(fresh.certificate, pair.certificate)
    except subprocess.TimeoutExpired:
        raise CertificateError(f"openssl made no certificate within {WITHIN_S:.0f} s") from None
    except OSError as error:
        raise CertificateError(f"{pair.key.parent} cannot be written ({error.strerror})") from None
