"""What an agent has of its hypervisor's libvirt, without the agent."""

from collections import Counter
from types import TracebackType
from typing import Self

from agent.host.libvirt_connection import LibvirtConnection
from agent.host.libvirt_domains import LibvirtDomains
from agent.host.libvirt_events import LibvirtEvents
from agent.host.libvirt_migrations import LibvirtMigrations
from tests.lab.libvirtd import Libvirtd


class Side:
    """One life of it. ``stirred``: how often somebody was told of the instance."""

    def __init__(self, libvirtd: Libvirtd) -> None:
        self.libvirtd = libvirtd
        self.stirred: Counter[str] = Counter()
        self._connection = LibvirtConnection(libvirtd.uri)
        self.domains = LibvirtDomains(self._connection)
        self.migrations = LibvirtMigrations(self._connection, self._stir)
        self._events = LibvirtEvents(
            self._connection,
            self._stir,
            lambda: None,
            on_job_completed=self.migrations.job_completed,
        )
        self._events.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._events.close()
        self._connection.close()

    def _stir(self, instance_id: str) -> None:
        self.stirred[instance_id] += 1
