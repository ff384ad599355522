"""Where threads are."""

import threading

from agent.service.stacks import thread_stacks


def wait_for_somebody(here: threading.Event, go: threading.Event) -> None:
    here.set()
    go.wait()


def test_each_thread_is_named_with_what_it_does() -> None:
    here, go = threading.Event(), threading.Event()
    thread = threading.Thread(target=wait_for_somebody, args=(here, go), name="lane-scsi_0")
    thread.start()
    try:
        here.wait()
        stacks = f"\n{thread_stacks()}".split("\nthread ")
    finally:
        go.set()
        thread.join()
    [found] = [stack for stack in stacks if stack.startswith("lane-scsi_0:\n")]
    assert "in wait_for_somebody" in found
