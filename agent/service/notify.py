"""What the service manager is told: sd_notify(3), as datagrams on $NOTIFY_SOCKET."""

import logging
import os
import socket
from collections.abc import Mapping

LOG = logging.getLogger(__name__)


class ServiceManager:
    """systemd, or nobody: then everything said is dropped."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        # An abstract socket is written with @ where its name begins with a zero byte.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._said: str | None = None
        microseconds = int(environment.get("WATCHDOG_USEC", "0"))
        self.watchdog_seconds: float | None = microseconds / 1e6 if microseconds else None
        """Within which it wants to hear of us; None: it does not."""

    def ready(self) -> None:
        self._tell("READY=1")

    def status(self, text: str) -> None:
        """One line for ``systemctl status``; said again only when it has changed."""
        if text != self._said:
            self._said = text
            self._tell(f"STATUS={text}")

    def stopping(self) -> None:
        self._tell("STOPPING=1")

    def alive(self) -> None:
        self._tell("WATCHDOG=1")

    def _tell(self, line: str) -> None:
        if not self._address:
            return
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        try:
            with socket.socket(socket.AF_UNIX, kind) as wire:
                wire.sendto(line.encode(), self._address)
        except OSError as error:  # a service manager that is away must not stop the agent
            LOG.debug("the service manager was not told %s: %s", line, error)
