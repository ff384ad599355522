"""Controllers of NVMe over fabrics: what os-brick leaves behind of them is taken away here.

    /sys/class/nvme-fabrics/ctl/
    └── nvme0/               a controller: one connection to a subsystem, by one portal
        ├── subsysnqn
        ├── address          traddr=192.0.2.20,trsvcid=4420
        └── nvme0c0n1/       a path of the namespace nvme0n1 (or nvme0n1 itself, without multipath)
            └── uuid, nguid, nsid

os-brick disconnects a controller that shows nothing, or nothing but the volume of the call. So a
connect that did not find its volume among others leaves the controller that it has made; and a
disconnect does not even look where the storage side took the namespace away first.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from agent.errors import ConnectFailed
from agent.host.block_devices import BlockDevices, Found
from agent.host.brick_refusals import FOREIGN, reason_of
from agent.host.brick_trail import Trail
from agent.host.nvme_sysfs import Controller
from agent.model.connection import NvmeConnection, as_uuid
from agent.model.device import Device


class NvmeControllers:
    """Callers that change something hold the target's lock and os-brick's lock of the host: no
    other program connects meanwhile."""

    def __init__(self, devices: BlockDevices) -> None:
        self._devices = devices

    @contextmanager
    def undone_if_it_fails(self, connection: NvmeConnection, trail: Trail) -> Iterator[None]:
        """Around a connect: if that fails, the controllers go that were not there before it,
        unless something is built on what they show."""
        before = {controller.name for controller in self._of(connection)}
        try:
            yield
        except FOREIGN:
            for controller in self._of(connection):
                if controller.name not in before and not self._is_held(controller):
                    with suppress(*FOREIGN):  # in the trail; why the connect failed matters more
                        _disconnect(controller, trail)
            raise

    def leave_empty(self, nqn: str, portals: Collection[str], trail: Trail) -> None:
        """Those that lead to the subsystem by these portals, and show no namespace, go."""
        for controller in self._devices.controllers(nqn):
            if controller.way in portals and not controller.namespaces:
                _disconnect(controller, trail)

    def leave_subsystem(self, device: Device, trail: Trail) -> None:
        """As leave_empty, of a namespace that was left behind.  Raises ConnectFailed."""
        assert device.subsystem is not None, "not one of NVMe over fabrics"
        try:
            self.leave_empty(device.subsystem, device.portals, trail)
        except FOREIGN as error:
            raise ConnectFailed(
                f"a controller of {device.subsystem} that shows no namespace stays: "
                f"{reason_of(error, trail)}; it is tried again"
            ) from error

    def find(self, connection: NvmeConnection) -> list[Found]:
        """The volume among what its subsystem shows, by what os-brick would know it."""
        _attribute, value = _mark(connection)
        return self.taken_by_os_brick(connection) if value else []

    def taken_by_os_brick(self, connection: NvmeConnection) -> list[Found]:
        """For the volume: as find, but anything that is shown where the request says nothing of it
        (os-brick: get_device_path_by_initial_devices)."""
        attribute, value = _mark(connection)
        shown = [
            self._devices.namespace(path)
            for controller in self._of(connection)
            for path in controller.namespaces
            if not value or _says(path / attribute) == value
        ]
        return [found for found in shown if found]

    def _of(self, connection: NvmeConnection) -> list[Controller]:
        [nqn] = connection.targets
        return self._devices.controllers(nqn)

    def _is_held(self, controller: Controller) -> bool:
        shown = [self._devices.namespace(path) for path in controller.namespaces]
        return any(self._devices.holders(found.node) for found in shown if found)


def _mark(connection: NvmeConnection) -> tuple[str, str]:
    """Attribute of a namespace in sysfs, and its value; the best that the request names.

    What is no UUID no namespace has: nothing is found by it."""
    data = connection.properties()
    for attribute, key in (("uuid", "vol_uuid"), ("nguid", "volume_nguid")):
        if data.get(key):
            return attribute, as_uuid(data[key]) or str(data[key])
    return "nsid", "" if data.get("ns_id") is None else str(data["ns_id"])


def _says(attribute: Path) -> str:
    try:
        return attribute.read_text().strip()
    except OSError:  # the namespace has just gone
        return ""


def _disconnect(controller: Controller, trail: Trail) -> None:
    trail.execute("nvme", "disconnect", "-d", f"/dev/{controller.name}", run_as_root=True)
