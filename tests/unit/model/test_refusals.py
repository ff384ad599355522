"""Every wrong field is refused by its name, and what was sent is never shown."""

import re
from typing import Any

import pytest

from agent.errors import Invalid
from agent.model.attachment import Attachment
from agent.model.request import (
    AttachRequest,
    DetachRequest,
    ExtendRequest,
    OperationFilters,
    WaitRequest,
)
from tests.samples import INSTANCES, VOLUMES, attachment_payload, local

CANARY = "canary-of-4711"

LATER = "2026-11-24T12:00:00Z"

ISCSI = {"target_portal": "192.0.2.1:3260", "target_iqn": "iqn.2026-01.example:1", "target_lun": 1}

NVME = {"target_nqn": "nqn.2026-01.example:1", "portals": [["192.0.2.1", 4420, "tcp"]]}

OLD_NVME = {"nqn": "n", "target_portal": "p", "target_port": "4420", "transport_type": "tcp"}

RBD = {"name": "pool/image", "hosts": ["192.0.2.1"], "ports": ["6789"]}


def info(protocol: str, data: dict[str, Any], **different: Any) -> dict[str, Any]:
    """connection_info whose data has these fields changed; None leaves one out."""
    changed = {**data, **different}
    return {
        "driver_volume_type": protocol,
        "data": {name: value for name, value in changed.items() if value is not None},
    }


def connection(protocol: str, data: dict[str, Any], **different: Any) -> dict[str, Any]:
    return {"connection_info": info(protocol, data, **different)}


