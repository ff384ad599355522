"""Where a volume is on this host, whoever brought it: looked up, and nothing is connected.

What os-brick would answer is known without it: udev names SCSI devices by their address, an NVMe
subsystem shows its namespaces, a file is below its mount, and the rest says where it is.
"""

from collections.abc import Sequence

from agent.errors import ConnectFailed, Invalid, LunMissing
from agent.host.block_devices import BlockDevices, Found
from agent.host.brick_device import DeviceReader
from agent.host.image import look_at_image
from agent.host.mounts import Mounts
from agent.host.nvme import NvmeControllers
from agent.model.connection import Connection, LocalConnection, NvmeConnection
from agent.model.device import Device


class Finder:
    def __init__(
        self, devices: BlockDevices, reader: DeviceReader, nvme: NvmeControllers, mounts: Mounts
    ) -> None:
        self._devices = devices
        self._reader = reader
        self._nvme = nvme
        self._mounts = mounts

    def find(self, connection: Connection) -> Device | None:
        """As ports.Connectors. Of what QEMU reaches by itself nobody here knows the size: 0."""
        if connection.source_type == "network":
            source = connection.known_source
            assert source is not None, "a network disk is where the request says"
            return Device(path=source, identity={"path": source}, size_bytes=0)
        if connection.export is not None:
            return self._image(connection, connection.export)
        for found in self._blocks(connection):
            device = self._reader.at(connection, found)
            own = connection.known_source
            if own is None:
                return device
            info = {"type": "block", "path": own}
            return Device.model_validate({**device.reveal(), "path": own, "device_info": info})
        return None

    def _blocks(self, connection: Connection) -> Sequence[Found]:
        if isinstance(connection, LocalConnection):
            found = self._devices.look(connection.known_source)
            return [] if found is None else [found]
        if isinstance(connection, NvmeConnection):
            return self._nvme.find(connection)
        return self._reader.at_address(connection)

    def _image(self, connection: Connection, export: str) -> Device | None:
        """None also where the server does not answer, or the file is none for a guest."""
        path = self._mounts.file_of(export, str(connection.properties().get("name")))
        if path is None:
            return None
        try:
            image = look_at_image(path, connection.source_format)
        except (ConnectFailed, LunMissing, Invalid):
            return None
        return Device(
            path=path,
            identity={"path": path},
            size_bytes=image.size_bytes,
            read_only=image.read_only,
            device_info={"path": path},
        )
