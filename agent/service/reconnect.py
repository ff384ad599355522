"""attachment-agent-reconnect: after a power loss, the volumes of guests are back before they start.

Run once at boot, before libvirt and before the agent, whose claim on the journal it has meanwhile
(etc/systemd/attachment-agent-reconnect.service, docs/operate.rst). It needs neither libvirt nor a
broker, and it ends: a volume has its time, and so has the whole of it. What does not come back is
named and left to the agent, which tries on.

It may be killed at any instant: what is connected by then is found to be there the next time.
"""

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn, Protocol, TextIO

from oslo_config import cfg

from agent.errors import AgentError, ConnectFailed, WrongDevice
from agent.journal.store import Journal
from agent.model.attachment import Attachment
from agent.model.connection import Lane
from agent.model.device import Device
from agent.model.outcome import Problem
from agent.ports import Connectors
from agent.service import killable
from agent.service.begin import EXIT_JOURNAL, configured, give_up, host_connectors, opened
from agent.service.killable import Answer, KillableCalls
from agent.steps.reconnect import Lost, counted_on, left_alone, lost_of, prove_back

PROGRAM = "attachment-agent-reconnect"

ROOM: dict[Lane, int] = {"scsi": 1, "nvme": 2}
"""Storage calls at once, 4 in every other lane. os-brick takes one SCSI volume at a time, and who
waited for it would spend the time that he has himself; as would who waited for a target's lock."""

EXIT_NOT_ALL = 1
"""Some volumes are not back."""


class Calls(Protocol):
    """Storage calls that can be ended from outside; see killable.KillableCalls."""

    def begin(self, attachment: Attachment, timeout_seconds: float) -> None: ...

    def ended(self, timeout_seconds: float) -> Mapping[str, Answer]: ...

    def kill(self) -> bool: ...


@dataclass
class Reconnection:
    """Each volume is tried once, for ``volume_seconds`` at most; all of them for ``total_seconds``.

    Lanes go side by side. In a lane what shares a target with a volume that failed comes last, so
    one sick array does not use up the time of another. ``now`` counts seconds."""

    calls: Calls
    now: Callable[[], float]
    volume_seconds: float
    total_seconds: float
    _waiting: list[Lost] = field(default_factory=list)
    _running: dict[str, tuple[Lost, float]] = field(default_factory=dict)
    _sick: set[str] = field(default_factory=set)

    def run(self, lost: Iterable[Lost]) -> Iterator[tuple[Lost, Answer]]:
        """As they end; none is left out."""
        end = self.now() + self.total_seconds
        self._waiting = list(lost)
        while self._waiting or self._running:
            if self.now() >= end:
                yield from self._give_up()
                return
            self._begin(end)
            first = min(since for _, since in self._running.values()) + self.volume_seconds
            answers = self.calls.ended(max(0.0, min(first, end) - self.now()))
            for volume_id, answer in answers.items():
                yield self._end(volume_id, answer)
            yield from self._end_overdue()
        self.calls.kill()

    def _begin(self, end: float) -> None:
        """Whatever its lane has room for, and nobody else its target; the healthy first."""
        for lost in sorted(self._waiting, key=self._is_sick):
            lane = lost.attachment.connection.lane
            if self._in(lane) < ROOM.get(lane, 4) and not self._is_taken(lost):
                self._waiting.remove(lost)
                self.calls.begin(lost.attachment, max(0.0, end - self.now()))
                self._running[lost.volume_id] = lost, self.now()

    def _in(self, lane: Lane) -> int:
        return sum(lost.attachment.connection.lane == lane for lost, _ in self._running.values())

    def _is_taken(self, lost: Lost) -> bool:
        wanted = set(lost.attachment.connection.targets)
        return any(
            not wanted.isdisjoint(other.attachment.connection.targets)
            for other, _ in self._running.values()
        )

    def _is_sick(self, lost: Lost) -> bool:
        return not self._sick.isdisjoint(lost.attachment.connection.targets)

    def _end(self, volume_id: str, answer: Answer) -> tuple[Lost, Answer]:
        lost, _ = self._running.pop(volume_id)
        if isinstance(answer, Problem):
            self._sick.update(lost.attachment.connection.targets)
        return lost, answer

    def _end_overdue(self) -> Iterator[tuple[Lost, Answer]]:
        """Their process is killed, and what else it was doing begins anew."""
        overdue = [
            volume_id
            for volume_id, (_, since) in self._running.items()
            if self.now() >= since + self.volume_seconds
        ]
        if not overdue:
            return
        stays = "" if self.calls.kill() else "; it hangs in the kernel, and keeps its locks"
        why = f"no answer within {self.volume_seconds:g} s ([reconnect] volume_seconds){stays}"
        for volume_id in overdue:
            yield self._end(volume_id, Problem.of(ConnectFailed(why)))
        self._waiting[:0] = [lost for lost, _ in self._running.values()]
        self._running.clear()

    def _give_up(self) -> Iterator[tuple[Lost, Answer]]:
        self.calls.kill()
        why = (
            f"the time for all volumes is over ([reconnect] total_seconds, {self.total_seconds:g})"
        )
        for lost in [*(lost for lost, _ in self._running.values()), *self._waiting]:
            yield lost, Problem.of(ConnectFailed(why))