WRONG_ATTACHMENTS: list[tuple[str, dict[str, Any], str]] = [
    # ids, and what libvirt would silently drop
    ("attachment_id", {"attachment_id": "canary of 4711"}, "pattern"),
    ("attachment_id", {"attachment_id": "a\n"}, "pattern"),
    ("attachment_id", {"attachment_id": ""}, "pattern"),
    ("attachment_id", {"attachment_id": "a" * 65}, "pattern"),
    ("attachment_id", {"attachment_id": 4711}, "string"),
    ("attachment_id", {"attachment_id": None}, "string"),
    ("volume_id", {"volume_id": "a/canary-of-4711"}, "pattern"),
    ("instance_id", {"instance_id": CANARY}, "lower-case uuid"),
    ("instance_id", {"instance_id": INSTANCES[0].replace("0", "A")}, "lower-case uuid"),
    ("instance_id", {"instance_id": f"{INSTANCES[0]}\n"}, "lower-case uuid"),
    # integers are integers, flags are flags
    ("generation", {"generation": -1}, "greater than or equal to 0"),
    ("generation", {"generation": "1"}, "integer"),
    ("generation", {"generation": 1.0}, "integer"),
    ("generation", {"generation": True}, "integer"),
    ("generation", {"generation": 2**63}, "less than or equal to"),
    ("size_bytes", {"size_bytes": 0}, "greater than or equal to 1"),
    ("size_bytes", {"size_bytes": 10**400}, "less than or equal to"),
    ("size_bytes", {"size_bytes": "10G"}, "integer"),
    ("multiattach", {"multiattach": "yes"}, "boolean"),
    ("multiattach", {"multiattach": 1}, "boolean"),
    ("multiattach", {"multiattach": None}, "boolean"),
    ("max_writers", {"max_writers": 0, "multiattach": True}, "greater than"),
    ("max_writers", {"max_writers": "1", "multiattach": True}, "integer"),
    ("initiator", {"initiator": CANARY}, "'instance'"),
    ("shared_targets", {"shared_targets": CANARY}, "boolean"),
    ("require_all_paths", {"require_all_paths": 1}, "boolean"),
    ("service_uuid", {"service_uuid": 4711}, "string"),
    ("access_mode", {"access_mode": CANARY}, "'rw' or 'ro'"),
    # names that are not ours
    ("multi_attach", {"multi_attach": CANARY}, "not permitted"),
    ("disk.vendor", {"disk": {"vendor": CANARY}}, "not permitted"),
    ("identity.wwid", {"identity": {"wwid": CANARY}}, "not permitted"),
    ("identity.wwn", {"identity": {"wwn": 4711}}, "string"),
    # encryption
    ("encryption", {"encryption": {"format": "luks"}}, "exactly one of"),
    (
        "encryption",
        {"encryption": {"format": "luks", "secret_file": "/k", "passphrase": CANARY}},
        "exactly one of",
    ),
    ("encryption.format", {"encryption": {"format": CANARY, "secret_file": "/k"}}, "'luks2'"),
    ("connection_info", {"connection_info": None}, "must be an object"),
    ("connection_info", {"connection_info": CANARY}, "must be an object"),
    ("driver_volume_type", {"connection_info": {}}, "required"),
    ("data", {"connection_info": {"driver_volume_type": "iscsi", "data": [4711]}}, "an object"),
    ("disk", {"disk": CANARY}, "must be an object"),
    ("identity", {"identity": 4711}, "must be an object"),
    ("identity", {"identity": {}}, "names nothing"),
    ("identity", {"identity": {"wwn": None}}, "names nothing"),
    ("identity", {"identity": {"wwn": "0x5000", "serial": " "}}, "serial is empty"),
    ("identity", {"identity": {"nguid": "00000000-0000-0000"}}, "names no device"),
    # what neither XML nor a path can hold
    ("service_uuid", {"service_uuid": f"{CANARY}\0"}, "a character"),
    ("device_path", connection("local", {"device_path": "/dev/\0"}), "a character"),
    (
        "data.vendor.1.deep",
        connection("iscsi", ISCSI, vendor=["", {"deep": "\x1b"}]),
        "a character",
    ),
    ("name", connection("nfs", {"export": "h:/e", "name": "\ud800"}), "a character"),
    ("driver_volume_type", connection(CANARY, {}), "is none of iscsi"),
    ("driver_volume_type", connection("sheepdog", {}), "is none of iscsi"),
    # iscsi
    ("data", connection("iscsi", ISCSI, target_lun=None), "needs target_portal"),
    ("data", connection("iser", ISCSI, target_portal=None), "needs target_portal"),
    ("target_lun", connection("iscsi", ISCSI, target_lun="1"), "integer"),
    ("target_lun", connection("iscsi", ISCSI, target_lun=True), "integer"),
    ("target_lun", connection("iscsi", ISCSI, target_lun=-1), "greater"),
    ("data", connection("iscsi", ISCSI, target_luns=[1]), "the same length"),
    (
        "data",
        connection(
            "iscsi", {}, target_portals=["a.b:1", "c.d:1"], target_iqns=["c"], target_luns=[1]
        ),
        "the same length",
    ),
    ("target_luns.0", connection("iscsi", ISCSI, target_luns=[CANARY]), "integer"),
    ("auth_password", connection("iscsi", ISCSI, auth_password=4711), "string"),
    ("access_mode", connection("iscsi", ISCSI, access_mode=CANARY), "'rw' or 'ro'"),
    # fibre_channel, nvmeof
    ("data", connection("fibre_channel", {"target_lun": 1}), "needs target_wwn"),
    ("data", connection("fibre_channel", {"target_wwn": "50"}), "needs target_lun"),
    ("data", connection("fibre_channel", {"target_wwn": [], "target_lun": 1}), "needs target_wwn"),
    ("data", connection("nvmeof", NVME, portals=None), "needs target_nqn and portals"),
    ("data", connection("nvmeof", {"nqn": "n", "target_portal": "p"}), "needs target_nqn"),
    ("portals.0.1", connection("nvmeof", NVME, portals=[[CANARY]]), "required"),
    ("portals.0.0", connection("nvmeof", NVME, portals=[[4711, 1, "tcp"]]), "string"),
    ("export", connection("nfs", {"export": "h:/e\x00", "name": "v"}), "a character"),
    ("name", connection("nfs", {"export": "h:/e", "name": "v\x00"}), "a character"),
    # vendors': without it os-brick cannot disconnect either
    ("connection_info", connection("storpool", {"volume": "v"}), "data needs client_id"),
    ("connection_info", connection("storpool", {"client_id": 1}), "data needs volume"),
    ("connection_info", connection("lightos", {}), "data needs uuid"),
    ("connection_info", connection("huaweisdshypervisor", {}), "data needs volume_id"),
    # nfs, rbd, local
    ("name", connection("nfs", {"export": "h:/e", "name": f"../{CANARY}"}), "plain file name"),
    ("name", connection("nfs", {"export": "h:/e", "name": ".."}), "plain file name"),
    ("name", connection("nfs", {"export": "h:/e", "name": ""}), "plain file name"),
    ("export", connection("nfs", {"name": "volume"}), "required"),
    ("format", connection("nfs", {"export": "h:/e", "name": "v", "format": CANARY}), "'qcow2'"),
    ("data", connection("rbd", RBD, name=CANARY), "pool/image"),
    ("data", connection("rbd", RBD, name=f"{CANARY}/"), "pool/image"),
    ("data", connection("rbd", RBD, ports=[]), "the same length"),
    ("data", connection("rbd", RBD, auth_enabled=True), "and secret_uuid or keyring"),
    (
        "data",
        connection(
            "rbd", RBD, auth_enabled=True, auth_username="a", keyring="[client.b]\n key = QQ=="
        ),
        "no key of auth_username",
    ),
    ("device_path", connection("local", {"device_path": CANARY}), "absolute path"),
    ("device_path", connection("local", {"device_path": f"/dev/../{CANARY}"}), "absolute path"),
    ("device_path", connection("local", {}), "required"),
    # the disk
    ("disk.bus", {"disk": {"bus": CANARY}}, "'virtio' or 'scsi'"),
    ("disk.target_dev", {"disk": {"target_dev": CANARY}}, "pattern"),
    ("disk.target_dev", {"disk": {"target_dev": "vdb'/>"}}, "pattern"),
    ("disk.cache", {"disk": {"cache": CANARY}}, "'none'"),
    ("disk.io", {"disk": {"io": CANARY}}, "'native'"),
    ("disk.discard", {"disk": {"discard": CANARY}}, "'unmap'"),
    ("disk.iothread", {"disk": {"iothread": 0}}, "greater"),
    ("disk.queues", {"disk": {"queues": "4"}}, "integer"),
    ("disk.queues", {"disk": {"queues": 1025}}, "less"),
    ("disk.boot_order", {"disk": {"boot_order": 0}}, "greater"),
    ("disk.boot_order", {"disk": {"boot_order": 2**31}}, "less"),
    ("disk.error_policy", {"disk": {"error_policy": CANARY}}, "'report'"),
    ("disk.reservations", {"disk": {"reservations": CANARY}}, "'managed'"),
    ("disk.block_size.logical", {"disk": {"block_size": {"logical": 256}}}, "power of two"),
    ("disk.block_size.physical", {"disk": {"block_size": {"physical": 4711}}}, "power of two"),
    ("disk.block_size.physical", {"disk": {"block_size": {"physical": 1 << 22}}}, "power of two"),
    (
        "disk.block_size",
        {"disk": {"block_size": {"logical": 4096, "physical": 512}}},
        "logical must not be larger",
    ),
    ("disk.iotune.read_iops_sec", {"disk": {"iotune": {"read_iops_sec": -1}}}, "greater"),
    ("disk.iotune.total_bytes_sec", {"disk": {"iotune": {"total_bytes_sec": 10**16}}}, "less"),
    ("disk.iotune.group_name", {"disk": {"iotune": {"group_name": "a'/>"}}}, "pattern"),
    ("disk.iotune.bytes", {"disk": {"iotune": {"bytes": 4711}}}, "not permitted"),
]

