"""ports.Secrets on a real libvirt: ephemeral (never on disk) and private (never read back).

The value goes to libvirtd over its local socket and from there, encrypted, to QEMU: no file, no
argument of a process and no XML holds it.
"""

from typing import Any, Final

import libvirt
from lxml import etree

from agent.host.key_files import KeyFiles
from agent.host.libvirt_calls import LibvirtCalls
from agent.host.libvirt_connection import LibvirtConnection, VirConnect
from agent.model.secret import PREFIX, GuestSecret

_NO_SECRET: Final = libvirt.VIR_ERR_NO_SECRET
_NO_SUPPORT: Final = libvirt.VIR_ERR_NO_SUPPORT

_NAMED_BY: Final = {"volume": "volume", "ceph": "name", "iscsi": "target"}
"""By usage: the element that says what a secret is used for."""


class LibvirtSecrets(LibvirtCalls):
    """Any thread may call. All raise Unsupported where libvirt has no driver for secrets."""

    def __init__(self, connection: LibvirtConnection, key_files: KeyFiles) -> None:
        super().__init__(connection)
        self._key_files = key_files

    def has(self, uuid: str) -> bool:
        def ask(connection: VirConnect) -> bool:
            try:
                connection.secretLookupByUUIDString(uuid)
            except libvirt.libvirtError as error:
                if error.get_error_code() != _NO_SECRET:
                    raise
                return False
            return True

        return self._change(ask, "looking for a secret")

    def make(self, secret: GuestSecret, value: bytes) -> None:
        xml = _secret_xml(secret)

        def ask(connection: VirConnect) -> None:
            connection.secretDefineXML(xml).setValue(value)

        self._change(ask, f"making the secret of volume {secret.volume_id}")

    def drop(self, uuid: str) -> None:
        """Not there: gone already."""

        def ask(connection: VirConnect) -> None:
            try:
                connection.secretLookupByUUIDString(uuid).undefine()
            except libvirt.libvirtError as error:
                if error.get_error_code() != _NO_SECRET:
                    raise

        self._change(ask, f"dropping the secret {uuid}")

    def ours(self) -> frozenset[str]:
        """Empty where libvirt keeps no secrets."""
        flags = (
            libvirt.VIR_CONNECT_LIST_SECRETS_EPHEMERAL | libvirt.VIR_CONNECT_LIST_SECRETS_PRIVATE
        )

        def ask(connection: VirConnect) -> frozenset[str]:
            try:
                found = connection.listAllSecrets(flags)
                ours = [secret for secret in found if secret.usageID().startswith(f"{PREFIX} ")]
                return frozenset(secret.UUIDString() for secret in ours)
            except libvirt.libvirtError as error:
                if error.get_error_code() not in (_NO_SUPPORT, _NO_SECRET):
                    raise
                return frozenset()

        return self._change(ask, "listing secrets")

    def key_in(self, path: str) -> bytes:
        return self._key_files.read(path)


def _secret_xml(secret: GuestSecret) -> str:
    """Format: https://libvirt.org/formatsecret.html"""
    root: Any = etree.Element("secret", ephemeral="yes", private="yes")
    etree.SubElement(root, "uuid").text = secret.uuid
    usage = etree.SubElement(root, "usage", type=secret.usage)
    etree.SubElement(usage, _NAMED_BY[secret.usage]).text = secret.name
    return etree.tostring(root, encoding="unicode")
