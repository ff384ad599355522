"""One simulated hypervisor, and the lives of the agent on it.

What survives an agent's death is here: domains, storage, the journal's file, the clock. What does
not is ``agent``. ``run`` lets everything happen that can happen now; ``pass_time`` moves the
clock to the next alarm.
"""

import atexit
import hashlib
import io
import shutil
import sqlite3
import tempfile
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, get_args

from agent.admission.admit import Policy
from agent.errors import AuthFailed, NotEncrypted, Unavailable
from agent.guest.xml import XmlElement
from agent.journal.book import Book
from agent.journal.record import Held, Record
from agent.journal.store import FILE_NAME, Journal
from agent.model.attachment import Attachment
from agent.model.outcome import CLOSED
from agent.ports import Clock, Host
from agent.saga.plan import Lane
from agent.service.agent import Agent
from agent.service.leases import LOOK_SECONDS, Leases
from agent.service.lost import LostVolumes
from agent.service.reconnect import Reconnection, Report, run
from tests.world.copies import SimulatedCopies
from tests.world.domains import SimulatedDomains, slice_bytes, source_of
from tests.world.far import Far
from tests.world.instants import Instants
from tests.world.locks import SimulatedLocks
from tests.world.road import Road, RoadMigrations
from tests.world.secrets import SimulatedSecrets
from tests.world.storage import PAYLOAD_OFFSET_BYTES, Lun, SimulatedCalls, SimulatedConnectors

Result = TypeVar("Result")

HOST = "sim"

HERE_URI = "qemu://sim/system"

BEGINNING = 1_800_000_000.0

COPY_STALL_SECONDS = 20.0
"""A few looks at a copy: each is two writes, and so many instants to die in."""

LANES: tuple[Lane, ...] = get_args(Lane)

STEPS_AT_MOST = 300
"""More tasks than any story needs: an operation that goes in circles is found here."""


class VirtualClock:
    """``seconds`` is the time on the wall, and with it the other passes as well."""

    def __init__(self) -> None:
        self.seconds = BEGINNING
        self.lost_seconds = 0.0

    def now(self) -> float:
        return self.seconds

    def monotonic(self) -> float:
        return self.seconds + self.lost_seconds

    def pass_to(self, monotonic_seconds: float) -> None:
        self.seconds += max(0.0, monotonic_seconds - self.monotonic())

    def set_back(self, seconds: float) -> None:
        self.seconds -= seconds
        self.lost_seconds += seconds


