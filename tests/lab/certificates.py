"""A certificate authority of the lab's own, and what it has signed; valid for two days.

<directory>/
    ca.pem  ca.key
    <name>.pem  <name>.key
"""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.lab.patience import LabError

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")


@dataclass(frozen=True)
class Certificate:
    """``authority`` is the file of who has signed it."""

    authority: Path
    file: Path
    key: Path


class Authority:
    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.file, self._key = directory / "ca.pem", directory / "ca.key"
        self._directory = directory
        _openssl(
            *("req", "-x509", *_KEY, "-subj", "/CN=authority of the lab"),
            *("-addext", "keyUsage = critical, keyCertSign"),  # Python 3.13 asks for it
            *("-keyout", self._key, "-out", self.file),
        )

    def sign(self, name: str, address: str = "127.0.0.1") -> Certificate:
        """For that address, as server and as client; its subject is ``name``."""
        file, key = self._directory / f"{name}.pem", self._directory / f"{name}.key"
        _openssl(
            *("req", "-x509", *_KEY, "-subj", f"/CN={name}"),
            *("-addext", f"subjectAltName = IP:{address}"),
            *("-addext", "basicConstraints = critical, CA:FALSE"),
            *("-addext", "extendedKeyUsage = serverAuth, clientAuth"),
            *("-CA", self.file, "-CAkey", self._key),
            *("-keyout", key, "-out", file),
        )
        return Certificate(self.file, file, key)


def _openssl(*arguments: str | Path) -> None:
    done = subprocess.run(
        ["openssl", *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode:
        raise LabError(f"openssl {arguments[0]}: {done.stderr.strip()}")
