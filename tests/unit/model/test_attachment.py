"""What follows from what was asked: alias, serial, cache, sharing, shared targets."""

from base64 import b64encode
from typing import Any

import pytest

from agent.errors import Invalid
from agent.model.attachment import Attachment
from agent.model.connection import RbdConnection
from agent.model.disk import IoTune
from tests.samples import VOLUMES, attachment, attachment_payload

PROTOCOLS: list[tuple[str, dict[str, Any], tuple[str, ...], str]] = [
    (
        "iscsi",
        {"target_portal": "p.example:1", "target_iqn": "iqn-1", "target_lun": 1},
        ("iqn-1",),
        "scsi",
    ),
    (
        "iser",
        {
            "target_portal": "p.example:1",
            "target_iqn": "iqn-2",
            "target_lun": 1,
            "target_portals": ["p.example:1", "q.example:1"],
            "target_iqns": ["iqn-2", "iqn-1"],
            "target_luns": [1, 1],
        },
        ("iqn-1", "iqn-2"),
        "scsi",
    ),
    ("fibre_channel", {"target_wwn": ["51", "50"], "target_lun": 0}, ("50", "51"), "scsi"),
    ("fibre_channel", {"target_wwn": "50", "target_luns": [0]}, ("50",), "scsi"),
    ("nvmeof", {"target_nqn": "nqn-1", "portals": [["p", 4420, "tcp"]]}, ("nqn-1",), "nvme"),
    (
        "nvmeof",
        {"nqn": "nqn-2", "target_portal": "p", "target_port": 4420, "transport_type": "rdma"},
        ("nqn-2",),
        "nvme",
    ),
    ("nfs", {"export": "host:/export", "name": "volume-1"}, ("host:/export",), "mounts"),
    ("rbd", {"name": "pool/image"}, ("rbd:pool/image",), "other"),
    ("local", {"device_path": "/dev/vg/volume"}, ("/dev/vg/volume",), "other"),
    (
        "vzstorage",
        {"export": "mds1,mds2:/vz1:hunter2", "name": "volume-1"},
        ("mds1,mds2:/vz1",),
        "other",
    ),
    ("storpool", {"volume": "v", "client_id": 1}, ("storpool",), "other"),
]


def info(protocol: str, data: dict[str, Any]) -> dict[str, Any]:
    return {"driver_volume_type": protocol, "data": data}


@pytest.mark.parametrize(("protocol", "data", "targets", "lane"), PROTOCOLS)
class TestConnections:
    def test_what_is_shared_and_where_it_runs(
        self, protocol: str, data: dict[str, Any], targets: tuple[str, ...], lane: str
    ) -> None:
        connection = attachment(connection_info=info(protocol, data)).connection
        assert connection.driver_volume_type == protocol
        assert connection.targets == targets
        assert connection.lane == lane

    def test_the_journal_gives_back_what_came(
        self, protocol: str, data: dict[str, Any], targets: tuple[str, ...], lane: str
    ) -> None:
        """Exactly: no default is added, no vendor key lost, no number becomes a text."""
        payload = attachment_payload(connection_info=info(protocol, {**data, "vendor": [1, "a"]}))
        noun = Attachment.parse(payload)
        assert noun.reveal() == payload
        assert Attachment.parse(noun.reveal()) == noun
        assert noun.connection.properties() == payload["connection_info"]["data"]


