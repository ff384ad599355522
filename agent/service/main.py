"""attachment-agent: one process, threads, a plain main.

The only place that knows every part. What is healthy or not never decides whether it starts:
requests are in the journal, and wait for whatever is missing.
"""

import faulthandler
import logging
import os
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from oslo_config import cfg

from agent import conf as options
from agent.admission.admit import Policy
from agent.bus.peers import BusPeers
from agent.bus.publisher import Publisher
from agent.bus.servers import Servers
from agent.conf import Settings
from agent.errors import AgentError, Unavailable
from agent.host.key_files import KeyFiles
from agent.host.libvirt_connection import LibvirtConnection
from agent.host.libvirt_copies import LibvirtCopies
from agent.host.libvirt_domains import LibvirtDomains
from agent.host.libvirt_events import LibvirtEvents
from agent.host.libvirt_migrations import LibvirtMigrations
from agent.host.libvirt_secrets import LibvirtSecrets
from agent.journal.record import Record
from agent.journal.store import Journal
from agent.journal.upkeep import UPKEEP_SECONDS, Upkeep
from agent.model.io_error import IoError
from agent.ports import Host
from agent.service.agent import Agent
from agent.service.begin import (
    EXIT_CONFIGURATION,
    EXIT_JOURNAL,
    PROJECT,
    SystemClock,
    configured,
    give_up,
    host_connectors,
    host_locks,
    opened,
    refuse_another_name,
    refuse_unknown_verbs,
)
from agent.service.findings import AUDIT_SECONDS, Findings
from agent.service.io_errors import TELL_AGAIN_SECONDS, IoErrors
from agent.service.lanes import lane_pools
from agent.service.leases import LOOK_SECONDS, Leases
from agent.service.lost import LOST_SECONDS, LostVolumes, lost_pools
from agent.service.lost_secrets import turns_of_secrets
from agent.service.metrics import Metrics
from agent.service.outbox import Letters
from agent.service.queries import held_locks
from agent.service.signals import Signals
from agent.service.stacks import thread_stacks
from agent.service.systemd import ServiceManager
from agent.service.turns import Turns
from agent.service.watch import WATCH_SECONDS, Watch
from agent.service.workers import TICK_SECONDS, on_whose_behalf
from agent.steps.users import is_used_below

LOG = logging.getLogger(__name__)

STOP = frozenset((signal.SIGTERM, signal.SIGINT))

JOURNAL_SLOW_SECONDS = 5.0
"""From then on whoever waits for the journal is excused: the disk is slow, our thread is not."""

ALARM_MISSED_SECONDS = 6 * TICK_SECONDS
"""The alarm thread turns every TICK_SECONDS: after six of them it hangs."""

LAST_SECONDS = 1.0
"""Has each part of a stop for which no time is left: most have nothing to do."""


