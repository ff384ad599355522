"""Bad storage: each cause has its own code and its reason, and leaves the host as it was."""

from datetime import datetime

import pytest

from agent.model.outcome import Answer
from tests.functional.orchestrator import OPERATION_SECONDS, Orchestrator
from tests.lab.guest import Guest
from tests.nested.inside.agent import Agent
from tests.nested.inside.iscsi import PORTAL, SECOND_PORTAL, Firewall
from tests.nested.inside.leftovers import assert_clean, run
from tests.nested.inside.nfs import VolumeFile
from tests.nested.inside.nvme import PORT
from tests.nested.inside.storage import Storage
from tests.nested.inside.wishes import wish

SILENT = "127.0.0.3"

SICK = 4
"""Attaches by a silent portal. One takes forty seconds, and os-brick one at a time: all of them
three times as long as the other kinds of storage need."""


def failed(
    orchestrator: Orchestrator,
    guest: Guest,
    volume: object,
    info: dict[str, object],
    **more: object,
) -> Answer:
    """How an attach that cannot succeed ended; the host is clean."""
    wanted = wish(guest, volume, info, **more)  # type: ignore[arg-type]
    answer = orchestrator.finish(orchestrator.client.attach(wanted))
    assert answer.state == "undone", answer
    assert answer.error is not None
    assert answer.created_at is not None
    assert answer.updated_at is not None
    took = datetime.fromisoformat(answer.updated_at) - datetime.fromisoformat(answer.created_at)
    print(f"{answer.error.code} after {took.total_seconds():.0f} s")
    assert_clean()
    return answer


def assert_says(answer: Answer, code: str, *words: str) -> None:
    assert answer.error is not None
    assert answer.error.code == code, answer.error
    for word in words:
        assert word in answer.error.detail


@pytest.mark.usefixtures("single_path")
class TestIscsi:
    def test_a_wrong_secret(
        self, orchestrator: Orchestrator, guests: list[Guest], storage: Storage
    ) -> None:
        target, backing = storage.lun(chap=("user", "right-secret-1"))
        info = target.connection_info(0, auth_password="wrong-secret-1")
        answer = failed(orchestrator, guests[0], backing, info)
        assert_says(answer, "auth-failed", target.iqn, "credentials")
        assert "wrong-secret-1" not in f"{answer}"

    @pytest.mark.exhaustive
    def test_a_portal_that_refuses(
        self, orchestrator: Orchestrator, guests: list[Guest], storage: Storage
    ) -> None:
        target, backing = storage.lun()
        info = target.connection_info(0, target_portal="127.0.0.1:3999")
        answer = failed(orchestrator, guests[0], backing, info)
        assert_says(answer, "connect-failed", "127.0.0.1:3999")

    @pytest.mark.exhaustive
    def test_a_portal_that_is_silent(
        self,
        orchestrator: Orchestrator,
        guests: list[Guest],
        storage: Storage,
        firewall: Firewall,
    ) -> None:
        target, backing = storage.lun(portals=(SECOND_PORTAL,))
        firewall.drop(SECOND_PORTAL)
        answer = failed(orchestrator, guests[0], backing, target.connection_info(0))
        assert_says(answer, "connect-failed")

    @pytest.mark.exhaustive  # one is in the storm
    def test_a_lun_that_is_not_mapped(
        self, orchestrator: Orchestrator, guests: list[Guest], storage: Storage
    ) -> None:
        target, backing = storage.lun()
        answer = failed(orchestrator, guests[0], backing, target.connection_info(9))
        assert_says(answer, "lun-missing", "mapped to this host")

    @pytest.mark.exhaustive
    def test_a_device_that_cannot_be_written(
        self, orchestrator: Orchestrator, guests: list[Guest], storage: Storage
    ) -> None:
        target, backing = storage.lun()
        target.protect()
        answer = failed(orchestrator, guests[0], backing, target.connection_info(0))
        assert_says(answer, "read-only-device", "access_mode ro")
        wanted = wish(guests[0], backing, target.connection_info(0), access_mode="ro")
        orchestrator.attached(wanted)
        assert guests[0].wait_for_disk(backing.volume_id).read_only
        orchestrator.detached(wanted)


@pytest.mark.usefixtures("multipath")
class TestMultipath:
    def test_multipathd_is_down_while_it_is_enforced(
        self, orchestrator: Orchestrator, guests: list[Guest], storage: Storage
    ) -> None:
        target, backing = storage.lun(portals=(PORTAL, SECOND_PORTAL))
        run("systemctl", "stop", "multipathd.service", "multipathd.socket")
        try:
            info = target.connection_info(0, multipath=True)
            answer = failed(orchestrator, guests[0], backing, info)
            assert_says(answer, "connect-failed", "multipathd")
        finally:
            run("systemctl", "start", "multipathd.service")

    @pytest.mark.exhaustive
    def test_paths_are_missing_and_all_are_required(
        self,
        orchestrator: Orchestrator,
        guests: list[Guest],
        storage: Storage,
        firewall: Firewall,
    ) -> None:
        target, backing = storage.lun(portals=(PORTAL, SECOND_PORTAL))
        firewall.reject(SECOND_PORTAL)
        info = target.connection_info(0, multipath=True)
        answer = failed(orchestrator, guests[0], backing, info, require_all_paths=True)
        assert_says(answer, "not-all-paths", "1 of 2")


