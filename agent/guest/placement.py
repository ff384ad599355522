"""Where a new disk goes in the guest: target name and explicit address, free in both halves.

Explicit, so that the definition gives the disk the place that the running guest knows.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, product
from string import ascii_lowercase

from agent.errors import NoFreeAddress
from agent.guest.domain_xml import Address, DomainFacts, ScsiController, scsi_controller
from agent.guest.xml import element, parse, to_text
from agent.model.disk import Bus, Disk

SCSI_UNITS = 256
"""Units of one virtio-scsi controller that are used before another controller is added."""

FIRST_FREE_SLOT = 3
"""On bus 0 of an i440fx: 0 is the host bridge, 1 PIIX, 2 kept by libvirt for the video card."""

SLOTS: dict[str, range] = {
    "pci-root": range(FIRST_FREE_SLOT, 32),
    "pci-bridge": range(1, 32),
    "pcie-to-pci-bridge": range(1, 32),
    "pcie-root-port": range(1),
    "pcie-switch-downstream-port": range(1),
}
"""What takes a hot-plugged device. A pcie-root's own slots do not."""


@dataclass(frozen=True)
class Place:
    """``controller_xml``: a SCSI controller that at least one half still lacks. ``address`` is
    empty where libvirt shall choose, of a domain that is only to be defined."""

    target_dev: str
    address: Address
    controller_xml: str | None = None


def choose_place(disk: Disk, live: DomainFacts | None, inactive: DomainFacts | None) -> Place:
    """The lowest free place.  Raises NoFreeAddress."""
    both = [half for half in (live, inactive) if half is not None]
    assert both, "a domain runs or is defined"
    target_dev = _target_dev(disk, both)
    if disk.bus == "virtio":
        return Place(target_dev, _free_pci(both))
    return _scsi_place(target_dev, both)


def choose_places(
    disks: Sequence[Disk], live: DomainFacts | None, inactive: DomainFacts | None
) -> list[Place]:
    """One for each, as if they came one after the other.  Raises NoFreeAddress."""
    places = []
    for disk in disks:
        place = choose_place(disk, live, inactive)
        live, inactive = (half and _with_place(half, place) for half in (live, inactive))
        places.append(place)
    return places


def name_targets(disks: Sequence[Disk]) -> list[str]:
    """Target names in a domain that is only to be defined: those asked for, else the first free."""
    taken = {disk.target_dev for disk in disks}
    names = []
    for disk in disks:
        name = disk.target_dev or next(one for one in _names(disk.bus) if one not in taken)
        taken.add(name)
        names.append(name)
    return names


def keep_place(
    target_dev: str, address: Address, live: DomainFacts | None, inactive: DomainFacts | None
) -> Place:
    """The place that one half gave the disk already, for the other half."""
    both = [half for half in (live, inactive) if half is not None]
    if address["type"] != "drive":
        return Place(target_dev, address)
    return Place(target_dev, address, _lacking(int(address["controller"]), both))


def _with_place(half: DomainFacts, place: Place) -> DomainFacts:
    """The half as it is when a disk has taken the place."""
    address, controllers = place.address, dict(half.scsi_controllers)
    pci_used, scsi_used = set(half.pci_used), set(half.scsi_used)
    if address["type"] == "pci":
        pci_used.add((int(address["bus"], 0), int(address["slot"], 0)))
    else:
        scsi_used.add((int(address["controller"]), int(address["unit"])))
    if place.controller_xml is not None:
        controller = scsi_controller(parse(place.controller_xml))
        controllers.setdefault(controller.index, controller)
        if controller.address is not None:
            pci_used.add((int(controller.address["bus"], 0), int(controller.address["slot"], 0)))
    return replace(
        half,
        taken_targets=half.taken_targets | {place.target_dev},
        scsi_controllers=controllers,
        scsi_used=frozenset(scsi_used),
        pci_used=frozenset(pci_used),
    )


def _target_dev(disk: Disk, both: Iterable[DomainFacts]) -> str:
    taken = {name for half in both for name in half.taken_targets}
    if disk.target_dev is None:
        return next(name for name in _names(disk.bus) if name not in taken)
    if disk.target_dev in taken:
        raise NoFreeAddress(
            f"disk.target_dev {disk.target_dev} is taken in the guest: choose another, or leave "
            "it out"
        )
    return disk.target_dev


def _names(bus: Bus) -> Iterator[str]:
    """vda … vdz, vdaa … : Linux's order."""
    prefix = {"virtio": "vd", "scsi": "sd"}[bus]
    for length in count(1):
        for letters in product(ascii_lowercase, repeat=length):
            yield prefix + "".join(letters)


def _free_pci(both: list[DomainFacts]) -> Address:
    used = {place for half in both for place in half.pci_used}
    for bus, model in sorted(both[0].pci_buses.items()):
        if any(half.pci_buses.get(bus) != model for half in both):
            continue
        for slot in SLOTS.get(model, ()):
            if (bus, slot) not in used:
                return {
                    "type": "pci",
                    "domain": "0x0000",
                    "bus": f"0x{bus:02x}",
                    "slot": f"0x{slot:02x}",
                    "function": "0x0",
                }
    raise NoFreeAddress(
        "the guest has no free PCI(e) port for another device: detach a disk, use disk.bus scsi, "
        "or define the domain with more pcie-root-port controllers"
    )


def _scsi_place(target_dev: str, both: list[DomainFacts]) -> Place:
    controllers: dict[int, ScsiController] = {}
    for half in both:
        controllers.update(half.scsi_controllers)
    for index, controller in sorted(controllers.items()):
        if controller.model != "virtio-scsi":
            continue
        taken = {place for half in both for place in half.scsi_used}
        free = next((unit for unit in range(SCSI_UNITS) if (index, unit) not in taken), None)
        if free is not None:
            return Place(target_dev, _drive(index, free), _lacking(index, both))
    index = max(controllers, default=-1) + 1
    controller_xml = to_text(
        element(
            "controller",
            element("address", **_free_pci(both)),
            type="scsi",
            model="virtio-scsi",
            index=index,
        )
    )
    return Place(target_dev, _drive(index, 0), controller_xml)


def _drive(controller: int, unit: int) -> Address:
    return {
        "type": "drive",
        "controller": str(controller),
        "bus": "0",
        "target": "0",
        "unit": str(unit),
    }


def _lacking(index: int, both: list[DomainFacts]) -> str | None:
    """The controller's XML where a half lacks it: taken from the half that has it."""
    having = [half for half in both if index in half.scsi_controllers]
    if len(having) == len(both) or not having:
        return None
    return having[0].scsi_controllers[index].xml