@dataclass(frozen=True)
class Outcome:
    """What became of one volume: ``device`` where one was connected, ``problem`` where its guests
    cannot start with it."""

    lost: Lost
    device: Device | None
    problem: Problem | None


def reconnect(
    journal: Journal, connectors: Connectors, reconnection: Reconnection, lost: Sequence[Lost]
) -> Iterator[Outcome]:
    """Each volume as it ends; what is there is proven before anybody may use it."""
    for each, answer in reconnection.run(lost):
        if isinstance(answer, Problem):
            yield Outcome(each, None, answer)
            continue
        try:
            prove_back(journal, connectors, each, answer)
        except AgentError as error:
            yield Outcome(each, answer, Problem.of(error))
        else:
            yield Outcome(each, answer, None)


@dataclass(frozen=True)
class Report:
    """Lines for who reads ``journalctl -u attachment-agent-reconnect`` at night.

    ``is_journal``: systemd takes them, and is told how bad a line is (sd-daemon(3))."""

    out: TextIO
    is_journal: bool

    def begin(self, count: int, lost: Sequence[Lost], quarantined: Mapping[str, str]) -> None:
        for volume_id, reason in quarantined.items():
            self.warn(f"volume {volume_id} is quarantined and is left alone: {reason}")
        if lost:
            self.say(
                f"{len(lost)} of {count} volumes that attachments count on are not on this host: "
                "connecting them"
            )
        elif count:
            self.say(f"nothing to do: all {count} volumes that attachments count on are here")
        else:
            self.say("nothing to do: no attachment counts on a volume")

    def volume(self, outcome: Outcome) -> None:
        lost, device, problem = outcome.lost, outcome.device, outcome.problem
        if problem is not None:
            what = "WRONG DEVICE" if problem.code == WrongDevice.code else "NOT BACK"
            self.warn(f"{what}: volume {lost.volume_id} ({lost.who}): {_sentence(problem)}")
            return
        assert device is not None, "it has either"
        back = f"back: volume {lost.volume_id} ({lost.who}) as {device.path}"
        if device.degraded:
            self.warn(f"{back}, {device.degraded}: look at the storage network")
        else:
            self.say(back)

    def end(self, outcomes: Sequence[Outcome]) -> None:
        missing = sum(outcome.problem is not None for outcome in outcomes)
        if missing:
            self.warn(
                f"{missing} of {len(outcomes)} volumes are not back; guests that need them cannot "
                "start. Mend what the lines above say; the agent tries on until they are "
                "('attachctl audit'), then start the guests"
            )
        elif outcomes:
            self.say("all of them are back")

    def say(self, line: str) -> None:
        self._print("<6>", line)

    def warn(self, line: str) -> None:
        self._print("<3>", line)

    def _print(self, priority: str, line: str) -> None:
        print(f"{priority if self.is_journal else ''}{line}", file=self.out, flush=True)


def _sentence(problem: Problem) -> str:
    return f"{problem.code}: {problem.detail}"


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Entry point of ``attachment-agent-reconnect``."""
    argv = sys.argv[1:] if argv is None else argv
    settings = configured(cfg.CONF, PROGRAM, argv)
    journal, _ = opened(settings, PROGRAM)
    connectors = host_connectors(settings, lambda: PROGRAM)
    reconnection = Reconnection(
        KillableCalls([sys.executable, "-P", "-m", killable.__name__, *argv]),
        time.monotonic,
        settings.reconnect_volume_seconds,
        settings.reconnect_total_seconds,
    )
    report = Report(sys.stdout, is_journal="JOURNAL_STREAM" in os.environ)
    try:
        outcomes = run(journal, connectors, reconnection, report)
    except AgentError as error:
        give_up(PROGRAM, EXIT_JOURNAL, error.detail)
    journal.close()
    sys.exit(EXIT_NOT_ALL if any(outcome.problem for outcome in outcomes) else 0)


def run(
    journal: Journal, connectors: Connectors, reconnection: Reconnection, report: Report
) -> list[Outcome]:
    """Raises Unavailable if the journal cannot be read."""
    counted, quarantined = journal.read(lambda book: (counted_on(book), left_alone(book)))
    lost = lost_of(connectors, counted)
    report.begin(len({each.attachment.volume_id for each in counted}), lost, quarantined)
    outcomes = []
    for outcome in reconnect(journal, connectors, reconnection, lost):
        report.volume(outcome)
        outcomes.append(outcome)
    report.end(outcomes)
    return outcomes
