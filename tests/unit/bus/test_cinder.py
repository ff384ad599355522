"""Answers of a real volume service (samples/) become attachments that the agent takes."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from agent.bus.client import from_cinder
from agent.errors import Invalid
from agent.model.attachment import Attachment
from agent.model.connection import IscsiConnection, NfsConnection, NvmeConnection, RbdConnection

SAMPLES = Path(__file__).parent / "samples"
INSTANCE = "efe8bba0-543c-4a3f-9f9b-93b15261973f"


def sample(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((SAMPLES / f"{name}.json").read_text())
    return found


def flat(**fields: Any) -> dict[str, Any]:
    """An attachment as the volume service gives it, around a connection_info."""
    return {
        "id": "7a8fa66e-2af6-41d4-a3e0-4351ce33ce73",
        "instance": INSTANCE,
        "volume_id": "457b1507-2a57-481c-936b-79297ffddb5a",
        "attach_mode": "rw",
        "connection_info": {
            "attachment_id": "7a8fa66e-2af6-41d4-a3e0-4351ce33ce73",
            "access_mode": "rw",
            "encrypted": False,
            "qos_specs": None,
            "cacheable": False,
            **fields,
        },
    }


ISCSI = {
    "driver_volume_type": "iscsi",
    "target_portal": "192.0.2.10:3260",
    "target_iqn": "iqn.2010-10.org.openstack:volume-1",
    "target_lun": 1,
}


@pytest.mark.parametrize("path", sorted(SAMPLES.glob("*.json")), ids=lambda path: path.stem)
def test_every_sample_is_an_attachment_that_the_agent_takes(path: Path) -> None:
    answer = json.loads(path.read_text())
    before = copy.deepcopy(answer)
    attachment = Attachment.parse(from_cinder(answer))
    assert attachment.instance_id == INSTANCE
    assert attachment.attachment_id == answer["attachment"]["id"]
    assert attachment.volume_id == answer["attachment"]["volume_id"]
    assert not attachment.read_only
    assert answer == before


def test_iscsi_keeps_what_os_brick_reads_and_nothing_of_the_volume_service() -> None:
    fields = from_cinder(sample("cinder-lvm-iscsi-multipath"))
    connection = Attachment.parse(fields).connection
    assert isinstance(connection, IscsiConnection)
    assert connection.properties()["auth_password"] == "not-a-password"
    assert connection.properties()["target_luns"] == [0, 0]
    assert connection.properties()["enforce_multipath"] is True
    assert not {"qos_specs", "cacheable", "attachment_id"} & set(connection.properties())


def test_nfs_takes_the_format_and_leaves_the_services_own_directory() -> None:
    connection = Attachment.parse(from_cinder(sample("cinder-nfs"))).connection
    assert isinstance(connection, NfsConnection)
    assert connection.source_format == "raw"
    assert "mount_point_base" not in connection.properties()


@pytest.mark.parametrize("shape", ["whole", "attachment", "connection_info", "nested"])
def test_each_shape_gives_the_same_connection(shape: str) -> None:
    attachment = flat(**ISCSI)
    info = attachment["connection_info"]
    own = {"driver_volume_type", "attachment_id"}
    nested = {
        "driver_volume_type": "iscsi",
        "data": {name: value for name, value in info.items() if name not in own},
    }
    shapes = {
        "whole": {"attachment": attachment},
        "attachment": attachment,
        "connection_info": info,
        "nested": nested,
    }
    assert from_cinder(shapes[shape])["connection_info"] == {
        "driver_volume_type": "iscsi",
        "data": {
            "target_portal": "192.0.2.10:3260",
            "target_iqn": "iqn.2010-10.org.openstack:volume-1",
            "target_lun": 1,
            "access_mode": "rw",
            "encrypted": False,
        },
    }


def test_a_lun_written_as_text_becomes_an_integer() -> None:
    data = from_cinder(flat(**ISCSI | {"target_lun": "7", "target_luns": ["7", 8]}))[
        "connection_info"
    ]["data"]
    assert data["target_lun"] == 7
    assert data["target_luns"] == [7, 8]
    with pytest.raises(Invalid, match="target_lun: must be an integer"):
        from_cinder(flat(**ISCSI | {"target_lun": "seven"}))


@pytest.mark.parametrize(
    ("service", "data"), [("ro", "rw"), ("rw", "ro")], ids=["attach_mode", "access_mode"]
)
def test_read_only_by_either_word_is_read_only(service: str, data: str) -> None:
    answer = flat(**ISCSI | {"access_mode": data})
    answer["attach_mode"] = service
    assert Attachment.parse(from_cinder(answer)).read_only


def test_the_disk_gets_the_volume_types_wishes() -> None:
    specs = {"total_bytes_sec": "1048576", "read_iops_sec": 500, "minIOPS": "5"}
    wishes = {
        "discard": True,
        "logical_block_size": "4096",
        "physical_block_size": 4096,
        "qos_specs": specs,
    }
    disk = Attachment.parse(from_cinder(flat(**ISCSI, **{**wishes}))).disk
    assert disk.discard == "unmap"
    assert disk.block_size is not None
    assert (disk.block_size.logical, disk.block_size.physical) == (4096, 4096)
    assert disk.iotune is not None
    assert disk.iotune.limits() == {"total_bytes_sec": 1048576, "read_iops_sec": 500}


def test_an_encrypted_volume_is_refused_until_its_key_is_given() -> None:
    fields = from_cinder(flat(**ISCSI | {"encrypted": True}))
    with pytest.raises(Invalid, match="encryption is missing"):
        Attachment.parse(fields)
    encryption = {"format": "luks", "passphrase": "not-a-passphrase"}
    assert Attachment.parse({**fields, "encryption": encryption}).encryption is not None


def test_nvme_tells_who_its_namespace_is() -> None:
    told = {
        "driver_volume_type": "nvmeof",
        "target_nqn": "nqn.2014-08.org.example:subsystem-1",
        "vol_uuid": "11111111-2222-4333-8444-555555555555",
        "portals": [["192.0.2.20", 4420, "tcp"]],
        "ns_id": "10",
    }
    attachment = Attachment.parse(from_cinder(flat(**told)))
    assert isinstance(attachment.connection, NvmeConnection)
    assert attachment.connection.data.ns_id == 10
    assert attachment.identity is not None
    assert attachment.identity.expected() == {"uuid": "11111111-2222-4333-8444-555555555555"}


def test_rbd_ports_are_text() -> None:
    told = {
        "driver_volume_type": "rbd",
        "name": "volumes/volume-1",
        "hosts": ["192.0.2.31"],
        "ports": [6789],
    }
    connection = Attachment.parse(from_cinder(flat(**told))).connection
    assert isinstance(connection, RbdConnection)
    assert connection.data.ports == ("6789",)


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"attachment": []},
        {"id": "a", "connection_info": {}},
        {"id": "a", "connection_info": None},
        {"connection_info": {"driver_volume_type": "iscsi", "data": 5}},
        {"driver_volume_type": "iscsi", "qos_specs": [1]},
    ],
)
def test_what_is_no_attachment_is_invalid(answer: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        from_cinder(answer)
