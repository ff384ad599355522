"""The way to libvirt, for every thread, made again whenever it is lost.

A connection of libvirt is dead for good once its socket is, so a thread of ours (the keeper) opens
the next one, greets those who follow (they register for events) and lets callers in. It tells of
events and of libvirtd's end; each call under way has a connection beside it to itself. Nothing here
waits without an end, whatever libvirtd does:

- it does not answer any more: keep-alive, which the event loop sends, breaks the connection;
- it takes a connection and never answers the first question (keep-alive is not on yet): callers
  wait ``open_timeout_seconds``;
- it lives and one call hangs (a QEMU whose monitor is stuck): the caller waits
  ``call_timeout_seconds`` and the link is retired, so that its place is free for another call.

A retired link is closed when the last call on it has returned, as a call under way would be left
with a connection that is none.

Rejected: asking in the caller's own thread and relying on keep-alive. It does not see a stuck QEMU.
Rejected: one connection for all calls. The thread that has called first reads for all; the client
library (9.0.0) loses the wake-up that tells it of a second call if it comes a moment too early, and
the second call hangs until keep-alive stirs the socket: for seconds, and often.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeVar

import libvirt

from agent.errors import Unavailable
from agent.host.libvirt_hands import Hands, Task, no_thread
from agent.host.libvirt_loop import EVENT_LOOP
from agent.host.libvirt_refusals import is_connection_lost

LOG = logging.getLogger(__name__)

Answer = TypeVar("Answer")

VirConnect = Any
"""A libvirt.virConnect."""

CALLS_AT_ONCE: Final = 8
"""Of the twenty that libvirtd serves at once (max_workers): others have guests here too."""

RETRY_SECONDS: Final = 1.0
"""Between two tries to open. On a local socket a try costs microseconds."""


class Follower(Protocol):
    """Somebody who needs every connection from its first moment. Must not raise anything else."""

    def greet(self, connection: VirConnect) -> None:
        """Before any caller has it. A libvirtError gives this connection up."""

    def connected(self) -> None:
        """Callers have it now. Must return at once."""

    def part(self, connection: VirConnect) -> None:
        """It is not used any more; it may be dead. Must not raise."""


@dataclass(eq=False)
class _Link:
    """The connection that tells of events; those of calls: how many are under way, who is idle."""

    connection: VirConnect
    idle: list[VirConnect] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    calls: int = 0
    retired: bool = False


class LibvirtConnection:
    """Opens when first needed. Every method may be called from any thread."""

    def __init__(
        self,
        uri: str,
        *,
        call_timeout_seconds: float = 60.0,
        open_timeout_seconds: float = 10.0,
        keepalive_seconds: int = 5,
        keepalive_count: int = 3,
    ) -> None:
        """``call_timeout_seconds`` must exceed the 30 s after which libvirt gives up a job lock.

        A libvirtd that is silent is noticed after keepalive_seconds * (keepalive_count + 1).
        """
        self.uri = uri
        self._call_timeout_seconds = call_timeout_seconds
        self._open_timeout_seconds = open_timeout_seconds
        self._keepalive = (keepalive_seconds, keepalive_count)
        self._followers: list[Follower] = []
        self._changed = threading.Condition()
        self._link: _Link | None = None
        self._failure: str | None = None
        self._opening_since = time.monotonic()
        self._keeper: threading.Thread | None = None
        self._closed = threading.Event()
        self._hands = Hands()

    def follow(self, follower: Follower) -> None:
        """Greet it with every connection from now on, and begin to connect.

        To be called before the first call: a connection that is there already is not shown."""
        with self._changed:
            assert self._keeper is None, "follow before the first call"
            self._followers.append(follower)
            self._begin()

    def call(self, question: Callable[[VirConnect], Answer]) -> Answer:
        """The answer to ``question``, which may ask libvirt several things.

        It runs in another thread and must not keep libvirt's objects beyond its return.
        Raises Unavailable (then it is unknown whether the question had an effect), and whatever
        the question raises, libvirtError included.
        """
        link = self._enter()
        task = Task(lambda: self._ask(link, question), lambda: self._leave(link))
        try:
            self._hands.give(task)
        except RuntimeError as error:
            self._leave(link)
            raise no_thread(error) from error
        if not task.ended.wait(self._call_timeout_seconds):
            reason = f"a call has not ended within {self._call_timeout_seconds:g} s"
            self._lose(link, reason)
            raise Unavailable("libvirt", f"{reason}; a guest's QEMU may be stuck")
        if isinstance(task.error, libvirt.libvirtError):
            self._refuse_broken(link, task.error)
        if task.error is not None:
            raise task.error
        answer: Answer = task.answers[0]
        return answer

    def alive(self) -> bool:
        """A connection is open now, as far as keep-alive knows."""
        with self._changed:
            return self._link is not None

    def describe(self) -> str:
        """For people: connected to what, or why not."""
        with self._changed:
            if self._link is not None:
                return f"connected to {self.uri}"
            return f"not connected to {self.uri}: {self._why_not()}"

    def turning(self) -> bool:
        """Our own threads live: says nothing of libvirtd. For the watchdog."""
        keeper = self._keeper
        return keeper is None or (keeper.is_alive() and EVENT_LOOP.turning())

    def close(self) -> None:
        """No call begins any more. Calls under way end by themselves; nobody waits for them."""
        self._closed.set()
        with self._changed:
            link, keeper = self._link, self._keeper
            self._changed.notify_all()
        if link is not None:
            self._lose(link, "closed")
        if keeper is not None:
            keeper.join(RETRY_SECONDS * 2)
        self._hands.rest()

    # callers

    def _enter(self) -> _Link:
        """A connection with room for one more call, counted as its user."""
        call_deadline = time.monotonic() + self._call_timeout_seconds
        with self._changed:
            self._begin()
            while True:
                if self._closed.is_set():
                    raise Unavailable("libvirt", "the agent is stopping")
                link = self._link
                if link is None and self._failure is not None:
                    raise Unavailable("libvirt", self._why_not())
                if link is not None and link.calls < CALLS_AT_ONCE:
                    link.calls += 1
                    return link
                deadline = call_deadline
                if link is None:
                    deadline = self._opening_since + self._open_timeout_seconds
                remaining_seconds = deadline - time.monotonic()
                if remaining_seconds <= 0:
                    raise Unavailable("libvirt", self._why_not())
                self._changed.wait(remaining_seconds)

    def _ask(self, link: _Link, question: Callable[[VirConnect], Answer]) -> Answer:
        with self._changed:
            own = link.idle.pop() if link.idle else None
        connection = own or self.open_another()
        try:
            return question(connection)
        finally:
            with self._changed:
                link.idle.append(connection)
            if not connection.isAlive():
                self._lose(link, "the connection of a call broke")

    def _leave(self, link: _Link) -> None:
        with self._changed:
            link.calls -= 1
            to_free = link.retired and link.calls == 0
            self._changed.notify_all()
        if to_free:
            _free(link)

    def _lose(self, link: _Link, reason: str) -> None:
        """Give no more calls to it. Safe anywhere, also in libvirt's callbacks."""
        with self._changed:
            if self._link is link:
                self._link = None
                self._opening_since = time.monotonic()
                self._changed.notify_all()
                LOG.warning("libvirt connection given up: %s", reason)
        link.over.set()

    def _why_not(self) -> str:
        if self._failure is not None:
            return self._failure
        if self._link is not None:
            return f"{CALLS_AT_ONCE} calls are under way and none ends"
        if self._keeper is None:
            return "nobody has asked yet"
        return f"opening {self.uri} takes longer than {self._open_timeout_seconds:g} s"

    @staticmethod
    def _refuse_broken(link: _Link, error: libvirt.libvirtError) -> None:
        """Raises Unavailable if nothing is known of what the call has done.

        The error alone does not tell whose connection broke: a daemon that asks another one for us
        (virtsecretd, virtlockd) hands on what it was told. Ours is given up by who sees it dead."""
        if link.over.is_set():
            raise Unavailable("libvirt", f"the connection was lost: {error}") from error
        if is_connection_lost(error.get_error_code(), error.get_error_domain()):
            raise Unavailable(
                "libvirt",
                f"a daemon of it does not answer: {error}; see that all of libvirt's daemons run",
            ) from error

    # the keeper

    def _begin(self) -> None:
        if self._keeper is None and not self._closed.is_set():
            EVENT_LOOP.start()
            self._opening_since = time.monotonic()
            self._keeper = threading.Thread(target=self._keep, name="libvirt-keeper", daemon=True)
            self._keeper.start()

    def _keep(self) -> None:
        while not self._closed.is_set():
            with self._changed:
                self._opening_since = time.monotonic()
            try:
                link = self._open()
            except libvirt.libvirtError as error:
                self._failed(str(error))
                self._closed.wait(RETRY_SECONDS)
                continue
            opened_at = time.monotonic()
            self._publish(link)
            link.over.wait()
            self._retire(link)
            # Whatever breaks each of them at once does not have us open thousands.
            self._closed.wait(max(0.0, opened_at + RETRY_SECONDS - time.monotonic()))

    def _open(self) -> _Link:
        link = _Link(self.open_another())
        try:
            link.connection.registerCloseCallback(self._on_close, link)
            for follower in self._followers:
                follower.greet(link.connection)
        except libvirt.libvirtError:
            self._retire(link)
            raise
        return link

    def open_another(self) -> VirConnect:
        """One that the caller closes, for a call of any length.  Raises libvirtError."""
        connection = libvirt.open(self.uri)
        try:
            connection.setKeepAlive(*self._keepalive)
        except libvirt.libvirtError as error:
            # Without a daemon (qemu:///embed) there is nobody to keep alive.
            if error.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:
                raise
        return connection

    def _on_close(self, _connection: VirConnect, reason: int, link: _Link) -> None:
        """Comes in any thread, also in one that is within a call."""
        self._lose(link, CLOSE_REASONS.get(reason, f"close reason {reason}"))

    def _failed(self, reason: str) -> None:
        with self._changed:
            if self._failure is None:
                LOG.warning("libvirt at %s cannot be reached: %s", self.uri, reason)
            self._failure = reason
            self._changed.notify_all()

    def _publish(self, link: _Link) -> None:
        with self._changed:
            if not link.over.is_set():
                self._link = link
                self._failure = None
                self._changed.notify_all()
        if self._closed.is_set():
            link.over.set()
        if not link.over.is_set():
            LOG.info("connected to %s", self.uri)
            for follower in self._followers:
                follower.connected()

    def _retire(self, link: _Link) -> None:
        self._lose(link, "retired")
        for follower in self._followers:
            follower.part(link.connection)
        try:
            link.connection.unregisterCloseCallback()
        except libvirt.libvirtError as error:
            LOG.debug("close callback of a retired connection: %s", error)
        with self._changed:
            link.retired = True
            to_free = link.calls == 0
        if to_free:
            _free(link)


CLOSE_REASONS: Final = {
    libvirt.VIR_CONNECT_CLOSE_REASON_ERROR: "libvirtd broke the connection",
    libvirt.VIR_CONNECT_CLOSE_REASON_EOF: "libvirtd ended",
    libvirt.VIR_CONNECT_CLOSE_REASON_KEEPALIVE: "libvirtd did not answer keep-alive",
    libvirt.VIR_CONNECT_CLOSE_REASON_CLIENT: "closed here",
}


def _free(link: _Link) -> None:
    for connection in (link.connection, *link.idle):
        try:
            connection.close()
        except libvirt.libvirtError as error:
            LOG.debug("closing a retired connection: %s", error)
