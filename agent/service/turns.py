"""What is done again and again beside the operations, each in a thread of its own."""

import logging
import threading
from collections.abc import Callable

from agent.errors import AgentError

LOG = logging.getLogger(__name__)


class Turns:
    """Calls ``act`` first after ``first_seconds``, then after each pause, or so many seconds as it
    answers; what fails is done at the next turn.

    ``trouble`` says what an AgentError of it means; any other error is a defect and ends the
    thread, which the watchdog sees."""

    def __init__(
        self,
        name: str,
        act: Callable[[], float | None],
        pause_seconds: float,
        *,
        trouble: str,
        first_seconds: float = 0.0,
    ) -> None:
        self.name = name
        self._act = act
        self._pause_seconds = pause_seconds
        self._first_seconds = first_seconds
        self._trouble = trouble
        self._stopped = threading.Event()
        self._wanted = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def turning(self) -> bool:
        return self._thread.is_alive()

    def hurry(self) -> None:
        """The next turn begins now. Returns at once."""
        self._wanted.set()

    def stop(self) -> None:
        """Begin nothing more; what is under way is not waited for."""
        self._stopped.set()
        self._wanted.set()

    def _run(self) -> None:
        pause_seconds = self._first_seconds
        while True:
            self._wanted.wait(pause_seconds)
            self._wanted.clear()
            if self._stopped.is_set():
                return
            pause_seconds = self._pause_seconds
            try:
                pause_seconds = self._act() or self._pause_seconds
            except AgentError as error:
                LOG.warning("%s: %s", self._trouble, error.detail)
