"""A question to libvirt, or a change: what its errors say then."""

from collections.abc import Callable
from typing import Any, TypeVar

import libvirt

from agent.errors import AgentError
from agent.host.libvirt_connection import LibvirtConnection, VirConnect
from agent.host.libvirt_refusals import refusal, unknown

Answer = TypeVar("Answer")


class LibvirtCalls:
    def __init__(self, connection: LibvirtConnection) -> None:
        self._connection = connection

    def _question(self, ask: Callable[[VirConnect], Answer]) -> Answer:
        """Raises Unavailable: an error says nothing."""
        try:
            return self._connection.call(ask)
        except libvirt.libvirtError as error:
            raise unknown(str(error)) from error

    def _change(self, ask: Callable[[VirConnect], Answer], doing: str) -> Answer:
        """Raises what the error says of it."""
        try:
            return self._connection.call(ask)
        except libvirt.libvirtError as error:
            raise libvirt_refusal(error, doing) from error


def libvirt_refusal(error: Any, doing: str) -> AgentError:
    """Of a libvirtError."""
    return refusal(error.get_error_code(), error.get_error_domain(), str(error), doing=doing)