class Tasks(Executor):
    """What the workers want done, one task at a time, in their order."""

    def __init__(self) -> None:
        self._waiting: list[tuple[str, Callable[[], Any]]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        whose = args[0].operation_id if isinstance(args[0], Record) else ""
        self._waiting.append((whose, lambda: fn(*args, **kwargs)))
        return Future()

    def do_next(self, operation_id: str | None = None) -> bool:
        """Of one operation, or of any; False: there is nothing to do."""
        for number, (whose, task) in enumerate(self._waiting):
            if operation_id in (None, whose):
                del self._waiting[number]
                task()
                return True
        return False


class WatchedJournal(Journal):
    """The real journal on a real file; one may die before and after every commit.

    It asserts that what changes visibly is told in the same commit."""

    def __init__(self, directory: Path, clock: Clock, instants: Instants) -> None:
        super().__init__(directory, clock)
        self._instants = instants
        self._states = self._states_now()
        self.commits = 0
        self.failed = False

    def write(self, change: Callable[[Book], Result]) -> Result:
        try:
            self._instants.reach("before write", part="the journal")
        except Unavailable:
            self.failed = True
            raise
        result = super().write(lambda book: self._told(book, change))
        self.commits += 1
        self._instants.reach("after write")
        return result

    def _told(self, book: Book, change: Callable[[Book], Result]) -> Result:
        result = change(book)
        states = self._states_now()
        for operation_id, state in states.items():
            before = self._states.get(operation_id)
            if state != before and state in (*CLOSED, "unsettled"):
                assert _last_told(book, operation_id) == state, f"nobody was told of {state}"
        self._states = states
        return result

    def _states_now(self) -> dict[str, str]:
        """Of all operations; within the transaction where there is one."""
        question = "SELECT operation_id, json_extract(body, '$.state') FROM operations"
        return dict(self._db.execute(question).fetchall())


class World:
    """A host with a clock, and no agent yet."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(dir=_worlds()))
        self.clock = VirtualClock()
        self.instants = Instants(others_act=self._others_act)
        self.meanwhile: dict[str, Callable[[World], None]] = {}
        self.locks = SimulatedLocks()
        self.domains = SimulatedDomains(
            self.instants,
            self.locks,
            can_open=lambda source: self.storage.is_open(source),
            canonical=lambda source: self.storage.names(source),
            happened=self._happened,
            unlock=self._unlock,
            size_of=self._size_of,
        )
        self.copies = SimulatedCopies(self.instants, self.domains)
        self.secrets = SimulatedSecrets(self.instants, lambda: self.domains.is_away)
        self.road = Road()
        self.migrations = RoadMigrations(self.instants, self.domains, self.road, HERE_URI)
        self.far = Far(self.instants, self.road, self._attachment)
        self.storage = SimulatedConnectors(self.instants, self.locks, self.domains.in_use)
        self.tasks: Tasks = Tasks()
        self.policy = Policy()
        self._agent: Agent | None = None
        self._journal: WatchedJournal | None = None
        self._lost: LostVolumes | None = None
        self._leases: Leases | None = None
        self._is_stirred = True
        self._looker: sqlite3.Connection | None = None

    def close(self) -> None:
        self.die()
        shutil.rmtree(self.directory)

    # lives of the agent

    @property
    def agent(self) -> Agent:
        assert self._agent is not None, "the agent does not run"
        return self._agent

    @property
    def journal(self) -> Journal:
        assert self._journal is not None, "the agent does not run"
        return self._journal

    @property
    def host(self) -> Host:
        return Host(
            name=HOST,
            domains=self.domains,
            connectors=self.storage,
            locks=self.locks,
            clock=self.clock,
            journal=self.journal,
            secrets=self.secrets,
            peers=self.far,
            copies=self.copies,
            copy_stall_seconds=COPY_STALL_SECONDS,
            migrations=self.migrations,
        )

    def start(self, pools: Mapping[Lane, Executor] | None = None) -> None:
        """A new life of the agent: it opens the journal and takes up what is open. ``run`` does
        its tasks, unless they go to ``pools``."""
        assert self._agent is None, "the agent runs already"
        self._journal = WatchedJournal(self.directory, self.clock, self.instants)
        host = self.host
        self.tasks = Tasks()
        self._leases = Leases(host, self._journal, self._cancel_migration)
        pools = pools or dict.fromkeys(LANES, self.tasks)
        self._agent = Agent(host, self._journal, self.policy, pools)
        self._agent.workers.start()
        self._lost = LostVolumes(host, self._journal, pools)
        self._lost.look()

    def die(self) -> None:
        """What it had in memory is gone, and with it the events that nobody hears."""
        self._agent = self._lost = self._leases = None
        self.migrations.forget()
        self.tasks = Tasks()
        if self._journal is not None:
            self._journal.close()
            self._journal = None
        if self._looker is not None:
            self._looker.close()
            self._looker = None

    def lose_power(self) -> None:
        """Agent, sessions, devices and running guests are gone."""
        self.die()
        self.domains.lose_power()
        self.storage.lose_power()
        self.secrets.vanish()
        self.road.trips.clear()

    def boot(self) -> None:
        """As systemd does it, up to the guests that start by themselves; the agent is not yet."""
        try:
            self.reconnect()
        finally:
            self.domains.autostart()

    def reconnect(self) -> str:
        """What attachment-agent-reconnect does and says; it may die like the agent."""
        report = Report(io.StringIO(), is_journal=False)
        self._journal = WatchedJournal(self.directory, self.clock, self.instants)
        calls = SimulatedCalls(self.locks, self.storage)
        reconnection = Reconnection(calls, self.clock.now, volume_seconds=60, total_seconds=300)
        run(self._journal, self.storage, reconnection, report)
        self.die()
        return report.out.getvalue()

    @property
    def is_alive(self) -> bool:
        return self._agent is not None

    @property
    def journal_failed(self) -> bool:
        """Something could not be written in this life: then the rows are older than the truth."""
        return self._journal is not None and self._journal.failed

    # time

    def run(self) -> None:
        """Until nothing can happen without time passing or somebody doing something."""
        for _ in range(STEPS_AT_MOST):
            if self._is_stirred:
                self.look_at_leases()
            others_act = self.domains.let_guests_act
            if not (self.tasks.do_next() or others_act() or self.road.act() or self.copies.act()):
                return
        raise AssertionError("the operations go in circles")

    def next_alarm(self) -> float | None:
        """Of an operation, of a volume that is not here and is tried again, or a lease's end: by
        the clock that only passes."""
        assert self._lost is not None, "the agent does not run"
        alarms = (self.agent.workers.next_alarm(), self._lost.next_try(), self._next_lease())
        return min((alarm for alarm in alarms if alarm is not None), default=None)

    def pass_time(self) -> bool:
        """To the next alarm; False: there is none."""
        alarm = self.next_alarm()
        if alarm is None:
            return False
        assert self._lost is not None
        self.clock.pass_to(alarm)
        self.agent.workers.ring()
        if self._lost.count():
            self._lost.look()
        self.look_at_leases()
        self.run()
        return True

    def look_at_leases(self) -> float | None:
        """As the thread does that does it again and again."""
        assert self._leases is not None
        self._is_stirred = False
        with suppress(Unavailable):
            return self._leases.look()
        return None

    def _next_lease(self) -> float | None:
        """Of those that ended and are waited for, or of which something is to be heard."""
        leases = [row.lease for row in self.leased() if row.lease is not None]
        ends = [
            0.0 if lease.migration_id in self.far.given_up else lease.expires_at for lease in leases
        ]
        if not ends:
            return None
        return self.clock.monotonic() + max(min(ends) - self.clock.now(), LOOK_SECONDS)

    def _attachment(self, attachment_id: str) -> Attachment | None:
        held = self.journal.read(lambda book: book.attachment(attachment_id))
        return None if held is None else held.attachment

    def leased(self) -> list[Held]:
        return self.journal.read(lambda book: book.leased())

    def _cancel_migration(self, request: dict[str, Any]) -> dict[str, Any]:
        return self.agent.command("cancel_migration", {"request": request}, addressed=True)

    @property
    def lost_volumes(self) -> int:
        """That are not here, though somebody counts on them, when the agent looked last."""
        return 0 if self._lost is None else self._lost.count()

    def _others_act(self, name: str) -> None:
        act = self.meanwhile.pop(name, None)
        if act is not None:
            act(self)

    def _happened(self, instance_id: str) -> None:
        """An event: it may come while a step runs, and nobody hears it between two lives."""
        if self._agent is not None:
            self._agent.workers.stir(instance_id)
            self._is_stirred = True

    def _unlock(self, disk: XmlElement) -> None:
        """As QEMU opens it, with what libvirt tells."""
        for kind in ("auth", "encryption"):
            secret = disk.find(f"source/{kind}/secret")
            if secret is None:
                continue
            lun = self.storage.lun_of(source_of(disk) or "")
            wanted = lun.credentials if kind == "auth" else lun.passphrase
            uuid = secret.get("uuid", "")
            if uuid in self.secrets.operators:
                continue
            value = self.secrets.values.get(uuid)
            if value is None:
                raise Unavailable("libvirt", "a secret of the volume has gone")
            if wanted is None and kind == "encryption":
                raise NotEncrypted("simulated: not in LUKS format")
            if wanted != value:
                raise AuthFailed(f"simulated: the secret of {kind} is another")

    def _size_of(self, disk: XmlElement) -> int:
        """What QEMU finds now, behind the header of an encrypted one."""
        is_encrypted = disk.find("source/encryption") is not None
        there = slice_bytes(disk) or self.storage.size_of(source_of(disk) or "")
        return there - (PAYLOAD_OFFSET_BYTES if is_encrypted else 0)

    # what there is

    def grant_everything(self) -> None:
        """Every part works, every guest lets go: nothing is left to wait for."""
        self.domains.is_away = False
        self.domains.plug_error = self.domains.define_error = None
        self.storage.connect_error = self.storage.disconnect_error = None
        self.storage.lags = False
        self.copies.pace, self.copies.breaks, self.copies.loses_track = "goes", False, ""
        self.meanwhile.clear()
        self.road.pace, self.road.is_cut, self.far.is_silent = "goes", False, False
        self.far.domains.is_away = False
        for guest in list(self.domains.guests.values()):
            if guest.astray:
                self.domains.destroy(guest.instance_id)
            guest.attitude = "cooperative"
            if guest.instance_id not in self.road.trips:
                guest.job, guest.is_paused = None, guest.is_held

    def records(self) -> list[Record]:
        return self.journal.read(lambda book: book.operations())

    def record(self, operation_id: str) -> Record:
        found = self.journal.read(lambda book: book.operation(operation_id))
        assert found is not None
        return found

    def letters(self) -> list[dict[str, Any]]:
        rows = self.journal.read(lambda book: book.letters(10_000))
        return [{"event_type": event_type, **body} for _, event_type, body in rows]

    # what survives the agent

    def image(self) -> "Image":
        """What would be there if the agent were killed now."""
        return Image(
            journal=zlib.compress(self._look().serialize(), level=1),
            seconds=self.clock.seconds,
            meanwhile=dict(self.meanwhile),
            policy=self.policy,
            domains=self.domains.image(),
            storage=self.storage.image(),
            secrets=self.secrets.image(),
            road=self.road.image(),
            far=self.far.image(),
            copies=self.copies.image(),
        )

    @classmethod
    def of(cls, image: "Image") -> "World":
        world = cls()
        (world.directory / FILE_NAME).write_bytes(zlib.decompress(image.journal))
        world.clock.seconds = image.seconds
        world.meanwhile = dict(image.meanwhile)
        world.policy = image.policy
        world.domains.restore(image.domains)
        world.storage.restore(image.storage)
        world.secrets.restore(image.secrets)
        world.road.restore(image.road)
        world.far.restore(image.far)
        world.copies.restore(image.copies)
        return world

    def fingerprint(self) -> str:
        """Equal where what would survive the agent is equal: then its next life is, too."""
        return hashlib.sha256("\n".join([self.outline(), *self._rows()]).encode()).hexdigest()

    def _rows(self) -> list[str]:
        db = self._look()
        tables = db.execute("SELECT name FROM sqlite_master WHERE type='table' ORDER BY name")
        return [repr(db.execute(f"SELECT * FROM {name}").fetchall()) for (name,) in tables]

    def _look(self) -> sqlite3.Connection:
        """At the journal's file with its log, as it would be read after a kill."""
        if self._looker is None:
            self._looker = sqlite3.connect(self.directory / FILE_NAME, check_same_thread=False)
        return self._looker

    def changes(self) -> str:
        """Equal while nothing changes that would survive; cheap. Within one life."""
        commits = self._journal.commits if self._journal is not None else 0
        return f"{commits} {self.outline()}"

    def outline(self) -> str:
        """All but the journal's rows; cheap."""
        return repr(
            (
                self.clock.seconds,
                sorted(self.meanwhile),
                self.domains.outline(),
                self.storage.outline(),
                self.secrets.outline(),
                self.road.outline(),
                self.far.outline(),
                self.copies.image(),
            )
        )


def _last_told(book: Book, operation_id: str) -> str | None:
    letters = [body for _, _, body in book.letters(10_000)]
    mine = [str(body["state"]) for body in letters if body["operation_id"] == operation_id]
    return mine[-1] if mine else None


@dataclass(frozen=True)
class Image:
    """A world without an agent, as data: a sweep keeps hundreds."""

    journal: bytes
    seconds: float
    meanwhile: dict[str, Callable[[World], None]]
    policy: Policy
    domains: Mapping[str, Any]
    storage: Mapping[str, Any]
    secrets: Mapping[str, Any]
    road: Mapping[str, Any]
    far: Mapping[str, Any]
    copies: Mapping[str, Any]


@cache
def _worlds() -> Path:
    """In memory where there is such a place: a sweep opens thousands of journals."""
    memory = Path("/dev/shm")
    worlds = tempfile.mkdtemp(prefix="worlds-", dir=memory if memory.is_dir() else None)
    atexit.register(shutil.rmtree, worlds, ignore_errors=True)
    return Path(worlds)


__all__ = ["BEGINNING", "HOST", "Lun", "World"]
