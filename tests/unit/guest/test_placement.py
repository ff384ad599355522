"""A place is free in both halves, explicit, and the lowest there is."""

import pytest

from agent.errors import NoFreeAddress
from agent.guest.domain_xml import DomainFacts, parse_domain
from agent.guest.placement import SCSI_UNITS, choose_place, keep_place
from agent.model.disk import Disk


def ports(count: int) -> str:
    return "<controller type='pci' index='0' model='pcie-root'/>" + "".join(
        f"<controller type='pci' index='{bus}' model='pcie-root-port'>"
        f"<address type='pci' bus='0x00' slot='0x{bus:02x}'/></controller>"
        for bus in range(1, count + 1)
    )


def virtio(bus: int, target: str = "vda") -> str:
    return (
        f"<disk><target dev='{target}' bus='virtio'/>"
        f"<address type='pci' domain='0x0000' bus='0x{bus:02x}' slot='0x00' function='0x0'/></disk>"
    )


def scsi_controller(index: int, model: str = "virtio-scsi", bus: int = 1) -> str:
    return (
        f"<controller type='scsi' index='{index}' model='{model}'><alias name='scsi{index}'/>"
        f"<address type='pci' domain='0x0000' bus='0x{bus:02x}' slot='0x00' function='0x0'/>"
        "</controller>"
    )


def scsi_disk(unit: int, controller: int = 0) -> str:
    return (
        f"<disk><target dev='sd{unit}' bus='scsi'/><address type='drive' bus='0' target='0' "
        f"controller='{controller}' unit='{unit}'/></disk>"
    )


def half(*devices: str) -> DomainFacts:
    return parse_domain(f"<domain><devices>{''.join(devices)}</devices></domain>")


VIRTIO = Disk(bus="virtio")
SCSI = Disk(bus="scsi")


def test_a_port_taken_in_either_half_is_not_free() -> None:
    live = half(ports(3), virtio(1))
    inactive = half(ports(3), virtio(1), virtio(2, "vdb"))
    place = choose_place(VIRTIO, live, inactive)
    assert place.address["bus"] == "0x03"
    assert place.target_dev == "vdc"


def test_a_port_that_one_half_lacks_is_no_place() -> None:
    with pytest.raises(NoFreeAddress, match="pcie-root-port"):
        choose_place(VIRTIO, half(ports(2), virtio(1)), half(ports(1), virtio(1)))


def test_a_port_whose_hotplug_is_off_is_no_place() -> None:
    closed = ports(2).replace(
        "<address type='pci' bus='0x00' slot='0x02'/>", "<target hotplug='off'/>"
    )
    with pytest.raises(NoFreeAddress, match="pcie-root-port"):
        choose_place(VIRTIO, half(closed, virtio(1)), None)


def test_pcie_root_itself_takes_no_hot_plugged_disk() -> None:
    with pytest.raises(NoFreeAddress):
        choose_place(VIRTIO, half(ports(0)), None)


def test_on_an_i440fx_slots_begin_at_3_and_end_at_31() -> None:
    root = "<controller type='pci' index='0' model='pci-root'/>"
    used = [f"<video><address type='pci' bus='0' slot='{slot}'/></video>" for slot in range(3, 31)]
    assert choose_place(VIRTIO, half(root), None).address["slot"] == "0x03"
    assert choose_place(VIRTIO, half(root, *used), None).address["slot"] == "0x1f"


def test_a_taken_target_name_is_its_own_error() -> None:
    with pytest.raises(NoFreeAddress, match="vda is taken"):
        choose_place(Disk(target_dev="vda"), half(ports(2), virtio(1)), None)


def test_after_vdz_comes_vdaa() -> None:
    disks = [f"<disk><target dev='vd{letter}'/></disk>" for letter in "abcdefghijklmnopqrstuvwxyz"]
    assert choose_place(VIRTIO, half(ports(2), *disks), None).target_dev == "vdaa"


