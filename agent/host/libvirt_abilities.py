"""What this host's libvirt and QEMU can do: newer abilities are probed one by one."""

from collections.abc import Collection
from typing import Final

from agent.ports import LUKS2

DETACH_BY_ALIAS: Final = "detach-by-alias"
SHAREABLE_DISKS: Final = "shareable-disks"

SINCE: Final[dict[str, tuple[int, int, int] | None]] = {
    DETACH_BY_ALIAS: (4, 4, 0),
    SHAREABLE_DISKS: (3, 10, 0),
    LUKS2: None,
}
"""Which libvirt (on the hypervisor; the binding is newer). None: none yet. QEMU's LUKS driver
reads version 1 of the header ("LUKS version 2 is not supported", 7.2), and libvirt refuses luks2
with it."""


class Abilities:
    """``without``: those not to be used even where they are there."""

    def __init__(self, without: Collection[str] = ()) -> None:
        self._without = frozenset(without)

    def has(self, libvirt: tuple[int, int, int], ability: str) -> bool:
        since = SINCE[ability]
        return ability not in self._without and since is not None and libvirt >= since

    def missing(self, libvirt: tuple[int, int, int]) -> tuple[str, ...]:
        return tuple(ability for ability in SINCE if not self.has(libvirt, ability))