BAD_MODE = "addressing_mode must be one of SAM, SAM2, SAM3-flat, transparent"
NO_UUID = "must be 32 hexadecimal digits"

UNREADABLE: list[tuple[dict[str, Any], str]] = [
    (connection("iscsi", ISCSI, addressing_mode=CANARY), BAD_MODE),
    (connection("iser", ISCSI, addressing_mode=["SAM"]), BAD_MODE),
    (
        connection("fibre_channel", {"target_wwn": "50", "target_lun": 0}, addressing_mode="sam"),
        BAD_MODE,
    ),
    (connection("nvmeof", NVME, vol_uuid=CANARY), f"vol_uuid {NO_UUID}"),
    (connection("nvmeof", NVME, volume_nguid=f"{VOLUMES[0]}0"), f"volume_nguid {NO_UUID}"),
    (connection("nvmeof", NVME, volume_nguid=4711), f"volume_nguid {NO_UUID}"),
    (connection("nvmeof", OLD_NVME, volume_nguid=CANARY), f"volume_nguid {NO_UUID}"),
    (
        connection("nvmeof", NVME, vol_uuid="1", volume_nguid="2"),
        f"vol_uuid {NO_UUID}, with or without hyphens, or left out; volume_nguid",
    ),
]
"""By os-brick, which raises what it raises: tests/unit/host/test_brick_reads.py."""

