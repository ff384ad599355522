"""The <disk> of every kind of attachment, as files to read: tests/unit/guest/golden/*.xml.

``pytest --rewrite-golden`` writes them anew; read the diff.
"""

from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from agent.guest.disk_xml import differences, disk_xml
from agent.guest.domain_xml import parse_domain
from agent.guest.placement import Place
from agent.model.device import Device
from agent.model.disk import BlockSize, Disk, IoTune
from tests.samples import attachment, local

GOLDEN = Path(__file__).parent / "golden"
SCHEMA = Path("/usr/share/libvirt/schemas/domain.rng")

PCI = {"type": "pci", "domain": "0x0000", "bus": "0x05", "slot": "0x00", "function": "0x0"}
DRIVE = {"type": "drive", "controller": "0", "bus": "0", "target": "0", "unit": "3"}
RBD = {
    "driver_volume_type": "rbd",
    "data": {
        "name": "volumes/volume-1",
        "hosts": ["192.0.2.1", "192.0.2.2"],
        "ports": ["6789", "6789"],
        "auth_enabled": True,
        "auth_username": "openstack",
        "secret_uuid": "457eb676-33da-42ec-9a8c-9293d545c337",
    },
}
ISCSI_WITH_CHAP = {
    "driver_volume_type": "iscsi",
    "data": {
        "target_portals": ["[2001:db8::1]:3261", "192.0.2.1:3260"],
        "target_iqns": ["iqn.2026-01.org.example:target"] * 2,
        "target_luns": [7, 7],
        "auth_method": "CHAP",
        "auth_username": "user",
        "auth_password": "secret",
    },
}
RBD_WITH_KEY = {
    "driver_volume_type": "rbd",
    "data": {
        "name": "volumes/volume-1",
        "auth_enabled": True,
        "auth_username": "openstack",
        "keyring": "AQD0LLRkAAAAABAA1nXnGTzJkPxWZAB0bPcpVg==",
    },
}
NFS = {
    "driver_volume_type": "nfs",
    "data": {"export": "192.0.2.3:/srv", "name": "volume-1", "format": "qcow2"},
}
CEILINGS = {
    "total_bytes_sec_max": 40_000_000,
    "total_bytes_sec_max_length": 10,
    "total_iops_sec_max": 4000,
    "total_iops_sec_max_length": 5,
    "size_iops_sec": 4096,
    "group_name": "tenant-1",
}
BY_DIRECTION = {
    f"{direction}_{what}{more}": amount
    for direction in ("read", "write")
    for what, amount in (("bytes_sec", 10_000_000), ("iops_sec", 500))
    for more in ("", "_max", "_max_length")
}

LUKS = {"format": "luks", "secret_file": "/run/credentials/agent/volume-1"}

CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "shared": {"multiattach": True},
    "shared-read-only": {"multiattach": True, "access_mode": "ro"},
    "shared-writeback-asked": {"multiattach": True, "disk": {"cache": "writeback"}},
    "read-only-by-connection": {
        "connection_info": {
            "driver_volume_type": "local",
            "data": {"device_path": "/dev/loop7", "access_mode": "ro"},
        }
    },
    "performance": {
        "disk": {
            "io": "native",
            "iothread": 2,
            "queues": 4,
            "discard": "unmap",
            "error_policy": "stop",
            "block_size": {"logical": 4096, "physical": 4096},
            "boot_order": 1,
            "cache": "directsync",
            "target_dev": "vdc",
        }
    },
    "block-size-logical": {"disk": {"block_size": {"logical": 4096}}},
    "limits-total": {
        "disk": {"iotune": {"total_bytes_sec": 20_000_000, "total_iops_sec": 2000, **CEILINGS}}
    },
    "limits-by-direction": {"disk": {"iotune": BY_DIRECTION}},
    "scsi": {"disk": {"bus": "scsi"}},
    "scsi-lun-reservations": {
        "multiattach": True,
        "disk": {"bus": "scsi", "type": "lun", "reservations": "managed"},
    },
    "lun-by-its-own-initiator": {
        "connection_info": ISCSI_WITH_CHAP,
        "initiator": "instance",
        "multiattach": True,
        "disk": {"bus": "scsi", "type": "lun", "reservations": "managed"},
    },
    "luks-by-its-own-initiator": {
        "connection_info": {
            "driver_volume_type": "iscsi",
            "data": {
                "target_portal": "192.0.2.1:3260",
                "target_iqn": "iqn.2026-01.org.example:target",
                "target_lun": 0,
            },
        },
        "initiator": "instance",
        "encryption": LUKS,
    },
    "rbd": {"connection_info": RBD, "multiattach": True},
    "rbd-with-its-key": {"connection_info": RBD_WITH_KEY},
    "nfs-qcow2": {"connection_info": NFS},
    "luks": {"encryption": LUKS},
    "luks-shared": {"encryption": LUKS, "multiattach": True},
    "luks-rbd": {"connection_info": RBD, "encryption": LUKS},
}

