"""What the service manager is told: sd_notify(3), as datagrams on $NOTIFY_SOCKET."""

import logging
import os
import socket
from collections.abc import Mapping

LOG = logging.getLogger(__name__)

SLOW_SECONDS = 2.0
"""How long one that is slow to listen is waited for."""


class ServiceManager:
    """systemd, or nobody: then everything said is dropped."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        # An abstract socket is written with @ where its name begins with a zero byte.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._said: str | None = None
        self._owes_ready = False
        microseconds = int(environment.get("WATCHDOG_USEC", "0"))
        self.watchdog_seconds: float | None = microseconds / 1e6 if microseconds else None
        """Within which it wants to hear of us; None: it does not."""

    def ready(self) -> None:
        """Said once more with all that follows, until it was heard: else the start never ends."""
        self._owes_ready = True
        self._tell()

    def status(self, text: str) -> None:
        """One line for ``systemctl status``; said again only when it has changed."""
        if text != self._said and self._tell(f"STATUS={text}"):
            self._said = text

    def stopping(self) -> None:
        self._tell("STOPPING=1")

    def alive(self) -> None:
        self._tell("WATCHDOG=1")

    def _tell(self, *lines: str) -> bool:
        """Was it heard? By nobody: yes."""
        if not self._address:
            return True
        owed = ("READY=1",) if self._owes_ready else ()
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as wire:
                wire.settimeout(SLOW_SECONDS)
                wire.sendto("\n".join((*owed, *lines)).encode(), self._address)
        except OSError as error:  # a service manager that is away must not stop the agent
            LOG.debug("the service manager was not told %s: %s", lines, error)
            return False
        self._owes_ready = False
        return True