TRAPS: list[tuple[dict[str, Any], str]] = [
    (connection("iscsi", ISCSI, target_iqn=""), "an IQN must not be empty"),
]
"""os-brick would log in to all nodes of the portal, and out of them."""

CONTRADICTIONS: list[tuple[dict[str, Any], str]] = [
    ({"disk": {"io": "native", "cache": "writeback"}}, "io native needs"),
    ({"disk": {"io": "native", "cache": "default"}}, "io native needs"),
    ({"disk": {"bus": "scsi", "target_dev": "vdb"}}, "must start with sd"),
    ({"disk": {"target_dev": "sdb"}}, "must start with vd"),
    ({"disk": {"type": "lun"}}, "type lun needs bus scsi"),
    (
        {"disk": {"type": "lun", "bus": "scsi", "block_size": {"logical": 512}}},
        "block_size cannot be set for type lun",
    ),
    *(
        (
            {"disk": {"type": "lun", "bus": "scsi", "error_policy": policy}},
            f"error_policy {policy} cannot go with type lun",
        )
        for policy in ("stop", "enospace")
    ),
    *(
        (connection("iscsi", ISCSI, target_portal=portal), "a portal must be ADDRESS:PORT")
        for portal in (
            "",
            "array:3260",
            "::1:3260",
            "192.0.2.1",
            "192.0.2.1:3260,1",
            "192.0.2.1:",
            " 192.0.2.1",
            "[::ffff:192.0.2.1]:1",
        )
    ),
    (
        connection(
            "iser",
            ISCSI,
            target_portals=["192.0.2.1:3260", "array"],
            target_iqns=["iqn.2026-01.example:1"] * 2,
            target_luns=[1, 1],
        ),
        "a portal must be ADDRESS:PORT",
    ),
    ({"max_writers": 1}, "max_writers needs multiattach"),
    (
        {"initiator": "instance", **connection("local", {"device_path": "/dev/x"})},
        "initiator instance needs driver_volume_type iscsi",
    ),
    (
        {"initiator": "instance", **connection("iser", ISCSI)},
        "initiator instance needs driver_volume_type iscsi",
    ),
    (
        {"initiator": "instance", **connection("iscsi", ISCSI), "identity": {"wwn": "0x5000"}},
        "identity cannot be proven with initiator instance",
    ),
    *(
        ({**given, "identity": {"wwn": "0x5000"}}, f"identity cannot be proven: {why}")
        for given, why in (
            (connection("rbd", RBD), "this connection gives a network"),
            (connection("nfs", {"export": "h:/e", "name": "v"}), "this connection gives a file"),
            (connection("quobyte", {"export": "h/e", "name": "v"}), "this connection gives a file"),
            (connection("vzstorage", {"export": "vz", "name": "v"}), "this connection gives a"),
            (connection("gpfs", {"device_path": "/gpfs/v"}), "this connection gives a file"),
        )
    ),
    *(
        ({**given, "identity": {"nguid": "1" * 32, "serial": "s"}}, "identity.serial is no")
        for given in (
            connection("nvmeof", NVME),
            connection("nvmeof", OLD_NVME),
            connection("lightos", {"uuid": VOLUMES[0]}),
        )
    ),
    (
        {"initiator": "instance", **connection("iscsi", ISCSI), "require_all_paths": True},
        "require_all_paths needs initiator host",
    ),
    (
        {"initiator": "instance", **connection("iscsi", ISCSI, auth_method="CHAP")},
        "auth_method CHAP needs auth_username and auth_password",
    ),
    ({"disk": {"bus": "scsi", "reservations": "managed"}}, "reservations need type lun"),
    ({"disk": {"bus": "scsi", "iothread": 1}}, "only virtio disks take one"),
    ({"disk": {"bus": "scsi", "queues": 2}}, "queues needs bus virtio"),
    (
        {
            "multiattach": True,
            **connection("nfs", {"export": "h:/e", "name": "v", "format": "qcow2"}),
        },
        "qcow2 file cannot be shared",
    ),
    (
        {"disk": {"type": "lun", "bus": "scsi"}, **connection("rbd", RBD)},
        "needs a block device, and this connection gives a network",
    ),
    (
        {
            "disk": {"type": "lun", "bus": "scsi"},
            **connection("nfs", {"export": "h:/e", "name": "v"}),
        },
        "needs a block device, and this connection gives a file",
    ),
    (
        {"disk": {"type": "lun", "bus": "scsi"}, **connection("nvmeof", NVME)},
        "needs a SCSI device, and this connection gives an NVMe namespace",
    ),
    ({"volume_id": "v" * 37}, "at most 36 characters"),
    (
        {
            "disk": {
                "iotune": {
                    "read_iops_sec": 9,
                    "read_iops_sec_max": 10**15 + 0,
                    "read_iops_sec_max_length": 2,
                }
            }
        },
        "read_iops_sec_max times read_iops_sec_max_length is over",
    ),
    ({"disk": {"iotune": {"read_iops_sec_max": 5}}}, "read_iops_sec_max needs read_iops_sec"),
    (
        {"disk": {"iotune": {"total_bytes_sec": 9, "total_bytes_sec_max": 8}}},
        "total_bytes_sec_max cannot be lower than total_bytes_sec",
    ),
    (
        {"disk": {"iotune": {"write_iops_sec": 9, "write_iops_sec_max_length": 2}}},
        "write_iops_sec_max_length needs write_iops_sec_max",
    ),
    ({"disk": {"iotune": {"size_iops_sec": 4096, "read_bytes_sec": 1}}}, "a limit of iops"),
    (connection("iscsi", ISCSI, encrypted=True), "encryption is missing"),
    *(
        (
            {"disk": {"iotune": {f"total_{kind}": 100, f"{side}_{kind}": 50}}},
            f"total_{kind} cannot go with read_{kind} or write_{kind}",
        )
        for kind in ("bytes_sec", "iops_sec", "bytes_sec_max", "iops_sec_max")
        for side in ("read", "write")
    ),
]