class TestOthers:
    @pytest.mark.exhaustive
    def test_an_nvme_transport_that_refuses(
        self, orchestrator: Orchestrator, guests: list[Guest], storage: Storage
    ) -> None:
        subsystem, namespace = storage.subsystem(), storage.namespace()
        subsystem.map(1, namespace)
        info = subsystem.connection_info(1, portals=[["127.0.0.1", 4999, "tcp"]])
        assert_says(failed(orchestrator, guests[0], namespace, info), "connect-failed")

    @pytest.mark.exhaustive
    def test_an_nvme_transport_that_is_silent(
        self,
        orchestrator: Orchestrator,
        guests: list[Guest],
        storage: Storage,
        firewall: Firewall,
    ) -> None:
        subsystem, namespace = storage.subsystem(), storage.namespace()
        subsystem.map(1, namespace)
        firewall.drop(f"{SILENT}:{PORT}")
        info = subsystem.connection_info(1, portals=[[SILENT, PORT, "tcp"]])
        assert_says(failed(orchestrator, guests[0], namespace, info), "connect-failed")

    @pytest.mark.exhaustive
    def test_an_nvme_namespace_that_is_not_mapped(
        self, orchestrator: Orchestrator, guests: list[Guest], storage: Storage
    ) -> None:
        subsystem, namespace = storage.subsystem(), storage.namespace()
        subsystem.map(1, storage.namespace())
        info = subsystem.connection_info(1, vol_uuid=namespace.volume_id)
        assert_says(failed(orchestrator, guests[0], namespace, info), "lun-missing")

    @pytest.mark.exhaustive
    def test_an_export_that_is_gone(
        self, orchestrator: Orchestrator, guests: list[Guest], storage: Storage
    ) -> None:
        export = storage.export()
        volume = VolumeFile(export)
        export.withdraw()
        answer = failed(orchestrator, guests[0], volume, volume.connection_info())
        assert answer.error is not None
        assert answer.error.code in ("connect-failed", "auth-failed")
        assert export.source in answer.error.detail

    @pytest.mark.exhaustive
    def test_a_server_of_exports_that_is_silent(
        self,
        orchestrator: Orchestrator,
        guests: list[Guest],
        storage: Storage,
        firewall: Firewall,
    ) -> None:
        export = storage.export()
        volume = VolumeFile(export)
        firewall.drop(f"{SILENT}:2049")
        source = f"{SILENT}:{export.directory}"
        answer = failed(orchestrator, guests[0], volume, volume.connection_info(export=source))
        assert_says(answer, "connect-failed", source)

    @pytest.mark.exhaustive
    def test_a_file_that_is_not_there(
        self, orchestrator: Orchestrator, guests: list[Guest], storage: Storage
    ) -> None:
        volume = VolumeFile(storage.export())
        info = volume.connection_info(name="volume-of-another")
        assert_says(failed(orchestrator, guests[0], volume, info), "lun-missing")


@pytest.mark.usefixtures("single_path")
def test_a_sick_array_stops_no_other_kind_of_storage(
    orchestrator: Orchestrator,
    guests: list[Guest],
    storage: Storage,
    firewall: Firewall,
    agent: Agent,
) -> None:
    """While os-brick waits for a silent portal, and holds its lock."""
    luns = [storage.lun(portals=(SECOND_PORTAL,)) for _ in range(SICK)]
    firewall.drop(SECOND_PORTAL)
    sick = [
        orchestrator.client.attach(wish(guests[0], backing, target.connection_info(0)))
        for target, backing in luns
    ]
    subsystem, namespace = storage.subsystem(), storage.namespace()
    subsystem.map(1, namespace)
    volume = VolumeFile(storage.export())
    others = [
        wish(guests[1], namespace, subsystem.connection_info(1)),
        wish(guests[1], volume, volume.connection_info()),
    ]
    for wanted in others:
        orchestrator.attached(wanted)
        orchestrator.detached(wanted)
    ids = [accepted.operation_id or "" for accepted in sick]
    assert not orchestrator.client.get_operation(ids[-1]).closed
    for operation_id in ids[1:]:
        orchestrator.client.cancel_operation(operation_id)
    ends = [orchestrator.finish(accepted, seconds=SICK * OPERATION_SECONDS) for accepted in sick]
    assert ends[0].state == "undone"
    assert {answer.state for answer in ends[1:]} <= {"undone", "cancelled"}
