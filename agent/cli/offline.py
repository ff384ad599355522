"""audit without the agent: its journal, and this host's libvirt and devices, asked directly."""

import os
from typing import Any

from agent.cli.screen import Screen
from agent.cli.trouble import Exit, Trouble
from agent.conf import Settings
from agent.errors import Unavailable
from agent.host.far_files import FarFiles
from agent.host.key_files import KeyFiles
from agent.host.libvirt_connection import LibvirtConnection
from agent.host.libvirt_domains import LibvirtDomains
from agent.host.libvirt_secrets import LibvirtSecrets
from agent.journal.book import Book
from agent.model.device import Device
from agent.ports import DomainLook
from agent.service.audit import compare, quarantine_of


class PathsOnly:
    """service.audit.Devices without os-brick: a path is there or is not; whether it still means
    the same device only the agent compares. What is on a network file system is not asked for, its
    server may be away: it is there while that is mounted."""

    def __init__(self, far: FarFiles | None = None) -> None:
        self._far = far or FarFiles()

    def names(self, source: str) -> frozenset[str]:
        if not source.startswith("/"):
            return frozenset({source})
        return self._far.names(source) or frozenset({source, os.path.realpath(source)})

    def in_place(self, device: Device) -> bool:
        """A network disk has no path here: QEMU would miss it, not this host."""
        path = device.path
        return not path.startswith("/") or self._far.hold(path) or os.path.exists(path)


def audit_here(settings: Settings, screen: Screen, book: Book) -> dict[str, Any]:
    """As the agent answers.  Raises Trouble if libvirt does not answer either."""
    looks, secrets = _asked(settings)
    screen.note(
        f"note: libvirt at {settings.libvirt_uri} was asked directly; devices were looked for by "
        "path, their identities were not compared; what awaits its unmap was not looked for"
    )
    found = compare(book.attachments(), book.open_operations(), looks, PathsOnly(), secrets)
    found["findings"] += quarantine_of(book)
    return found


def _asked(settings: Settings) -> tuple[list[DomainLook], frozenset[str]]:
    """Domains, and the secrets that the agent has made."""
    connection = LibvirtConnection(
        settings.libvirt_uri, call_timeout_seconds=settings.libvirt_call_timeout_seconds
    )
    try:
        looks = LibvirtDomains(connection).all()
        return looks, LibvirtSecrets(connection, KeyFiles(())).ours()
    except Unavailable as error:
        raise Trouble(
            Exit.UNREACHABLE,
            "unreachable",
            f"{error.detail}; an audit compares the journal with libvirt: start libvirt, or see "
            "what the journal says with 'attachctl list' and 'attachctl operations'",
            retriable=True,
        ) from None
    finally:
        connection.close()
