"""ports.Locks without files: it knows who holds what, and asserts the order of taking."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any


class SimulatedLocks:
    """``wait`` lets another operation go on until the lock is free; alone there is no other."""

    def __init__(self) -> None:
        self._holders: dict[str, int] = {}
        self.wait: Callable[[str], None] = _nobody_lets_go

    def volume(self, volume_id: str) -> AbstractContextManager[None]:
        mine = self.mine()
        assert not mine, f"volume {volume_id} is locked while {mine} is held"
        return self._hold([f"volume:{volume_id}"])

    def targets(self, names: Sequence[str]) -> AbstractContextManager[None]:
        mine = self.mine()
        assert not any(name.startswith("target:") for name in mine), f"{mine} is held already"
        return self._hold([f"target:{name}" for name in sorted(set(names))])

    def held(self) -> Sequence[Mapping[str, Any]]:
        return [{"name": name, "holder": str(who)} for name, who in sorted(self._holders.items())]

    def is_free(self, name: str) -> bool:
        return name not in self._holders

    def mine(self) -> list[str]:
        me = threading.get_ident()
        return [name for name, who in self._holders.items() if who == me]

    @contextmanager
    def _hold(self, names: Sequence[str]) -> Iterator[None]:
        with ExitStack() as stack:
            for name in names:
                stack.enter_context(self._hold_one(name))
            yield

    @contextmanager
    def _hold_one(self, name: str) -> Iterator[None]:
        while name in self._holders:
            self.wait(name)
        self._holders[name] = threading.get_ident()
        try:
            yield
        finally:
            del self._holders[name]


def _nobody_lets_go(name: str) -> None:
    raise AssertionError(f"{name} is held by the one that asks for it")