def refusal(payload: object, noun: Any = Attachment) -> str:
    with pytest.raises(Invalid) as caught:
        noun.parse(payload)
    assert caught.value.__cause__ is None, "the cause holds what was sent"
    return caught.value.detail


@pytest.mark.parametrize(("field", "different", "why"), WRONG_ATTACHMENTS)
def test_a_wrong_field_is_named_and_its_value_is_not(
    field: str, different: dict[str, Any], why: str
) -> None:
    detail = refusal(attachment_payload(**different))
    places = [line.split(": ")[0] for line in detail.split("; ")]
    assert any(place == field or place.endswith(f".{field}") for place in places), detail
    assert why.lower() in detail.lower()
    assert CANARY not in detail
    assert "4711" not in detail
    assert not re.search(r"instance of|[a-z][A-Z]", detail), "a class is named"


@pytest.mark.parametrize(("different", "why"), [*UNREADABLE, *TRAPS])
def test_what_os_brick_cannot_read_is_refused_and_read_back(
    different: dict[str, Any], why: str
) -> None:
    """An older agent took it, and its journal is read by this one."""
    payload = attachment_payload(**different)
    detail = refusal(payload)
    assert detail.startswith(f"connection_info.data: {why}")
    assert CANARY not in detail
    assert Attachment.model_validate(payload).reveal() == payload


@pytest.mark.parametrize(
    "different",
    [
        {"initiator": "instance", **connection("iscsi", ISCSI, target_portal="array")},
        {"initiator": "instance", **connection("iscsi", ISCSI, auth_method="None")},
        connection("iscsi", ISCSI, target_portal="[fe80::1%eth0]:3260"),
        connection("iscsi", ISCSI, target_portal="array.example:3260"),
    ],
    ids=str,
)
def test_what_is_reached_is_taken(different: dict[str, Any]) -> None:
    Attachment.parse(attachment_payload(**different))


def test_a_vendors_volume_that_an_older_agent_took_is_read_back() -> None:
    payload = attachment_payload(**connection("lightos", {}))
    assert Attachment.model_validate(payload).reveal() == payload


def test_a_powerflex_volume_has_a_name() -> None:
    detail = refusal(attachment_payload(**connection("scaleio", {"sdc_guid": "1"})))
    assert detail.endswith("data needs scaleIO_volname")


def test_so_is_that_of_an_extend() -> None:
    payload = {
        "request_id": INSTANCES[7],
        "not_after": LATER,
        "volume_id": VOLUMES[0],
        "size_bytes": 512,
        **connection("nvmeof", NVME, vol_uuid=CANARY),
    }
    assert refusal(payload, ExtendRequest).startswith("connection_info.data: vol_uuid must be")


