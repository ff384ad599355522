"""What is done again and again beside the operations, each in a thread of its own."""

import logging
import threading
from collections.abc import Callable, Iterable

from agent.errors import AgentError, Internal

LOG = logging.getLogger(__name__)


def do_all(acts: Iterable[Callable[[], None]]) -> None:
    """Each in its turn, whatever became of the others.  Raises the first AgentError at the end;
    Internal of an error that nobody foresaw, which is logged."""
    troubles = list[AgentError]()
    for act in acts:
        try:
            act()
        except AgentError as error:
            troubles.append(error)
        except Exception as error:  # a defect in one must not keep the others from their turn
            LOG.exception("one of several failed in an unforeseen way")
            troubles.append(Internal(f"unforeseen {type(error).__name__}: see the lines before"))
    for other in troubles[1:]:
        LOG.warning("%s", other)
    if troubles:
        raise troubles[0]


class Turns:
    """Calls ``act`` first after ``first_seconds``, then after each pause, or so many seconds as it
    answers; what fails is done at the next turn.

    ``trouble`` says what an error of it means. One that nobody foresaw is logged with its
    traceback: were it the end of the thread, the watchdog would end the agent for it again and
    again."""

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
            except Exception:  # the thread's top: a defect of ours must not end the agent
                LOG.exception("%s: an unforeseen error; it is tried again", self._trouble)
