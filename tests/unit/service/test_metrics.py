"""What is told to who scrapes."""

import socket
import urllib.request
from contextlib import suppress

from prometheus_client.parser import text_string_to_metric_families

from agent.service.metrics import Metrics
from tests.lab.patience import wait_until
from tests.unit.journal.rows import StoppedClock, opened, record
from tests.unit.saga.stories import guest_is, leftover
from tests.world.story import attach, attached, detach, let_pass, request_id
from tests.world.world import World


def scraped(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """{(name, the values of its labels in the order of their names …): value}, by HTTP."""

    def serve() -> int | None:
        """Somebody else may take the port meanwhile."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = int(free.getsockname()[1])
        with suppress(OSError):
            metrics.serve("127.0.0.1", port)
            return port
        return None

    port = wait_until(serve, "a port is free", seconds=60)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return {
        (
            sample.name.removeprefix("attachment_agent_"),
            *(sample.labels[label] for label in sorted(sample.labels)),
        ): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_operations_and_what_is_kept_are_counted(world: World) -> None:
    metrics = Metrics(world.journal, world.clock, {"libvirt": lambda: True}, lambda: 0, lambda: 0)
    attached(world, 2, volume=2)
    guest_is("stubborn")(world)
    for act in (detach(2, 2), let_pass(1), leftover, attach(1)):
        act(world)
    world.run()
    for number in (1, 2):
        metrics.changed(world.record(request_id(number)))
    found = scraped(metrics)
    assert found["open_operations", "waiting"] == 1
    assert found["oldest_open_operation_seconds", "waiting"] == 1
    assert found["oldest_open_operation_seconds", "unsettled"] == 0
    assert found["open_operations", "unsettled"] == 0
    assert found["attachments",] == 1
    assert found["operations_total", "wrong-device", "undone", "attach"] == 1
    assert found["operation_seconds_count", "undone", "attach"] == 1
    assert ("operation_seconds_count", "waiting", "detach") not in found
    assert found["quarantined_volumes",] == 1
    assert found["unpublished_notifications",] > 0
    assert found["up", "libvirt"] == 1


def test_what_is_lost_and_what_hangs_is_counted_at_each_scrape() -> None:
    counts = iter([0, 2])
    clock = StoppedClock()
    with opened(None, clock) as journal:
        metrics = Metrics(
            journal,
            clock,
            {"bus": lambda: False},
            lambda: 3,
            lambda: next(counts),
            lambda: {"disk-missing": 2},
        )
        for overdue in (0, 2):
            found = {metric.name: metric.samples[0].value for metric in metrics.collect()}
            assert found["attachment_agent_overdue_locks"] == overdue
            assert found["attachment_agent_lost_volumes"] == 3
            assert found["attachment_agent_audit_findings"] == 2
            assert found["attachment_agent_up"] == 0


def test_how_old_the_oldest_open_one_of_each_state_is() -> None:
    clock = StoppedClock(1000.0)
    with opened(None, clock) as journal:
        rows = [("waiting", 700.0), ("waiting", 400.0), ("running", 990.0), ("accepted", 1010.0)]
        for number, (state, created_at) in enumerate(rows, start=1):
            row = record(number, state=state, created_at=created_at)
            journal.write(lambda book, row=row: book.add(row))
        metrics = Metrics(journal, clock, {}, lambda: 0, lambda: 0)
        found = {
            sample.labels["state"]: sample.value
            for metric in metrics.collect()
            for sample in metric.samples
            if sample.name == "attachment_agent_oldest_open_operation_seconds"
        }
    assert found == {"waiting": 600, "running": 10, "accepted": 0, "unsettled": 0}


def test_who_is_slow_is_told_by_steps_and_by_waits_for_locks(world: World) -> None:
    metrics = Metrics(world.journal, world.clock, {}, lambda: 0, lambda: 0)
    metrics.stepped("connect-volume", "done", 7.0)
    metrics.stepped("connect-volume", "failed", 61.0)
    metrics.waited("os-brick", 3.0)
    found = scraped(metrics)
    assert found["step_seconds_sum", "done", "connect-volume"] == 7
    assert found["step_seconds_sum", "failed", "connect-volume"] == 61
    assert found["lock_wait_seconds_count", "os-brick"] == 1
    assert found["lock_wait_seconds_sum", "os-brick"] == 3
