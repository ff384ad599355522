"""Prometheus metrics, for those who set [metrics] port: how many, how long, what is missing.

Gauges are read from the journal when somebody scrapes; counters begin anew with the process, as
Prometheus expects.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import cast, get_args

from prometheus_client import CollectorRegistry, Histogram, start_http_server
from prometheus_client import Counter as Counted
from prometheus_client.core import GaugeMetricFamily, Metric

from agent.journal.book import Book
from agent.journal.record import Record
from agent.journal.store import Journal
from agent.model.outcome import CLOSED, State
from agent.ports import Clock

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600)
"""Buckets: an attach takes tenths of a second, a guest may hold a disk for hours."""


class Metrics:
    """``parts`` tell by name whether what the agent needs answers now: libvirt, the bus."""

    def __init__(
        self,
        journal: Journal,
        clock: Clock,
        parts: dict[str, Callable[[], bool]],
        lost_volumes: Callable[[], int],
        overdue_locks: Callable[[], int],
        findings: Callable[[], Mapping[str, int]] = dict,
    ) -> None:
        self._journal = journal
        self._clock = clock
        self._parts = parts
        self._lost_volumes = lost_volumes
        self._overdue_locks = overdue_locks
        self._findings = findings
        self._registry = CollectorRegistry()
        self._closed = Counted(
            "attachment_agent_operations",
            "Operations closed by this process; code is empty where all went well.",
            ("verb", "state", "code"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "attachment_agent_operation_seconds",
            "From acceptance to the end.",
            ("verb", "state"),
            buckets=SECONDS,
            registry=self._registry,
        )
        self._step_seconds = Histogram(
            "attachment_agent_step_seconds",
            "Of each step that was applied or reverted, with what came of it.",
            ("step", "outcome"),
            buckets=SECONDS,
            registry=self._registry,
        )
        self._lock_wait_seconds = Histogram(
            "attachment_agent_lock_wait_seconds",
            "Until who asked for a host lock had it, or gave up.",
            ("kind",),
            buckets=SECONDS,
            registry=self._registry,
        )
        self._io_errors = Counted(
            "attachment_agent_io_errors",
            "Reads and writes of attached disks that failed, by what QEMU did.",
            ("action",),
            registry=self._registry,
        )
        self._registry.register(self)

    def io_errors(self, action: str, errors: int) -> None:
        """So many more."""
        self._io_errors.labels(action).inc(errors)

    def changed(self, record: Record) -> None:
        """Called after every change of an operation."""
        if not record.open:
            code = record.cause.code if record.cause else ""
            self._closed.labels(record.verb, record.state, code).inc()
            seconds = record.updated_at - record.created_at
            self._seconds.labels(record.verb, record.state).observe(seconds)

    def stepped(self, name: str, outcome: str, seconds: float) -> None:
        """Called after every step."""
        self._step_seconds.labels(name, outcome).observe(seconds)

    def waited(self, kind: str, seconds: float) -> None:
        """Called after every wait for a host lock."""
        self._lock_wait_seconds.labels(kind).observe(seconds)

    def serve(self, address: str, port: int) -> None:
        """At http://address:port/metrics, in a thread of its own.  Raises OSError."""
        start_http_server(port, address, self._registry)

    def collect(self) -> Iterator[Metric]:
        """What is read at each scrape."""
        created_at, others = self._journal.read(_counts)
        now = self._clock.now()
        states = GaugeMetricFamily(
            "attachment_agent_open_operations", "Open operations by state.", labels=["state"]
        )
        oldest = GaugeMetricFamily(
            "attachment_agent_oldest_open_operation_seconds",
            "Since the oldest open operation of a state was accepted; 0 where there is none.",
            labels=["state"],
        )
        for state in get_args(State):
            if state not in CLOSED and state != "refused":
                states.add_metric([state], len(created_at[state]))
                oldest.add_metric([state], max(0.0, now - min(created_at[state], default=now)))
        yield cast(Metric, states)
        yield cast(Metric, oldest)
        what = "Volumes that attachments count on and that are not on this host."
        others["lost_volumes"] = what, self._lost_volumes()
        what = "Host locks that somebody has had for longer than lock_timeout_seconds."
        others["overdue_locks"] = what, self._overdue_locks()
        for name, (what, count) in others.items():
            yield cast(Metric, GaugeMetricFamily(f"attachment_agent_{name}", what, value=count))
        findings = GaugeMetricFamily(
            "attachment_agent_audit_findings",
            "What did not fit when the agent looked the last time.",
            labels=["kind"],
        )
        for kind, count in self._findings().items():
            findings.add_metric([kind], count)
        yield cast(Metric, findings)
        up = GaugeMetricFamily(
            "attachment_agent_up", "1 where a part that the agent needs answers.", labels=["part"]
        )
        for part, answers in self._parts.items():
            up.add_metric([part], float(answers()))
        yield cast(Metric, up)


def _counts(book: Book) -> tuple[dict[State, list[float]], dict[str, tuple[str, int]]]:
    """When the open operations of each state were accepted; and what is counted."""
    created_at = defaultdict[State, list[float]](list)
    for record in book.open_operations():
        created_at[record.state].append(record.created_at)
    return created_at, {
        "attachments": ("Attachments in place.", len(book.attachments())),
        "quarantined_volumes": ("Volumes quarantined on this host.", len(book.quarantined())),
        "unpublished_notifications": ("Notifications not yet published.", book.count_letters()),
    }
