"""A host gets ready for an instance that is to come, and keeps nothing where nobody comes."""

import uuid
from typing import Any

import pytest

from tests.functional.conftest import MakeVolume
from tests.functional.orchestrator import Orchestrator, wish
from tests.lab.guest import Guest
from tests.lab.loop_volume import LoopVolume
from tests.lab.patience import wait_until

pytestmark = pytest.mark.real


def coming(volume: LoopVolume, instance_id: str) -> dict[str, Any]:
    return {
        "attachment_id": str(uuid.uuid4()),
        "replaces": str(uuid.uuid4()),
        "instance_id": instance_id,
        "volume_id": volume.volume_id,
        "connection_info": volume.connection_info(),
        "size_bytes": volume.size_bytes,
    }


def test_what_is_prepared_is_given_back_on_request(
    orchestrator: Orchestrator, make_volume: MakeVolume
) -> None:
    client, instance_id, migration_id = orchestrator.client, str(uuid.uuid4()), str(uuid.uuid4())
    both = [coming(make_volume(), instance_id) for _ in range(2)]
    done = orchestrator.finish(client.prepare_migration(migration_id, instance_id, both))
    assert isinstance(done.result, dict), done
    assert set(done.result["parts"]) == {one["replaces"] for one in both}
    cancelled = orchestrator.finish(client.cancel_migration(migration_id))
    assert isinstance(cancelled.result, dict), cancelled
    assert [row["disconnected"] for row in cancelled.result["attachments"]] == [True, True]
    late = orchestrator.finish(client.prepare_migration(migration_id, instance_id, both))
    assert late.error is not None
    assert late.error.code == "stale"


def test_what_is_prepared_stays_when_another_guest_lets_go(
    orchestrator: Orchestrator, guests: list[Guest], volume: LoopVolume
) -> None:
    """No domain here has it, and nobody else: the lease alone keeps it."""
    client, migration_id = orchestrator.client, str(uuid.uuid4())
    neighbours = wish(guests[0], volume, multiattach=True)
    orchestrator.attached(neighbours)
    wanted = {**coming(volume, str(uuid.uuid4())), "multiattach": True}
    done = orchestrator.finish(
        client.prepare_migration(migration_id, wanted["instance_id"], [wanted])
    )
    assert done.state == "done", done
    assert not orchestrator.detached(neighbours)["disconnected"]
    cancelled = orchestrator.finish(client.cancel_migration(migration_id))
    assert isinstance(cancelled.result, dict), cancelled
    assert [row["disconnected"] for row in cancelled.result["attachments"]] == [True]


def test_a_lease_ends_and_nobody_came(orchestrator: Orchestrator, volume: LoopVolume) -> None:
    client, instance_id = orchestrator.client, str(uuid.uuid4())
    wanted = coming(volume, instance_id)
    orchestrator.finish(
        client.prepare_migration(str(uuid.uuid4()), instance_id, [wanted], lease_seconds=1)
    )
    attachment_id = wanted["attachment_id"]
    wait_until(
        lambda: not client.list_attachments(attachment_id=attachment_id),
        "it is given back",
        seconds=40,
    )
    (cancel,) = client.list_operations(attachment_id=attachment_id, verb="cancel_migration")
    assert cancel["state"] == "done"
