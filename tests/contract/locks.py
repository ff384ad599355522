"""What ports.Locks promises, on the simulated host and on the real machine alike.

A subclass gives the ``locks`` fixture. Waiting is for the real ones alone: on the simulated host
one thread plays everybody, and whoever would wait lets the others go on.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime

import pytest

from agent.ports import Locks

ENOUGH_SECONDS = 60

Take = Callable[[], AbstractContextManager[None]]


@contextmanager
def taken(take: Take) -> Iterator[None]:
    """Another thread holds it meanwhile."""
    has_it, over = threading.Event(), threading.Event()

    def hold() -> None:
        with take():
            has_it.set()
            assert over.wait(ENOUGH_SECONDS)

    thread = threading.Thread(target=hold, name="the other")
    thread.start()
    try:
        assert has_it.wait(ENOUGH_SECONDS), "it was not given"
        yield
    finally:
        over.set()
        thread.join(ENOUGH_SECONDS)


class Wish:
    """A thread that asks for a lock and holds it until told."""

    def __init__(self, take: Take) -> None:
        self.granted = threading.Event()
        self._over = threading.Event()
        self._take = take
        self._thread = threading.Thread(target=self._run, name="the wish")
        self._thread.start()

    def _run(self) -> None:
        with self._take():
            self.granted.set()
            assert self._over.wait(ENOUGH_SECONDS)

    def end(self) -> None:
        self._over.set()
        self._thread.join(ENOUGH_SECONDS)
        assert not self._thread.is_alive()


class LocksContract:
    @pytest.fixture
    def locks(self) -> Locks:
        raise NotImplementedError

    def test_others_are_not_in_the_way(self, locks: Locks) -> None:
        with taken(lambda: locks.volume("vol-1")), locks.volume("vol-2"):
            pass
        with taken(lambda: locks.targets(["iqn-1"])), locks.targets(["iqn-2"]):
            pass

    def test_a_volume_and_a_target_of_one_name_are_two(self, locks: Locks) -> None:
        with taken(lambda: locks.volume("one")), locks.targets(["one"]):
            pass

    def test_the_volume_then_its_targets(self, locks: Locks) -> None:
        with locks.volume("vol-1"), locks.targets(["iqn-1", "iqn-2"]):
            assert {lock["name"] for lock in locks.held()} == {
                "volume:vol-1",
                "target:iqn-1",
                "target:iqn-2",
            }
        assert locks.held() == []

    def test_a_name_given_twice_is_one(self, locks: Locks) -> None:
        with locks.targets(["iqn-1", "iqn-1"]):
            assert len(locks.held()) == 1

    def test_no_target_is_no_lock(self, locks: Locks) -> None:
        with locks.targets([]):
            assert locks.held() == []

    def test_an_error_lets_go(self, locks: Locks) -> None:
        for take in (lambda: locks.volume("vol-1"), lambda: locks.targets(["a", "b"])):
            with pytest.raises(KeyError), take():
                raise KeyError
            with taken(take):
                pass
        assert locks.held() == []


class ContendedLocksContract(LocksContract):
    """With several threads that want the same."""

    def test_a_volume_is_held_by_one(self, locks: Locks) -> None:
        self.assert_excludes(locks, lambda: locks.volume("vol-1"), lambda: locks.volume("vol-1"))

    def test_a_target_is_held_by_one(self, locks: Locks) -> None:
        self.assert_excludes(
            locks, lambda: locks.targets(["iqn-1"]), lambda: locks.targets(["iqn-1"])
        )

    def test_one_common_target_is_enough(self, locks: Locks) -> None:
        self.assert_excludes(
            locks, lambda: locks.targets(["a", "b"]), lambda: locks.targets(["b", "c"])
        )

    def test_opposite_orders_do_not_block_each_other(self, locks: Locks) -> None:
        def many(names: list[str]) -> None:
            for _ in range(100):
                with locks.targets(names):
                    pass

        orders = (["a", "b", "c"], ["c", "b", "a"], ["b", "c", "a"])
        threads = [threading.Thread(target=many, args=(names,)) for names in orders]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(ENOUGH_SECONDS)
            assert not thread.is_alive()

    def test_targets_are_taken_in_the_order_of_their_names(self, locks: Locks) -> None:
        """In every process: who waits for the first holds none of the others."""
        with taken(lambda: locks.targets(["a"])):
            wish = Wish(lambda: locks.targets(list("hgfedcba")))
            self.wait_for_waiter(locks)
            assert [lock["name"] for lock in locks.held()] == ["target:a"]
        assert wish.granted.wait(ENOUGH_SECONDS)
        assert len(locks.held()) == 8
        wish.end()

    def test_held_says_who_holds_since_when(self, locks: Locks) -> None:
        with taken(lambda: locks.volume("vol-1")):
            (lock,) = locks.held()
            assert lock["name"] == "volume:vol-1"
            assert lock["holder"]
            assert datetime.fromisoformat(lock["since"]).tzinfo is not None
            assert not lock["overdue"]
            assert lock["waiters"] == []

    def assert_excludes(self, locks: Locks, first: Take, second: Take) -> None:
        """The second gets it when the first has let go, and not before."""
        with taken(first):
            wish = Wish(second)
            self.wait_for_waiter(locks)
            assert not wish.granted.is_set()
        assert wish.granted.wait(ENOUGH_SECONDS)
        wish.end()
        assert locks.held() == []

    def wait_for_waiter(self, locks: Locks) -> None:
        """Somebody waits now. Looks again and again, as the operator would."""
        limit = threading.Event()
        for _ in range(ENOUGH_SECONDS * 100):
            if any(lock["waiters"] for lock in locks.held()):
                return
            limit.wait(0.01)
        raise AssertionError("nobody waits")
