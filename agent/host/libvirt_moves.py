"""The calls that move guests: each returns when its guest is there, which may take hours.

So each has a thread and a connection of its own. Nothing depends on them: if the agent dies
libvirtd goes on, and the next life sees the job. What a call ends with is kept for people; it may
be an error after the guest has moved.
"""

import logging
import threading
from collections.abc import Callable
from traceback import clear_frames
from typing import Any

import libvirt

from agent.errors import AgentError, Unavailable
from agent.host.libvirt_connection import LibvirtConnection
from agent.host.libvirt_hands import no_thread
from agent.host.libvirt_refusals import migration_refusal, unknown
from agent.host.libvirt_remembered import Remembered

LOG = logging.getLogger(__name__)

Move = Callable[[Any], object]
"""Gets a libvirt.virDomain, and returns when it has moved."""


class LibvirtMoves:
    """``on_end`` gets the instance's id, in the thread of its call; it must not raise."""

    def __init__(self, connection: LibvirtConnection, on_end: Callable[[str], None]) -> None:
        self._connection = connection
        self._on_end = on_end
        self._lock = threading.Lock()
        self._under_way: set[str] = set()
        self._called_off: set[str] = set()
        self._refusals: Remembered[AgentError] = Remembered()

    def begin(self, instance_id: str, move: Move) -> None:
        """At once. While a call moves the instance: nothing to do.  Raises Unavailable."""
        with self._lock:
            if instance_id in self._under_way:
                return
            self._under_way.add(instance_id)
            self._called_off.discard(instance_id)
        self._refusals.forget(instance_id)
        call = threading.Thread(
            target=self._go, args=(instance_id, move), name="libvirt-migration", daemon=True
        )
        try:
            call.start()
        except RuntimeError as error:
            with self._lock:
                self._under_way.discard(instance_id)
            raise no_thread(error) from error

    def is_under_way(self, instance_id: str) -> bool:
        with self._lock:
            return instance_id in self._under_way

    def call_off(self, instance_id: str) -> None:
        """One that libvirt has not heard of yet; of others nothing changes."""
        with self._lock:
            if instance_id in self._under_way:
                self._called_off.add(instance_id)

    def refusal(self, instance_id: str) -> AgentError | None:
        """What the last call of this life ended with."""
        return self._refusals.get(instance_id)

    def _go(self, instance_id: str, move: Move) -> None:
        error: AgentError | None = Unavailable("libvirt", "the call ended, and nobody knows how")
        try:
            error = self._outcome(instance_id, move)
        finally:
            if error is not None:
                self._refusals.keep(instance_id, error)
            with self._lock:
                self._under_way.discard(instance_id)
            self._on_end(instance_id)

    def _outcome(self, instance_id: str, move: Move) -> AgentError | None:
        connection = None
        try:
            connection = self._connection.open_another()
            domain = connection.lookupByUUIDString(instance_id)
            with self._lock:
                if instance_id in self._called_off:
                    return migration_refusal(libvirt.VIR_ERR_OPERATION_ABORTED, "not begun")
            move(domain)
            return None
        except libvirt.libvirtError as error:
            # As in LibvirtConnection: libvirt's objects must not wait for the garbage collector.
            clear_frames(error.__traceback__)
            LOG.info("the call to move domain %s ended: %s", instance_id, error)
            if connection is None or not connection.isAlive():
                return unknown(f"the call to move the domain broke, it may go on ({error})")
            return migration_refusal(error.get_error_code(), str(error))