DEVICE = Device(path="/dev/disk/by-id/wwn-0x6001405", identity={}, size_bytes=1 << 30)


def rendered(case: str) -> str:
    wish = attachment(**CASES[case])
    scsi = wish.disk.bus == "scsi"
    target_dev = wish.disk.target_dev or ("sda" if scsi else "vdb")
    device = DEVICE
    if wish.connection.source_type == "file":
        device = Device(path="/var/mnt/0f/volume-1", identity={}, size_bytes=1 << 30)
    return disk_xml(wish, device, Place(target_dev, DRIVE if scsi else PCI))


@pytest.mark.parametrize("case", CASES)
def test_the_disk_is_the_golden_one(case: str, request: pytest.FixtureRequest) -> None:
    golden = GOLDEN / f"{case}.xml"
    if request.config.getoption("--rewrite-golden"):
        golden.write_text(rendered(case))
    assert rendered(case) == golden.read_text()


def test_every_field_of_a_disk_is_varied_by_some_golden_file() -> None:
    varied: set[str] = set()
    tuned: set[str] = set()
    sized: set[str] = set()
    for case in CASES.values():
        wish = case.get("disk", {})
        varied |= wish.keys()
        tuned |= wish.get("iotune", {}).keys()
        sized |= wish.get("block_size", {}).keys()
    assert varied == Disk.model_fields.keys()
    assert tuned == IoTune.model_fields.keys()
    assert sized == BlockSize.model_fields.keys()


def test_no_golden_file_is_left_over() -> None:
    assert {file.stem for file in GOLDEN.glob("*.xml")} == CASES.keys()


@pytest.mark.real
@pytest.mark.parametrize("case", CASES)
def test_libvirt_s_schema_accepts_the_disk(case: str) -> None:
    domain = etree.fromstring(
        "<domain type='qemu'><name>n</name><memory>1024</memory>"
        "<os><type arch='x86_64' machine='q35'>hvm</type></os>"
        f"<devices>{rendered(case)}</devices></domain>"
    )
    etree.RelaxNG(file=str(SCHEMA)).assertValid(domain)


@pytest.mark.parametrize("case", CASES)
def test_what_libvirt_shows_of_our_disk_is_recognised_as_ours(case: str) -> None:
    wish = attachment(**CASES[case])
    disk = parse_domain(f"<domain><devices>{rendered(case)}</devices></domain>").disk_by_alias(
        "ua-att-1"
    )
    assert disk is not None
    assert differences(disk, wish, lambda name: frozenset({name}), disk.source) == []


@pytest.mark.parametrize(
    ("different", "told"),
    [
        ({"volume_id": "other"}, "serial is aaaaaaaa-0000-4000-8000-000000000001, not other"),
        ({"multiattach": True}, "shareable is False, not True"),
        ({"access_mode": "ro"}, "readonly is False, not True"),
        ({"disk": {"bus": "scsi"}}, "bus is virtio, not scsi"),
        ({"disk": {"cache": "writeback"}}, "cache is none, not writeback"),
        ({"disk": {"target_dev": "vdx"}}, "target is vdb, not vdx"),
        ({"connection_info": NFS}, "driver type is raw, not qcow2"),
    ],
)
def test_another_disk_is_told_apart(different: dict[str, Any], told: str) -> None:
    there = parse_domain(f"<domain><devices>{rendered('plain')}</devices></domain>").disks[0]
    assert told in differences(there, attachment(**different), lambda n: frozenset({n}), None)


def test_the_same_alias_on_another_source_is_told_apart() -> None:
    there = parse_domain(f"<domain><devices>{rendered('plain')}</devices></domain>").disks[0]
    wish = attachment(connection_info=local("/dev/loop8"))
    wrong = differences(there, wish, lambda name: frozenset({name}), "/dev/loop8")
    assert wrong == [f"source is {DEVICE.path}, not /dev/loop8"]