class TestWhatFollows:
    def test_the_alias_and_serial_by_which_it_is_found(self) -> None:
        noun = attachment(attachment_id="A_b-9")
        assert (noun.alias, noun.serial) == ("ua-A_b-9", VOLUMES[0])

    def test_a_lun_shows_its_own_serial(self) -> None:
        assert attachment(disk={"type": "lun", "bus": "scsi"}).serial is None

    @pytest.mark.parametrize(
        ("ours", "theirs", "read_only"),
        [("rw", None, False), ("rw", "rw", False), ("ro", "rw", True), ("rw", "ro", True)],
    )
    def test_read_only_if_either_says_so(
        self, ours: str, theirs: str | None, read_only: bool
    ) -> None:
        data = {"device_path": "/dev/loop7", **({} if theirs is None else {"access_mode": theirs})}
        noun = attachment(access_mode=ours, connection_info=info("local", data))
        assert noun.read_only is read_only

    def test_what_several_share_is_not_cached(self) -> None:
        shared = attachment(multiattach=True, disk={"cache": "writeback"})
        assert (shared.cache, shared.forced_cache) == ("none", True)
        alone = attachment(disk={"cache": "writeback"})
        assert (alone.cache, alone.forced_cache) == ("writeback", False)
        assert not attachment(multiattach=True).forced_cache

    def test_a_shared_disk_reports_errors_unless_told_otherwise(self) -> None:
        assert attachment().error_policy is None
        assert attachment(multiattach=True).error_policy == "report"
        assert attachment(disk={"bus": "scsi", "type": "lun"}).error_policy == "report"
        asked = attachment(multiattach=True, disk={"error_policy": "stop"})
        assert asked.error_policy == "stop"

    def test_defaults_of_the_wire(self) -> None:
        noun = attachment()
        assert (noun.multiattach, noun.shared_targets, noun.require_all_paths) == (
            False,
            None,
            False,
        )
        assert (noun.access_mode, noun.generation, noun.size_bytes) == ("rw", None, None)
        disk = noun.disk
        assert (disk.bus, disk.type, disk.cache, disk.target_dev) == (
            "virtio",
            "disk",
            "none",
            None,
        )

    def test_limits_are_those_that_were_given(self) -> None:
        tune = IoTune(read_iops_sec=0, total_bytes_sec=5, group_name="one")
        assert tune.limits() == {"read_iops_sec": 0, "total_bytes_sec": 5, "group_name": "one"}

    def test_the_expected_identity_is_what_was_given(self) -> None:
        noun = attachment(identity={"wwn": "0x5000", "serial": None})
        assert noun.identity is not None
        assert noun.identity.expected() == {"wwn": "0x5000"}

    def test_a_noun_does_not_change(self) -> None:
        noun = attachment()
        with pytest.raises(ValueError, match="frozen"):
            noun.multiattach = True  # type: ignore[misc]


CEPH = b"the key of the agent"
CEPH_TEXT = b64encode(CEPH).decode()


@pytest.mark.parametrize(
    "keyring",
    [
        CEPH_TEXT,
        f"{CEPH_TEXT}\n",
        f"[client.agent]\n\tkey = {CEPH_TEXT}\n",
        f"[client.other]\n\tkey = QQ==\n[client.agent]\n\tcaps mon = x\n\tkey = {CEPH_TEXT}\n",
    ],
)
def test_the_key_of_a_keyring_is_that_of_the_user(keyring: str) -> None:
    image = {"name": "pool/image", "auth_enabled": True, "auth_username": "agent"}
    info = {"driver_volume_type": "rbd", "data": {**image, "keyring": keyring}}
    found = attachment(connection_info=info)
    assert isinstance(found.connection, RbdConnection)
    assert found.connection.data.key == CEPH
    assert [secret.usage for secret in found.secrets] == ["ceph"]


def test_what_plugging_has_stored_is_kept_and_nobody_may_wish_it() -> None:
    marks = {"alias": "ua-earlier", "serial": None}
    kept = Attachment.model_validate({**attachment_payload(), "marks": marks})
    assert (kept.alias, kept.serial) == ("ua-earlier", None)
    assert Attachment.model_validate(kept.reveal()) == kept
    with pytest.raises(Invalid, match="marks"):
        attachment(marks=marks)


def test_what_was_stored_may_contradict_a_rule_of_today() -> None:
    """The journal is read for ever; whoever asks for it now is refused."""
    stored = {**attachment_payload(), "max_writers": 2}
    assert Attachment.model_validate(stored).max_writers == 2
    with pytest.raises(Invalid, match="max_writers needs multiattach"):
        Attachment.parse(stored)


def test_a_connection_that_does_not_fit_is_refused() -> None:
    plain, encrypted = attachment(), attachment().connection_info.model_copy(deep=True)
    data = encrypted.data.model_copy(update={"encrypted": True})
    with pytest.raises(Invalid, match="encryption is missing"):
        plain.reached_by(encrypted.model_copy(update={"data": data}))


def test_it_is_found_as_another_is() -> None:
    earlier, later = attachment(attachment_id="att-1"), attachment(attachment_id="att-2")
    assert later.found_as(earlier).alias == "ua-att-1"
    assert later.found_as(later) == later


def test_a_protocol_of_yesterday_is_read_and_nobody_may_wish_it() -> None:
    stored = attachment_payload(connection_info=info("scality", {"export": "x", "name": "y"}))
    kept = Attachment.model_validate(stored)
    assert (kept.reveal(), kept.connection.source_type) == (stored, "file")
    with pytest.raises(Invalid, match="scality is not connected by this agent"):
        Attachment.parse(stored)