@pytest.mark.parametrize(("different", "why"), CONTRADICTIONS)
def test_wishes_that_exclude_each_other(different: dict[str, Any], why: str) -> None:
    assert why in refusal(attachment_payload(**different))


@pytest.mark.parametrize(
    "different",
    [
        {"disk": {"io": "native"}},
        {"disk": {"io": "native", "cache": "directsync"}},
        {"disk": {"io": "native", "cache": "writeback"}, "multiattach": True},
        {"disk": {"type": "lun", "bus": "scsi", "reservations": "managed"}},
        {"disk": {"type": "lun", "bus": "scsi"}, "volume_id": "v" * 64},
        {
            "initiator": "instance",
            **connection("iscsi", ISCSI),
            "disk": {"type": "lun", "bus": "scsi"},
        },
        {"initiator": "host", **connection("iscsi", ISCSI), "identity": {"wwn": "0x5000"}},
        {**connection("nvmeof", NVME), "identity": {"nguid": "1" * 32, "uuid": VOLUMES[0]}},
        {**connection("nvmeof", NVME), "identity": {"wwn": "eui.0000000000000001"}},
        {**connection("local", {"device_path": "/dev/vg/v"}), "identity": {"serial": "s"}},
        {**connection("nfs", {"export": "h:/e", "name": "v"}), "identity": None},
        {"disk": {"target_dev": "vdzz", "queues": 4, "iothread": 1, "boot_order": 1}},
        {"disk": {"iotune": {"total_bytes_sec": 0, "read_bytes_sec": 5}}},
        {"disk": {"iotune": {"total_bytes_sec": 5, "read_iops_sec": 5}}},
        {"disk": {"iotune": {"read_iops_sec": 5, "read_iops_sec_max": 5, "size_iops_sec": 1}}},
        {"disk": {"iotune": {"read_iops_sec_max": 0, "read_iops_sec_max_length": 1}}},
        connection("rbd", RBD, keyring="[client.cinder]\n\tkey = text\n"),
        {"volume_id": "v" * 36},
        {"encryption": {"format": "luks2", "secret_file": "/k"}},
        {"generation": 0, "size_bytes": 1, "shared_targets": None, "identity": None},
        {"generation": 2**63 - 1},
        connection("nfs", {"export": "h:/e", "name": "v", "format": "qcow2"}),
        connection("iscsi", ISCSI, encrypted=False),
        connection("fibre_channel", {"target_wwn": "50", "target_lun": 0}),
        connection("fibre_channel", {"target_wwns": ["50", "51"], "target_luns": [1, 1]}),
        connection("nvmeof", NVME),
        connection("nvmeof", NVME, vol_uuid=VOLUMES[0], volume_nguid=VOLUMES[0].replace("-", "")),
        connection("nvmeof", NVME, vol_uuid=VOLUMES[0].upper(), volume_nguid=""),
        connection("nvmeof", OLD_NVME),
        connection("nvmeof", OLD_NVME, vol_uuid="not read in this format"),
        connection("iscsi", ISCSI, addressing_mode="SAM3-flat"),
        connection("iscsi", ISCSI, addressing_mode=""),
        connection("rbd", RBD),
        connection("storpool", {"volume": "v", "client_id": 1}),
    ],
)
def test_what_goes_together_is_taken(different: dict[str, Any]) -> None:
    assert Attachment.parse(attachment_payload(**different)).attachment_id == "att-1"


def test_every_wrong_field_is_named_at_once() -> None:
    detail = refusal(attachment_payload(generation=-1, access_mode="x", volume_id="/"))
    assert [line.split(":")[0] for line in detail.split("; ")] == [
        "volume_id",
        "generation",
        "access_mode",
    ]


@pytest.mark.parametrize("name", ["attachment_id", "instance_id", "volume_id", "connection_info"])
def test_what_is_required(name: str) -> None:
    payload = attachment_payload()
    del payload[name]
    assert refusal(payload) == f"{name}: Field required"


def test_the_flat_form_is_refused_with_a_hint() -> None:
    """What the volume service answers: the data beside the type."""
    flat = {"driver_volume_type": "iscsi", **ISCSI, "auth_password": CANARY}
    detail = refusal(attachment_payload(connection_info=flat))
    assert detail.startswith("connection_info: is in the volume service's flat form")
    assert "from_cinder()" in detail
    assert CANARY not in detail


