"""What this host's libvirt and QEMU can do: newer abilities are probed one by one."""

import shutil
import subprocess
import time
from collections.abc import Callable, Collection
from typing import Any, Final

from agent.ports import (
    COPY_TO_ENCRYPTED,
    GUEST_INITIATOR,
    LUKS2,
    RESERVATIONS,
    SHARED_ENCRYPTION,
    STORAGE_SLICES,
    SYNCHRONOUS_WRITES,
)

DETACH_BY_ALIAS: Final = "detach-by-alias"
SHAREABLE_DISKS: Final = "shareable-disks"
PARALLEL_MIGRATION: Final = "parallel-migration"
LASTING_STATISTICS: Final = "lasting-statistics"
POST_COPY_RECOVERY: Final = "post-copy-recovery"

SINCE: Final[dict[str, tuple[int, int, int] | None]] = {
    DETACH_BY_ALIAS: (4, 4, 0),
    SHAREABLE_DISKS: (3, 10, 0),
    PARALLEL_MIGRATION: (5, 2, 0),
    LASTING_STATISTICS: (6, 0, 0),
    POST_COPY_RECOVERY: (8, 5, 0),
    LUKS2: None,
    SHARED_ENCRYPTION: (3, 10, 0),
    COPY_TO_ENCRYPTED: (3, 10, 0),
    RESERVATIONS: (4, 4, 0),
    GUEST_INITIATOR: (4, 7, 0),
    SYNCHRONOUS_WRITES: (8, 0, 0),
    STORAGE_SLICES: (6, 1, 0),
}
"""Which libvirt (on the hypervisor; the binding is newer). None: none yet. QEMU's LUKS driver
reads version 1 of the header ("LUKS version 2 is not supported", 7.2), and libvirt refuses luks2
with it."""

GONE: Final[dict[str, tuple[int, int, int]]] = {
    SHARED_ENCRYPTION: (11, 3, 0),
    COPY_TO_ENCRYPTED: (11, 3, 0),
}
"""From which libvirt on it is known to be no more; those between 9.0, which has both, and this one
were not tried. 11.3 lets no disk be shared that it decrypts ("requires use of supported storage
format"), and has QEMU copy to an encrypted volume as if it were not encrypted: what QEMU refuses
("different sizes") only because of the header."""

RESERVING_PROGRAM: Final = "qemu-pr-helper"
"""libvirt starts one for each guest that reserves: QEMU itself may not."""

PROGRAMS_PATH: Final = "/usr/bin:/usr/sbin:/usr/libexec:/usr/local/bin"
"""Where distributions have it; libvirt's default is the first (pr_helper in its qemu.conf)."""


PROBE_SECONDS: Final = 10.0

PROBE_AGAIN_SECONDS: Final = 60.0
"""A probe that starts a program: every attach asks what is missing, and packages seldom come."""


class Abilities:
    """``without``: those not to be used even where they are there."""

    def __init__(
        self, without: Collection[str] = (), *, programs_path: str = PROGRAMS_PATH
    ) -> None:
        self._without = frozenset(without)
        self._programs_path = programs_path
        self._probed_at: float | None = None
        self._found_iscsi = False
        self._probes: dict[str, Callable[[], bool]] = {
            RESERVATIONS: self._can_reserve,
            GUEST_INITIATOR: self._has_initiator,
        }

    def has(self, libvirt: tuple[int, int, int], ability: str) -> bool:
        """Asks the host: packages come and go."""
        since = SINCE[ability]
        if ability in self._without or since is None or libvirt < since:
            return False
        if ability in GONE and libvirt >= GONE[ability]:
            return False
        probe = self._probes.get(ability)
        return probe is None or probe()

    def has_now(self, connection: Any, ability: str) -> bool:
        """Of the libvirt that a libvirt.virConnect leads to."""
        return self.has(version_of(connection.getLibVersion()), ability)

    def missing(self, libvirt: tuple[int, int, int]) -> tuple[str, ...]:
        return tuple(ability for ability in SINCE if not self.has(libvirt, ability))

    def _can_reserve(self) -> bool:
        return shutil.which(RESERVING_PROGRAM, path=self._programs_path) is not None

    def _has_initiator(self) -> bool:
        now = time.monotonic()
        if self._probed_at is None or now >= self._probed_at + PROBE_AGAIN_SECONDS:
            self._found_iscsi, self._probed_at = self._speaks_iscsi(), now
        return self._found_iscsi

    def _speaks_iscsi(self) -> bool:
        """QEMU's driver is a module that distributions pack apart. It is asked for a volume without
        an address: a driver that is there says what it lacks, and calls nobody."""
        program = shutil.which("qemu-img", path=self._programs_path)
        if program is None:
            return False
        asked = [program, "info", 'json:{"driver":"iscsi"}']
        try:
            said = subprocess.run(asked, capture_output=True, timeout=PROBE_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return False
        return b"portal" in said.stderr


def version_of(number: int) -> tuple[int, int, int]:
    """libvirt's 1000000 * major + 1000 * minor + micro."""
    return number // 1_000_000, number // 1000 % 1000, number % 1000
