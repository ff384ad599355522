"""The threads of the storage lanes, and who has them.

Volumes of one target are connected one after the other anyway, under its lock. Who would wait for
that lock waits here, without a thread: so a target that does not answer has one thread of its lane,
however much is asked of it, and the others go on.
"""

import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from typing import Any

from agent.saga.plan import Lane, Step

THREADS: dict[Lane, int] = {
    "guest": 8,
    "peers": 4,
    "scsi": 2,
    "nvme": 4,
    "mounts": 4,
    "other": 4,
}
"""SCSI connects go one at a time (docs/locks.rst): more would only queue there. A server that does
not answer a mount keeps a thread for a minute, another host's agent that does not answer for twenty
seconds, and other kinds are not to wait."""

Task = Callable[..., Any]

_Key = tuple[Lane, tuple[str, ...]]


def lane_pools() -> dict[Lane, Executor]:
    return {lane: whole_pool(count, f"lane-{lane}") for lane, count in THREADS.items()}


def whole_pool(count: int, name: str) -> Executor:
    """Its threads are there from the beginning: where the host gives no more, the agent does not
    start, instead of losing what it had promised to do.  Raises RuntimeError."""
    pool, all_here = ThreadPoolExecutor(count, name), threading.Barrier(count + 1)
    try:
        for _ in range(count):
            pool.submit(all_here.wait)
        all_here.wait()
    except RuntimeError:
        all_here.abort()
        raise
    return pool


class Lanes:
    """Any thread may call."""

    def __init__(self, pools: Mapping[Lane, Executor]) -> None:
        self._pools = pools
        self._mutex = threading.Lock()
        self._waiting: dict[_Key, deque[tuple[Task, tuple[Any, ...]]]] = {}
        """Of targets that a task is given a thread for: what comes after it."""

    def submit(self, step: Step, task: Task, *args: Any) -> None:
        """``task(*args)``, which begins with ``step``, in a thread of its lane."""
        key = step.lane, step.targets
        with self._mutex:
            waiting = self._waiting.get(key)
            if waiting is not None:
                waiting.append((task, args))
                return
            if step.targets:
                self._waiting[key] = deque()
        self._give_thread(key, task, args)

    def take_back(self, is_unwanted: Callable[..., bool]) -> list[tuple[Any, ...]]:
        """The ``args`` of the tasks that wait for their target and are asked for no more."""
        with self._mutex:
            taken = []
            for key, waiting in self._waiting.items():
                kept: deque[tuple[Task, tuple[Any, ...]]] = deque()
                for task, args in waiting:
                    if is_unwanted(*args):
                        taken.append(args)
                    else:
                        kept.append((task, args))
                self._waiting[key] = kept
            return taken

    def _give_thread(self, key: _Key, task: Task, args: tuple[Any, ...]) -> None:
        self._pools[key[0]].submit(partial(self._run, key, task), *args)

    def _run(self, key: _Key, task: Task, *args: Any) -> None:
        try:
            task(*args)
        finally:
            self._next(key)

    def _next(self, key: _Key) -> None:
        with self._mutex:
            waiting = self._waiting.get(key)
            if waiting is None:
                return
            if not waiting:
                del self._waiting[key]
                return
            task, args = waiting.popleft()
        self._give_thread(key, task, args)
