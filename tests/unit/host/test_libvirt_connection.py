"""One connection for many threads; libvirt's own test driver needs no daemon and no root."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import libvirt
import pytest

from agent.errors import Unavailable
from agent.host.libvirt_connection import CALLS_AT_ONCE, LibvirtConnection
from agent.host.libvirt_events import LibvirtEvents
from agent.host.libvirt_moves import LibvirtMoves
from tests.lab.patience import wait_until

TEST_DRIVER = "test:///default"

LONG_SECONDS = 60
"""So long a test that fails takes, instead of for ever."""


@pytest.fixture
def connection() -> Iterator[LibvirtConnection]:
    connection = LibvirtConnection(TEST_DRIVER)
    yield connection
    connection.close()


@pytest.fixture
def silent_daemon(tmp_path: Path) -> Iterator[str]:
    """A libvirtd that takes connections and never says a word."""
    path = tmp_path / "silent"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(8)
        yield f"qemu+unix:///system?socket={path}"


def test_a_question_is_answered(connection: LibvirtConnection) -> None:
    assert not connection.alive()
    assert connection.call(lambda virt: [found.name() for found in virt.listAllDomains()]) == [
        "test"
    ]
    assert connection.alive()
    assert connection.turning()
    assert connection.describe() == f"connected to {TEST_DRIVER}"


def test_what_the_question_raises_comes_back(connection: LibvirtConnection) -> None:
    with pytest.raises(libvirt.libvirtError) as told:
        connection.call(lambda virt: virt.lookupByName("nobody"))
    assert told.value.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN
    with pytest.raises(KeyError):
        connection.call(lambda virt: {}["key"])
    assert connection.alive()


def refuse(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_a_host_without_a_thread_to_spare_costs_no_place(
    connection: LibvirtConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert connection.call(lambda virt: virt.getHostname())
    connection._hands.rest()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        for _ in range(CALLS_AT_ONCE + 1):
            with pytest.raises(Unavailable, match="can't start new thread"):
                connection.call(lambda virt: virt.getHostname())
    assert connection.call(lambda virt: virt.getHostname())


def test_nor_does_it_leave_a_migration_that_never_began(
    connection: LibvirtConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    moves = LibvirtMoves(connection, lambda instance_id: None)
    move: Any = None
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(Unavailable, match="can't start new thread"):
            moves.begin("instance-1", move)
    assert not moves.is_under_way("instance-1")


def test_a_call_has_a_connection_to_itself(connection: LibvirtConnection) -> None:
    """Shared ones lose wake-ups in the client library: the second call would hang for seconds."""
    under_way: list[Any] = []
    shared: list[Any] = []
    used: set[int] = set()

    def ask(virt: Any) -> None:
        shared.extend(other for other in under_way if other is virt)
        under_way.append(virt)
        used.add(id(virt))
        time.sleep(0.01)
        under_way.remove(virt)

    _all_at_once(20, lambda: connection.call(ask))
    assert not shared
    assert len(used) <= CALLS_AT_ONCE
    # Kept for the next calls, not opened for each.
    _all_at_once(20, lambda: connection.call(ask))
    assert len(used) <= CALLS_AT_ONCE


def test_no_daemon_is_unavailable_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.host.libvirt_connection.RETRY_SECONDS", LONG_SECONDS)
    connection = LibvirtConnection(f"qemu+unix:///system?socket={tmp_path}/nothing")
    started = time.monotonic()
    for _ in range(3):
        with pytest.raises(Unavailable, match="No such file"):
            connection.call(lambda virt: virt.getLibVersion())
    assert time.monotonic() - started < LONG_SECONDS / 2, "it waited for another try"
    assert not connection.alive()
    assert "No such file" in connection.describe()
    connection.close()


def test_a_daemon_that_never_answers_holds_nobody_up(silent_daemon: str) -> None:
    open_seconds = 2.0
    connection = LibvirtConnection(silent_daemon, open_timeout_seconds=open_seconds)
    started = time.monotonic()
    for _ in range(5):
        with pytest.raises(Unavailable, match="opening"):
            connection.call(lambda virt: virt.getLibVersion())
    assert open_seconds <= time.monotonic() - started < 3 * open_seconds, "each of them waited"
    started = time.monotonic()
    connection.close()
    assert time.monotonic() - started < LONG_SECONDS / 2


def test_a_call_that_hangs_holds_up_nobody_else() -> None:
    connection = LibvirtConnection(TEST_DRIVER, call_timeout_seconds=0.2)
    never = threading.Event()
    hung = [
        threading.Thread(target=_expect_unavailable, args=(connection, lambda virt: never.wait()))
        for _ in range(CALLS_AT_ONCE)
    ]
    for thread in hung:
        thread.start()
    for thread in hung:
        thread.join(LONG_SECONDS)
        assert not thread.is_alive()
    names = _in_time(connection, lambda virt: [found.name() for found in virt.listAllDomains()])
    assert names == ["test"]
    never.set()
    connection.close()


def test_calls_leave_room_for_others() -> None:
    """libvirtd serves so many at once, whosever they are."""
    connection = LibvirtConnection(TEST_DRIVER)
    at_once: list[int] = []
    inside = 0
    lock = threading.Lock()
    full = threading.Barrier(CALLS_AT_ONCE, timeout=LONG_SECONDS)

    def ask(_virt: Any) -> None:
        nonlocal inside
        with lock:
            inside += 1
            at_once.append(inside)
        full.wait()
        with lock:
            inside -= 1

    _all_at_once(3 * CALLS_AT_ONCE, lambda: connection.call(ask))
    assert len(at_once) == 3 * CALLS_AT_ONCE
    assert max(at_once) == CALLS_AT_ONCE
    connection.close()


def test_a_connection_is_closed_only_after_its_last_call() -> None:
    connection = LibvirtConnection(TEST_DRIVER, call_timeout_seconds=0.1)
    go_on, answers = threading.Event(), []

    def ask(virt: Any) -> None:
        go_on.wait(LONG_SECONDS)
        answers.append(virt.isAlive())

    with pytest.raises(Unavailable, match="not ended"):
        connection.call(ask)
    assert _in_time(connection, lambda virt: virt.getHostname())
    go_on.set()
    wait_until(lambda: answers or None, "the call ends", seconds=LONG_SECONDS)
    assert answers == [1]
    connection.close()


def test_after_close_nothing_is_asked(connection: LibvirtConnection) -> None:
    connection.call(lambda virt: virt.getLibVersion())
    connection.close()
    with pytest.raises(Unavailable, match="stopping"):
        connection.call(lambda virt: virt.getLibVersion())
    assert not connection.alive()


def test_events_are_told_and_a_new_connection_too() -> None:
    connection = LibvirtConnection(TEST_DRIVER)
    told: list[str] = []
    heard = threading.Condition()

    def tell(what: str) -> None:
        with heard:
            told.append(what)
            heard.notify_all()

    events = LibvirtEvents(connection, on_event=tell, on_connected=lambda: tell("connected"))
    events.start()
    instance = connection.call(lambda virt: str(virt.lookupByName("test").UUIDString()))
    connection.call(lambda virt: virt.lookupByName("test").suspend())
    with heard:
        # Whoever calls first may be heard of before the connection is.
        wanted = sorted(("connected", instance))
        assert heard.wait_for(lambda: sorted(told) == wanted, timeout=LONG_SECONDS)
    assert events.turning()
    events.close()
    connection.close()


def _in_time(connection: LibvirtConnection, question: Callable[[Any], Any]) -> Any:
    """The answer: the time of a call that shall hang may be too short for this one."""

    def look() -> Any:
        with suppress(Unavailable):
            return connection.call(question)
        return None

    return wait_until(look, "libvirt answers", seconds=LONG_SECONDS)


def _expect_unavailable(connection: LibvirtConnection, ask: Any) -> None:
    with pytest.raises(Unavailable):
        connection.call(ask)


def _all_at_once(count: int, do: Callable[[], object]) -> None:
    threads = [threading.Thread(target=do) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG_SECONDS)
        assert not thread.is_alive()


class SecondaryIsAway(libvirt.libvirtError):
    """As a modular daemon hands on that another one does not answer."""

    def __init__(self) -> None:
        Exception.__init__(self, "Failed to connect socket to 'virtsecretd-sock'")
        told = (libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_FROM_RPC, str(self), 2)
        self.err = (*told, None, None, None, 2, -1)


def test_a_daemon_behind_the_daemon_that_is_away_costs_no_connection(
    connection: LibvirtConnection,
) -> None:
    """It would be opened anew at once, and everybody who hears of that ask again, and so on."""
    used: set[int] = set()

    def ask(virt: Any) -> None:
        used.add(id(virt))
        raise SecondaryIsAway

    for _ in range(20):
        with pytest.raises(Unavailable, match="see that all of libvirt's daemons run"):
            connection.call(ask)
        assert connection.alive()
    assert len(used) == 1
