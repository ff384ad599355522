"""Threads that make calls for others, of whom none waits longer than he wants."""

import threading
from collections.abc import Callable
from queue import SimpleQueue
from traceback import clear_frames
from types import TracebackType
from typing import Any

from agent.errors import Unavailable


class Task:
    """A question, and what came of it: one answer, or an error."""

    def __init__(self, question: Callable[[], Any], afterwards: Callable[[], None]) -> None:
        self._question = question
        self._afterwards = afterwards
        self.ended = threading.Event()
        self.answers: list[Any] = []
        self.error: BaseException | None = None

    def run(self) -> None:
        with self:
            self.answers.append(self._question())

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _trace: TracebackType | None,
    ) -> bool:
        """The error belongs to the thread that asked; libvirt's objects do not go with it.

        In a cycle of error and frame they would be freed by the garbage collector at any moment,
        and freeing one wipes the thread's last error, which the binding may be about to read."""
        self.error = error
        if error is not None:
            clear_frames(error.__traceback__)
        self._afterwards()
        self.ended.set()
        return True


def no_thread(error: RuntimeError) -> Unavailable:
    """This host gives the agent none."""
    return Unavailable(
        "libvirt",
        f"it was not asked: {error}; it is tried again: see whether this host has memory and "
        "processes to spare ('systemctl status' tells the agent's limit of tasks)",
    )


class Hands:
    """Threads that ask. Daemons, unlike an executor's: a call that hangs must not keep us alive."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._tasks: SimpleQueue[Task | None] = SimpleQueue()
        self._idle = 0
        self._threads = 0

    def give(self, task: Task) -> None:
        with self._lock:
            if self._idle:
                self._idle -= 1
            else:
                work = threading.Thread(
                    target=self._work, args=(self._tasks,), name="libvirt-call", daemon=True
                )
                work.start()
                self._threads += 1
            self._tasks.put(task)

    def rest(self) -> None:
        """Threads end, and are given nothing more; one that hangs ends when its call does."""
        with self._lock:
            for _ in range(self._threads):
                self._tasks.put(None)
            self._begin_anew()

    def _work(self, tasks: SimpleQueue[Task | None]) -> None:
        while (task := tasks.get()) is not None:
            task.run()
            with self._lock:
                self._idle += tasks is self._tasks