@pytest.mark.parametrize("payload", [None, [], "text", 1, [attachment_payload()]])
def test_what_is_no_object(payload: object) -> None:
    assert refusal(payload).startswith("expected an object with named fields")


class TestRequests:
    def attach(self, **different: Any) -> dict[str, Any]:
        return {
            "request_id": INSTANCES[7],
            "not_after": LATER,
            "attachment": attachment_payload(),
            **different,
        }

    def detach(self, **different: Any) -> dict[str, Any]:
        return {
            "request_id": INSTANCES[7],
            "not_after": LATER,
            "attachment_id": "att-1",
            "instance_id": INSTANCES[0],
            **different,
        }

    @pytest.mark.parametrize(
        ("field", "different", "why"),
        [
            ("request_id", {"request_id": CANARY}, "lower-case uuid"),
            ("request_id", {"request_id": INSTANCES[7].upper().replace("0", "A")}, "lower-case"),
            ("not_after", {"not_after": CANARY}, "RFC 3339"),
            ("not_after", {"not_after": 1764072000}, "RFC 3339"),
            ("not_after", {"not_after": None}, "RFC 3339"),
            ("not_after", {"not_after": "2026-11-24"}, "UTC"),
            ("not_after", {"not_after": "20261124T120000Z"}, "RFC 3339"),
            ("not_after", {"not_after": "2026-W48-2T12:00:00Z"}, "RFC 3339"),
            ("not_after", {"not_after": "2026-11-24T12:00:00"}, "UTC"),
            ("not_after", {"not_after": "2026-11-24T12:00:00+01:00"}, "UTC"),
            ("deadline_seconds", {"deadline_seconds": 0}, "greater"),
            ("deadline_seconds", {"deadline_seconds": 1.5}, "integer"),
            ("deadline_seconds", {"deadline_seconds": 10**400}, "less"),
            ("host", {"host": 4711}, "string"),
            ("priority", {"priority": CANARY}, "not permitted"),
            ("attachment", {"attachment": CANARY}, "attachment"),
            ("attachment.volume_id", {"attachment": attachment_payload(volume_id="/")}, "pattern"),
        ],
    )
    def test_the_envelope(self, field: str, different: dict[str, Any], why: str) -> None:
        for payload, noun in (
            (self.attach(**different), AttachRequest),
            (self.detach(**different), DetachRequest),
        ):
            detail = refusal(payload, noun)
            assert detail.startswith(f"{field}: ")
            assert why in detail
            assert CANARY not in detail

    @pytest.mark.parametrize("name", ["request_id", "not_after", "attachment"])
    def test_what_an_attach_requires(self, name: str) -> None:
        payload = self.attach()
        del payload[name]
        assert refusal(payload, AttachRequest) == f"{name}: Field required"

    @pytest.mark.parametrize("name", ["request_id", "not_after", "attachment_id", "instance_id"])
    def test_what_a_detach_requires(self, name: str) -> None:
        payload = self.detach()
        del payload[name]
        assert refusal(payload, DetachRequest) == f"{name}: Field required"

    @pytest.mark.parametrize(
        "other", [{"attachment_id": "att-2"}, {"instance_id": INSTANCES[1]}], ids=["id", "instance"]
    )
    def test_a_detach_whose_attachment_is_another(self, other: dict[str, Any]) -> None:
        payload = self.detach(attachment=attachment_payload(**other))
        assert "another attachment_id or instance_id" in refusal(payload, DetachRequest)

    def test_a_detach_that_carries_its_attachment(self) -> None:
        request = DetachRequest.parse(self.detach(attachment=attachment_payload()))
        assert request.attachment == Attachment.parse(attachment_payload())

    @pytest.mark.parametrize("seconds", [-1, 30.1, float("nan"), float("inf"), "soon"])
    def test_a_wait_ends(self, seconds: object) -> None:
        payload = {"operation_id": INSTANCES[0], "timeout_seconds": seconds}
        assert refusal(payload, WaitRequest).startswith("timeout_seconds: ")

    def test_filters_know_their_fields(self) -> None:
        assert "stat: " in refusal({"stat": "done"}, OperationFilters)
        assert "state: " in refusal({"state": CANARY}, OperationFilters)
        assert OperationFilters.parse({"volume_id": VOLUMES[0]}).volume_id == VOLUMES[0]


def test_local_is_the_smallest_connection() -> None:
    assert Attachment.parse(attachment_payload(connection_info=local())).connection.targets == (
        "/dev/loop7",
    )
