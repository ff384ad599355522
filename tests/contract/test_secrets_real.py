"""The contract of ports.Secrets on a real libvirtd, and what makes a secret one."""

from collections.abc import Iterator
from pathlib import Path

import libvirt
import pytest

from agent.host.key_files import KeyFiles
from agent.host.libvirt_connection import LibvirtConnection
from agent.host.libvirt_secrets import LibvirtSecrets
from tests.contract.secrets import SecretsContract, a_secret
from tests.lab.lab import Lab

pytestmark = pytest.mark.real

VALUE = b"canary-9d41c2aa"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


@pytest.fixture
def real(lab: Lab) -> Iterator[LibvirtSecrets]:
    connection = LibvirtConnection(lab.libvirtd.uri)
    yield LibvirtSecrets(connection, KeyFiles(()))
    connection.close()


class TestReal(SecretsContract):
    @pytest.fixture
    def secrets(self, real: LibvirtSecrets) -> LibvirtSecrets:
        return real


def test_nobody_reads_it_back_and_no_file_has_it(lab: Lab, real: LibvirtSecrets) -> None:
    secret = a_secret()
    real.make(secret, VALUE)
    found = lab.libvirtd.connection().secretLookupByUUIDString(secret.uuid)
    with pytest.raises(libvirt.libvirtError, match="private"):
        found.value()
    assert secret.volume_id in found.usageID()
    files = [path for path in Path(lab.libvirtd.directory).rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if VALUE in path.read_bytes()]
    real.drop(secret.uuid)


def test_it_goes_with_libvirtd(lab: Lab, real: LibvirtSecrets) -> None:
    secret = a_secret()
    real.make(secret, VALUE)
    lab.libvirtd.kill()
    lab.libvirtd.start()
    connection = LibvirtConnection(lab.libvirtd.uri)
    try:
        assert not LibvirtSecrets(connection, KeyFiles(())).has(secret.uuid)
    finally:
        connection.close()