class Daemon:
    """Everything made, started and stopped in its order."""

    def __init__(self, conf: Any, settings: Settings, journal: Journal, clock: SystemClock) -> None:
        self._conf = conf
        self._settings = settings
        self._journal = journal
        self._clock = clock
        self._manager = ServiceManager()
        self._libvirt = LibvirtConnection(
            settings.libvirt_uri, call_timeout_seconds=settings.libvirt_call_timeout_seconds
        )
        self._letters = Letters(journal)
        self._migrations = LibvirtMigrations(self._libvirt, self._stir)
        host = self._host()
        self._agent = Agent(
            host,
            journal,
            _policy(settings),
            lane_pools(),
            on_change=self._on_change,
            warnings=self._warnings,
            on_step=self._on_step,
        )
        lost = LostVolumes(host, journal, lost_pools())
        self._leases = Leases(host, journal, self._cancel_migration)
        self._lease_turns = Turns(
            "leases",
            self._leases.look,
            LOOK_SECONDS,
            trouble="leases of migrations could not be looked at",
        )
        self._secret_turns = turns_of_secrets(host, journal)
        self._events = LibvirtEvents(
            self._libvirt,
            self._stir,
            self._on_connected,
            self._on_io_error,
            self._migrations.job_completed,
        )
        self._servers = Servers(conf, self._agent, settings.host)
        self._publisher = Publisher(conf, self._letters, settings.host)
        self._findings = Findings(host, journal)
        self._metrics = self._metrics_of(host, lost)
        self._io_errors = IoErrors(host, journal, self._metrics.io_errors)
        self._io_error_turns = Turns(
            "I/O errors",
            self._tell_io_errors,
            TELL_AGAIN_SECONDS,
            trouble="I/O errors of guests are not told yet",
        )
        self._turns = (
            *self._beside(host, lost),
            self._lease_turns,
            self._io_error_turns,
            self._secret_turns,
        )

    def _metrics_of(self, host: Host, lost: LostVolumes) -> Metrics:
        return Metrics(
            self._journal,
            self._clock,
            {"libvirt": self._libvirt.alive, "bus": self._servers.connected},
            lost_volumes=lost.count,
            overdue_locks=lambda: sum(lock["overdue"] for lock in held_locks(host)),
            findings=self._findings.counts,
        )

    def _beside(self, host: Host, lost: LostVolumes) -> tuple[Turns, ...]:
        journal = self._journal
        upkeep = Upkeep(journal, self._clock, self._settings.retention_seconds)
        watch = Watch(host, journal)
        return (
            Turns(
                "lost volumes",
                lost.look,
                LOST_SECONDS,
                trouble="nobody knows which volumes are here",
            ),
            Turns(
                "watch",
                watch.look_at_paths,
                WATCH_SECONDS,
                first_seconds=WATCH_SECONDS,
                trouble="not all paths could be looked at",
            ),
            Turns(
                "unneeded",
                watch.leave_unneeded,
                WATCH_SECONDS,
                first_seconds=WATCH_SECONDS,
                trouble="not everything that nobody needs could be left",
            ),
            Turns(
                "journal upkeep",
                upkeep.turn,
                UPKEEP_SECONDS,
                trouble="the journal was not tidied up",
            ),
            Turns(
                "audit",
                self._findings.look,
                AUDIT_SECONDS,
                first_seconds=AUDIT_SECONDS,
                trouble="journal, libvirt and host were not compared",
            ),
        )

    def _cancel_migration(self, request: dict[str, Any]) -> dict[str, Any]:
        return self._agent.command("cancel_migration", {"request": request}, addressed=True)

    def _on_change(self, record: Record) -> None:
        self._letters.written()
        self._metrics.changed(record)
        if self._leases.changed(record):
            self._lease_turns.hurry()

    def _on_step(self, name: str, outcome: str, seconds: float) -> None:
        self._metrics.stepped(name, outcome, seconds)

    def _on_wait(self, kind: str, seconds: float) -> None:
        self._metrics.waited(kind, seconds)

    def _stir(self, instance_id: str) -> None:
        self._agent.workers.stir(instance_id)
        if self._leases.is_awaited(instance_id):
            self._lease_turns.hurry()

    def _on_connected(self) -> None:
        self._agent.workers.stir_all()
        self._lease_turns.hurry()
        self._secret_turns.hurry()
        self._io_errors.connected()
        self._io_error_turns.hurry()

    def _on_io_error(self, error: IoError) -> None:
        if self._io_errors.heard(error):
            self._io_error_turns.hurry()

    def _tell_io_errors(self) -> None:
        self._io_errors.look()
        self._letters.written()

    def _host(self) -> Host:
        settings = self._settings
        domains = LibvirtDomains(self._libvirt)

        def mount_needed(directory: str) -> bool:
            return is_used_below(directory, domains, self._journal)

        return Host(
            name=settings.host,
            domains=domains,
            connectors=host_connectors(settings, on_whose_behalf, mount_needed, self._on_wait),
            locks=host_locks(settings, on_whose_behalf, self._on_wait),
            clock=self._clock,
            journal=self._journal,
            secrets=LibvirtSecrets(self._libvirt, KeyFiles(settings.secret_directories)),
            peers=BusPeers(self._conf),
            copies=LibvirtCopies(self._libvirt),
            migrations=self._migrations,
            unplug_retry_seconds=settings.unplug_retry_seconds,
            libvirt_retry_seconds=settings.libvirt_retry_seconds,
            copy_stall_seconds=settings.copy_stall_seconds,
        )

    def start(self) -> None:
        """Ready once recovery is scheduled, whatever libvirt, bus and storage are like."""
        self._events.start()
        self._agent.workers.start()
        self._agent.workers.start_alarm()
        for turns in self._turns:
            turns.start()
        self._publisher.start()
        self._servers.start()
        self._serve_metrics()
        self._tell()
        self._manager.ready()

    def run(self, signals: Signals) -> None:
        """Until told to stop: says how things are, proves that our threads turn.

        Nothing here waits for a disk."""
        watchdog = self._manager.watchdog_seconds
        pause = TICK_SECONDS if watchdog is None else min(TICK_SECONDS, watchdog / 3)
        while not STOP & (came := signals.wait(pause)):
            if signal.SIGHUP in came:
                reload(self._conf)
            if signal.SIGUSR1 in came:
                print(thread_stacks(), file=sys.stderr, flush=True)
            self._tell()
            stuck = self._stuck()
            if not stuck:
                self._manager.alive()
            else:
                LOG.error("these threads do not turn: %s", ", ".join(stuck))

    def stop(self) -> None:
        """No further step, command or letter begins; what runs may end, all of it within
        ``stop_seconds``, and LAST_SECONDS for each part that comes later."""
        end = self._clock.monotonic() + self._settings.stop_seconds

        def left_seconds() -> float:
            return max(LAST_SECONDS, end - self._clock.monotonic())

        self._manager.stopping()
        self._agent.quiesce()
        for turns in self._turns:
            turns.stop()
        self._servers.stop(left_seconds())
        if not self._agent.workers.stop(left_seconds()):
            LOG.warning(
                "steps still run after %g s: the next start looks at what they did",
                self._settings.stop_seconds,
            )
        self._publisher.stop(left_seconds())
        self._events.close()
        self._libvirt.close()
        if not self._journal.close(left_seconds()):
            LOG.warning("the disk of the journal does not answer: the next start reads what it has")

    def _serve_metrics(self) -> None:
        address, port = self._settings.metrics_address, self._settings.metrics_port
        if port is None:
            return
        try:
            self._metrics.serve(address, port)
        except OSError as error:  # numbers are worth less than attachments
            LOG.error("no metrics at %s:%s: %s", address, port, error)

    def _tell(self) -> None:
        parts = [self._libvirt.describe(), self._servers.describe(), *self._publisher.warnings()]
        if self._is_journal_slow():
            parts.append("the disk of the journal does not answer")
        self._manager.status("; ".join(parts))

    def _warnings(self) -> list[str]:
        return [
            *self._servers.warnings(),
            *self._publisher.warnings(),
            *options.warnings(self._settings),
        ]

    def _is_journal_slow(self) -> bool:
        return self._journal.silent_seconds() > JOURNAL_SLOW_SECONDS

    def _stuck(self) -> list[str]:
        """Our own threads only: a libvirt, broker, storage or disk that is away is no reason."""
        is_excused = self._is_journal_slow()
        alarm_age = self._clock.monotonic() - self._agent.workers.ticked_at()
        parts = {
            "libvirt connection": self._libvirt.turning(),
            "libvirt events": self._events.turning(),
            "alarm": is_excused or alarm_age < ALARM_MISSED_SECONDS,
            "bus servers": self._servers.turning(),
            "publisher": is_excused or self._publisher.turning(),
            **{turns.name: turns.turning() for turns in self._turns},
        }
        return [name for name, turns in parts.items() if not turns]


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``attachment-agent``; does not return."""
    settings = configured(cfg.CONF, PROJECT, sys.argv[1:] if argv is None else argv)
    faulthandler.enable()
    journal, clock = opened(settings, PROJECT)
    LOG.info(
        "%s %s begins for host %s", PROJECT, version("libvirt-attachment-agent"), settings.host
    )
    for warning in options.warnings(settings):
        LOG.warning("%s", warning)
    signals = Signals(*STOP, signal.SIGHUP, signal.SIGUSR1)
    try:
        refuse_unknown_verbs(journal)
        refuse_another_name(journal, settings.host)
        daemon = Daemon(cfg.CONF, settings, journal, clock)
    except Unavailable as error:  # the journal was opened, and cannot be read
        give_up(PROJECT, EXIT_JOURNAL, error.detail)
    except AgentError as error:
        give_up(PROJECT, EXIT_CONFIGURATION, error.detail)
    except (OSError, ValueError) as error:
        give_up(PROJECT, EXIT_JOURNAL, f"{settings.state_path} cannot be used: {error}")
    except RuntimeError as error:  # what threading says
        give_up(PROJECT, EXIT_JOURNAL, f"this host has no threads to spare: {error}")
    daemon.start()
    daemon.run(signals)
    LOG.info("stopping")
    daemon.stop()
    LOG.info("stopped")
    logging.shutdown()
    # A thread that hangs in a storage tool must not keep us: it is a crash that we saw coming.
    os._exit(0)


def _policy(settings: Settings) -> Policy:
    return Policy(
        max_open_operations=settings.max_open_operations,
        retention_seconds=settings.retention_seconds,
        allow_multiattach=settings.multiattach,
        allow_bootable_multiattach=settings.bootable_multiattach,
    )


def reload(conf: Any) -> None:
    """What oslo.log can change while it runs: the level of detail. A file that is wrong by now
    changes nothing: it matters when the agent starts again."""
    try:
        conf.mutate_config_files()
    except cfg.Error as error:
        LOG.error("nothing was reloaded, the configuration is wrong: %s", error)
    except SystemExit:  # so oslo.config refuses a value, after it has said which
        LOG.error("nothing was reloaded, the configuration is wrong: see standard error")
