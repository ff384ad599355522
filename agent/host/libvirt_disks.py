"""Disks that a guest has: how large they are, and what holds them back, by QEMU's word.

A disk is named by its target, as libvirt's calls want it; the caller has just looked which that is.
"""

from collections.abc import Mapping
from typing import Final

import libvirt

from agent.host.libvirt_calls import LibvirtCalls
from agent.host.libvirt_connection import VirConnect
from agent.host.libvirt_refusals import unknown

_LIVE: Final = libvirt.VIR_DOMAIN_AFFECT_LIVE
_CONFIG: Final = libvirt.VIR_DOMAIN_AFFECT_CONFIG


class LibvirtDisks(LibvirtCalls):
    """A part of ports.Domains."""

    def limits(self, instance_id: str, target_dev: str) -> Mapping[str, int | str]:
        """Asked of QEMU: the XML shows what was wanted, also where QEMU refused it."""

        return self._limits(instance_id, target_dev, _LIVE)

    def defined_limits(self, instance_id: str, target_dev: str) -> Mapping[str, int | str]:
        return self._limits(instance_id, target_dev, _CONFIG)

    def limit(self, instance_id: str, target_dev: str, limits: Mapping[str, int | str]) -> None:
        self._limit(instance_id, target_dev, limits, _LIVE)

    def define_limits(
        self, instance_id: str, target_dev: str, limits: Mapping[str, int | str]
    ) -> None:
        self._limit(instance_id, target_dev, limits, _CONFIG)

    def size(self, instance_id: str, target_dev: str) -> int:
        """Of a guest that does not run libvirt would tell what the file has, header and all."""

        def ask(connection: VirConnect) -> int | None:
            domain = connection.lookupByUUIDString(instance_id)
            capacity, _allocation, _physical = domain.blockInfo(target_dev)
            return int(capacity) if domain.isActive() else None

        size_bytes = self._question(ask)
        if size_bytes is None:
            raise unknown(f"domain {instance_id} has just stopped")
        return size_bytes

    def resize(self, instance_id: str, target_dev: str, size_bytes: int) -> None:
        """In bytes: without the flag libvirt takes KiB."""

        def ask(connection: VirConnect) -> None:
            domain = connection.lookupByUUIDString(instance_id)
            domain.blockResize(target_dev, size_bytes, libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES)

        self._change(ask, f"making {target_dev} of domain {instance_id} {size_bytes} bytes large")

    def _limits(self, instance_id: str, target_dev: str, half: int) -> Mapping[str, int | str]:
        def ask(connection: VirConnect) -> Mapping[str, int | str]:
            return dict(connection.lookupByUUIDString(instance_id).blockIoTune(target_dev, half))

        return self._question(ask)

    def _limit(
        self, instance_id: str, target_dev: str, limits: Mapping[str, int | str], half: int
    ) -> None:
        """One half a call: for both at once the binding has no words."""

        def ask(connection: VirConnect) -> None:
            domain = connection.lookupByUUIDString(instance_id)
            domain.setBlockIoTune(target_dev, dict(limits), half)

        self._change(ask, f"changing the iotune of {target_dev} of domain {instance_id}")
