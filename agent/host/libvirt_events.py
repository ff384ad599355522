"""What happens to guests while nobody asks: a disk let go or failing, a guest stopped or moved.

An event is a hint to look, never the truth: between two connections events are lost. libvirt calls
back in its event loop's thread, where nothing may block; so callbacks only queue the instance's id,
and a thread of ours tells.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from functools import partial
from queue import SimpleQueue
from typing import Any, Final

import libvirt

from agent.host.libvirt_connection import LibvirtConnection, VirConnect
from agent.model.io_error import Action, IoError

LOG = logging.getLogger(__name__)

EVENTS: Final = (
    libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE,
    libvirt.VIR_DOMAIN_EVENT_ID_REBOOT,
    libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED,
    libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVAL_FAILED,
    libvirt.VIR_DOMAIN_EVENT_ID_MIGRATION_ITERATION,
    libvirt.VIR_DOMAIN_EVENT_ID_BLOCK_JOB_2,
)
"""All there since libvirt 1.3.4. A stop sends no DEVICE_REMOVED for disks asked for before."""

_ACTIONS: Final[dict[int, Action]] = {
    libvirt.VIR_DOMAIN_EVENT_IO_ERROR_NONE: "ignore",
    libvirt.VIR_DOMAIN_EVENT_IO_ERROR_PAUSE: "stop",
    libvirt.VIR_DOMAIN_EVENT_IO_ERROR_REPORT: "report",
}


class LibvirtEvents:
    """Tells of every event that may end somebody's wait. ``start`` before the first call."""

    def __init__(
        self,
        connection: LibvirtConnection,
        on_event: Callable[[str], None],
        on_connected: Callable[[], None],
        on_io_error: Callable[[IoError], None] = lambda _: None,
        on_job_completed: Callable[[str, Mapping[str, Any]], None] = lambda _, __: None,
    ) -> None:
        """``on_event`` gets an instance id; ``on_connected`` means that any event may be missing;
        ``on_job_completed`` gets what libvirt says of the job, before ``on_event`` does.

        All are called in one thread of ours, one after the other, and must not raise."""
        self._connection = connection
        self._on_event = on_event
        self._on_connected = on_connected
        self._on_io_error = on_io_error
        self._on_job_completed = on_job_completed
        self._untold: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._callbacks: dict[int, list[int]] = {}
        self._thread = threading.Thread(target=self._tell, name="libvirt-told", daemon=True)

    def start(self) -> None:
        """Begin to connect, and to tell."""
        self._thread.start()
        self._connection.follow(self)

    def turning(self) -> bool:
        """Our thread lives. For the watchdog."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Tell what is known by now, and then nothing more. The connection stays open."""
        self._untold.put(None)

    # as the connection's follower

    def greet(self, connection: VirConnect) -> None:
        ids = self._callbacks.setdefault(id(connection), [])
        for event in EVENTS:
            ids.append(connection.domainEventRegisterAny(None, event, self._hear, None))
        reason = libvirt.VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON
        ids.append(connection.domainEventRegisterAny(None, reason, self._hear_error, None))
        ended = libvirt.VIR_DOMAIN_EVENT_ID_JOB_COMPLETED
        ids.append(connection.domainEventRegisterAny(None, ended, self._hear_end, None))

    def connected(self) -> None:
        self._untold.put(self._on_connected)

    def part(self, connection: VirConnect) -> None:
        for callback in self._callbacks.pop(id(connection), ()):
            try:
                connection.domainEventDeregisterAny(callback)
            except libvirt.libvirtError as error:
                LOG.debug("an event callback of a dead connection: %s", error)

    # libvirt's thread, and ours

    def _hear(self, _connection: VirConnect, domain: Any, *_details: object) -> None:
        """Some events bring details, some none; which is for the look that follows."""
        self._untold.put(partial(self._on_event, domain.UUIDString()))

    def _hear_error(
        self,
        _connection: VirConnect,
        domain: Any,
        _source: str,
        alias: str,
        action: int,
        reason: str,
        _opaque: object,
    ) -> None:
        error = IoError(
            instance_id=domain.UUIDString(),
            alias=alias,
            action=_ACTIONS.get(action, "report"),
            reason=reason or None,
        )
        self._untold.put(partial(self._on_io_error, error))

    def _hear_end(
        self, connection: VirConnect, domain: Any, job: Mapping[str, Any], _opaque: object
    ) -> None:
        self._untold.put(partial(self._on_job_completed, domain.UUIDString(), dict(job)))
        self._hear(connection, domain)

    def _tell(self) -> None:
        while (tell := self._untold.get()) is not None:
            tell()
