"""What ports.Secrets promises, on the simulated host and on a real libvirt alike."""

import uuid

import pytest

from agent.model.secret import GuestSecret
from agent.ports import Secrets


def a_secret() -> GuestSecret:
    return GuestSecret(usage="volume", volume_id=str(uuid.uuid4()))


class SecretsContract:
    @pytest.fixture
    def secrets(self) -> Secrets:
        raise NotImplementedError

    def test_it_is_there_until_it_is_dropped(self, secrets: Secrets) -> None:
        secret = a_secret()
        assert not secrets.has(secret.uuid)
        secrets.make(secret, b"one")
        assert secrets.has(secret.uuid)
        assert secret.uuid in secrets.ours()
        secrets.drop(secret.uuid)
        assert not secrets.has(secret.uuid)
        assert secret.uuid not in secrets.ours()

    def test_a_second_time_is_no_error(self, secrets: Secrets) -> None:
        secret = a_secret()
        secrets.make(secret, b"one")
        secrets.make(secret, b"another")
        assert secrets.has(secret.uuid)
        secrets.drop(secret.uuid)
        secrets.drop(secret.uuid)

    def test_each_volume_has_its_own(self, secrets: Secrets) -> None:
        one, other = a_secret(), a_secret()
        secrets.make(one, b"one")
        secrets.make(other, b"other")
        secrets.drop(one.uuid)
        assert secrets.has(other.uuid)
        secrets.drop(other.uuid)

    @pytest.mark.parametrize("usage", ["volume", "ceph", "iscsi"])
    def test_every_usage_is_taken(self, secrets: Secrets, usage: str) -> None:
        secret = GuestSecret.parse({"usage": usage, "volume_id": str(uuid.uuid4())})
        secrets.make(secret, bytes(range(256)))
        assert secret.uuid in secrets.ours()
        secrets.drop(secret.uuid)
