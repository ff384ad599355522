"""What os-brick may take off this host: judged before it is asked, and again under its lock."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from agent.errors import Busy, ConnectFailed
from agent.host.block_devices import BlockDevices, Found
from agent.host.brick_device import DeviceReader
from agent.host.brick_properties import by_ways_of
from agent.host.nvme import NvmeControllers
from agent.host.openers import refuse_open
from agent.model.attachment import Attachment
from agent.model.connection import Connection, NvmeConnection
from agent.model.device import Device, conflict, same_device

LOG = logging.getLogger(__name__)


class Leaving:
    def __init__(
        self,
        devices: BlockDevices,
        reader: DeviceReader,
        nvme: NvmeControllers,
        pause: Callable[[float], None],
    ) -> None:
        self._devices = devices
        self._reader = reader
        self._nvme = nvme
        self._pause = pause

    def usable_today(self, device: Device | None) -> str | None:
        """The kernel name by which the device takes I/O now: not one of a map without paths.

        Raises ConnectFailed if a QEMU has it open, or a path of it (it may have come as one), or
        this host uses it itself, or has built something on it: os-brick would remove it beneath."""
        today = self._devices.find(device.identity) if device else None
        if device is None or today is None:
            return None
        refuse_open({today, *self._devices.all_of(device.identity)}, self._pause)
        use = self._devices.use_by_host(today)
        if use is not None:
            raise ConnectFailed(f"{today} is {use} on this host itself: it stays until unmounted")
        built = ", ".join(self._devices.built_on(device.identity))
        if built:
            raise ConnectFailed(
                f"{today} is held by {built} on this host: it stays until that is gone ('lsblk' "
                "shows what it is; of LVM 'vgchange --activate n' of that volume group alone), and "
                "is tried again"
            )
        return None if self._devices.is_empty_map(today) else today

    def refuse_changed(
        self,
        attachment: Attachment,
        told: Mapping[str, Any],
        device: Device | None,
        today: str | None,
    ) -> None:
        """os-brick's lock was waited for.  Raises as usable_today, and Busy."""
        is_same = self.usable_today(device) == today
        if not is_same or self.is_anothers(attachment, told, device, today):
            raise Busy(
                f"what is at the address of volume {attachment.volume_id} has changed while "
                "os-brick's lock was waited for: it is looked at anew"
            )

    def is_anothers(
        self,
        attachment: Attachment,
        told: Mapping[str, Any],
        device: Device | None,
        today: str | None,
    ) -> bool:
        """Is another volume's device at the address?

        os-brick takes what is there, and an array gives LUNs and namespace ids away again: also
        of a volume that it shows by another number since, and that is here. Of a namespace that is
        here os-brick is told the name."""
        connection = attachment.connection
        if device is None or (today is not None and isinstance(connection, NvmeConnection)):
            return False
        for found in self._taken_by_os_brick(connection, told):
            is_ours = same_device(device.identity, found.identity)
            if is_ours or (today is not None and not conflict(device.identity, found.identity)):
                continue
            LOG.warning(
                "os-brick was not asked to disconnect %s: at its address is %s, and that is %s",
                attachment.volume_id,
                found.node,
                dict(found.identity),
            )
            return True
        return False

    def _taken_by_os_brick(
        self, connection: Connection, told: Mapping[str, Any]
    ) -> Sequence[Found]:
        """For the volume's device, of which it is told nothing else."""
        if isinstance(connection, NvmeConnection):
            return self._nvme.taken_by_os_brick(connection)
        return self._reader.at_address(by_ways_of(connection, told))
