"""What reaches an operation on its way to the workers, and what they say of it."""

import threading

import pytest

from agent.service.workers import on_whose_behalf, whole_pool
from tests.world.story import attach, cancel, request_id
from tests.world.world import World


def test_a_cancel_between_the_commit_of_its_request_and_its_first_step_counts(
    world: World,
) -> None:
    world.meanwhile["after write"] = cancel(1)
    attach(1)(world)
    world.run()
    assert world.record(request_id(1)).state == "cancelled"


def test_whoever_waits_for_a_lock_is_told_by_its_operation(world: World) -> None:
    seen = []
    world.meanwhile["before connect"] = lambda _: seen.append(on_whose_behalf())
    attach(1)(world)
    world.run()
    assert seen == [f"attach {request_id(1)}"]


def refuse(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_a_pool_asks_the_host_for_no_thread_later_on(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = whole_pool(3, "lane")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert [pool.submit(int, number).result(60) for number in range(9)] == list(range(9))
    pool.shutdown()


def test_a_pool_of_a_host_without_threads_leaves_none_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start, begun = threading.Thread.start, list[threading.Thread]()

    def start_two(thread: threading.Thread) -> None:
        if len(begun) == 2:
            refuse(thread)
        begun.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_two)
    with pytest.raises(RuntimeError):
        whole_pool(3, "lane")
    for thread in begun:
        thread.join(60)
        assert not thread.is_alive()
