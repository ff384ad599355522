"""All kinds of storage that a test may make, and its end: what is shown goes after who shows it."""

import uuid
from contextlib import ExitStack
from typing import Any

from tests.nested.inside.iscsi import Backing, Target
from tests.nested.inside.nfs import Export
from tests.nested.inside.nvme import Namespace, Subsystem


class Storage:
    def __init__(self) -> None:
        self._volumes = ExitStack()
        self._servers = ExitStack()

    def target(self, **how: Any) -> Target:
        made = Target(_name(), **how)
        self._servers.callback(made.close)
        return made

    def backing(self) -> Backing:
        made = Backing()
        self._volumes.callback(made.close)
        return made

    def lun(self, number: int = 0, **how: Any) -> tuple[Target, Backing]:
        """A target of its own, and what it shows at this number."""
        target, backing = self.target(**how), self.backing()
        target.map(number, backing)
        return target, backing

    def subsystem(self, **how: Any) -> Subsystem:
        made = Subsystem(_name(), **how)
        self._servers.callback(made.close)
        return made

    def namespace(self) -> Namespace:
        made = Namespace()
        self._volumes.callback(made.close)
        return made

    def export(self) -> Export:
        made = Export(_name())
        self._servers.callback(made.close)
        return made

    def close(self) -> None:
        """Everybody must have left."""
        with self._volumes, self._servers:
            pass


def _name() -> str:
    return uuid.uuid4().hex[:8]
