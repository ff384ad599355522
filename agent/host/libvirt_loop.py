"""libvirt's event loop: keep-alive and events need it, and it must be there before a connection."""

import logging
import threading
import time
from typing import Final

import libvirt

LOG = logging.getLogger(__name__)

HEARTBEAT_SECONDS: Final = 5.0

PAUSE_SECONDS: Final = 1.0
"""After the loop failed, which is a defect of libvirt: do not spin."""


class EventLoop:
    """libvirt's event loop, in one thread, for as long as the process lives."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._beat_at = 0.0

    def start(self) -> None:
        """Before the first connection is opened, or it would have no keep-alive and no events."""
        with self._lock:
            if self._thread is not None:
                return
            libvirt.registerErrorHandler(_ignore, None)
            libvirt.virEventRegisterDefaultImpl()
            libvirt.virEventAddTimeout(int(HEARTBEAT_SECONDS * 1000), self._beat, None)
            self._beat_at = time.monotonic()
            self._thread = threading.Thread(target=self._run, name="libvirt-events", daemon=True)
            self._thread.start()

    def turning(self) -> bool:
        """It ran its timer lately."""
        return time.monotonic() - self._beat_at < 4 * HEARTBEAT_SECONDS

    def _run(self) -> None:
        while True:
            try:
                libvirt.virEventRunDefaultImpl()
            except libvirt.libvirtError as error:
                LOG.error("libvirt's event loop: %s", error)
                time.sleep(PAUSE_SECONDS)

    def _beat(self, _timer: int, _opaque: object) -> None:
        self._beat_at = time.monotonic()


EVENT_LOOP: Final = EventLoop()
"""libvirt takes one implementation in a process, once."""


def _ignore(_context: object, _error: object) -> None:
    """Every error is raised too; libvirt would print it on standard error as well."""