def test_the_lowest_unit_that_is_free_in_both_halves() -> None:
    live = half(ports(2), scsi_controller(0), scsi_disk(0), scsi_disk(2))
    inactive = half(ports(2), scsi_controller(0), scsi_disk(0), scsi_disk(1))
    place = choose_place(SCSI, live, inactive)
    assert (place.address["controller"], place.address["unit"]) == ("0", "3")
    assert place.controller_xml is None


def test_a_unit_that_a_host_device_has_is_taken_and_one_on_another_bus_is_not() -> None:
    passed_through = (
        "<hostdev mode='subsystem' type='scsi'><source><adapter name='scsi_host0'/>"
        "<address bus='0' target='0' unit='5'/></source>"
        "<address type='drive' controller='0' bus='0' target='0' unit='0'/></hostdev>"
    )
    sata = (
        "<disk><target dev='sda' bus='sata'/>"
        "<address type='drive' controller='0' bus='0' target='0' unit='1'/></disk>"
    )
    place = choose_place(SCSI, half(ports(2), scsi_controller(0), passed_through, sata), None)
    assert place.address["unit"] == "1"


def test_a_full_controller_is_followed_by_another_one() -> None:
    full = [scsi_disk(unit) for unit in range(SCSI_UNITS)]
    place = choose_place(SCSI, half(ports(2), scsi_controller(0), *full), None)
    assert (place.address["controller"], place.address["unit"]) == ("1", "0")
    assert place.controller_xml is not None
    made = half(place.controller_xml).scsi_controllers[1]
    assert made.model == "virtio-scsi"
    assert made.address is not None
    assert made.address["bus"] == "0x02"


def test_full_controllers_are_passed_over_before_one_is_added() -> None:
    """Up to the last unit of the last controller, then a new one, then no port for it: the end."""

    def guest(*disks: str, spare: int) -> DomainFacts:
        controllers = [scsi_controller(index, bus=index + 1) for index in range(3)]
        return half(ports(3 + spare), *controllers, *disks)

    full = [scsi_disk(unit, index) for index in range(3) for unit in range(SCSI_UNITS)]
    for disks, wanted in ((full[:512], ("2", "0")), (full[:-1], ("2", str(SCSI_UNITS - 1)))):
        place = choose_place(SCSI, guest(*disks, spare=0), None)
        assert (place.address["controller"], place.address["unit"]) == wanted
        assert place.controller_xml is None

    place = choose_place(SCSI, guest(*full, spare=1), None)
    assert (place.address["controller"], place.address["unit"]) == ("3", "0")
    with pytest.raises(NoFreeAddress, match="no free PCI"):
        choose_place(SCSI, guest(*full, spare=0), None)


def test_another_model_of_controller_is_not_used_but_its_index_is_taken() -> None:
    place = choose_place(SCSI, half(ports(2), scsi_controller(0, "lsilogic")), None)
    assert place.address["controller"] == "1"


def test_no_port_for_a_further_controller() -> None:
    with pytest.raises(NoFreeAddress):
        choose_place(SCSI, half(ports(1), virtio(1)), None)


def test_a_half_without_the_controller_gets_the_other_half_s() -> None:
    live = half(ports(2), scsi_controller(0, bus=2))
    place = choose_place(SCSI, live, half(ports(2)))
    assert place.controller_xml is not None
    copied = half(place.controller_xml).scsi_controllers[0]
    assert copied == live.scsi_controllers[0]
    assert "alias" not in place.controller_xml


def test_the_other_half_keeps_the_place_and_gets_the_controller() -> None:
    live = half(ports(2), scsi_controller(0, bus=2), scsi_disk(4))
    address = live.disks[0].address
    assert address is not None
    place = keep_place("sd4", address, live, half(ports(2)))
    assert place.address == address
    assert place.controller_xml == live.scsi_controllers[0].xml
