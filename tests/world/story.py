"""Stories: what is asked of an agent and what happens meanwhile, and how every telling must end.

A story is told again with the agent dying, or being told of a failure, at another instant each
time. Whatever happens, the same things are true afterwards: ``Telling.finish`` checks them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

from agent.guest.domain_xml import parse_domain
from agent.journal.record import Part, Record
from agent.model.mark import USER_ALIAS
from agent.model.moment import rfc3339
from agent.model.outcome import CLOSED
from tests.world.far import FAR_HOST, FAR_URI
from tests.world.instants import Crash
from tests.world.storage import Lun
from tests.world.world import BEGINNING, Image, World

PATIENCE = 60
"""Alarms until everything is at rest in a host that grants everything."""

INSTANCES = [f"00000000-0000-4000-8000-00000000000{number}" for number in range(1, 10)]
VOLUMES = [f"aaaaaaaa-0000-4000-8000-00000000000{number}" for number in range(1, 10)]
EARLIER = 900
"""Requests from this number on belong to what a story begins with."""

LOCKED_OUT = "the running guest does not have the disk"
"""The warning of an attach whose passphrase is lost when the guest was started anew."""

TARGET = "iqn.2026-01.sim:shared"


@dataclass(frozen=True)
class Ask:
    """A command, sent until it is taken: the same request after every death and passing refusal.

    ``refused`` is the code of a refusal that is meant."""

    verb: str
    request: Mapping[str, Any]
    refused: str | None = None

    def __call__(self, world: World) -> None:
        answer = self.send(world)
        for pause_seconds in (0, 10, 10):
            if answer["state"] == "refused" and answer["error"]["code"] != self.refused:
                assert answer["error"]["retriable"], answer["error"]
                let_pass(pause_seconds)(world)
                answer = self.send(world)
        if answer["state"] == "refused":
            assert answer["error"]["code"] == self.refused, answer["error"]
        else:
            assert self.refused is None, f"{self.refused} was expected, it was accepted"

    def is_accepted(self, world: World) -> bool:
        operation_id = str(self.request["request_id"])
        return world.journal.read(lambda book: book.operation(operation_id)) is not None

    def send(self, world: World) -> dict[str, Any]:
        return world.agent.command(self.verb, {"request": dict(self.request)}, addressed=True)


Act = Callable[[World], None]


@dataclass(frozen=True)
class Together:
    """Commands that are all accepted before any of them is run.

    Unless the agent dies between: then a later one may find an earlier one parked. It is refused
    as ``busy``, and sent again when everything else was told."""

    asks: tuple[Ask, ...]

    def __call__(self, world: World) -> None:
        for ask in self.asks:
            answer = ask.send(world)
            if answer["state"] == "refused" and answer["error"]["code"] == "internal":
                answer = ask.send(world)
            assert answer["state"] != "refused" or answer["error"]["code"] == "busy", answer


AS_TOLD: frozenset[str] = frozenset()


@dataclass(frozen=True, eq=False)
class Story:
    """``ends`` are the states in which each operation may end, in the order of ``acts``; with
    more than one the story races with a clock or a caller. ``also`` is what else must be true.
    ``is_timed``: how it ends depends on when things happen, so a failure may change it."""

    name: str
    begin: Act
    acts: tuple[Act, ...]
    ends: tuple[frozenset[str], ...]
    also: Act = lambda world: None
    is_timed: bool = False

    @property
    def asks(self) -> tuple[Ask, ...]:
        found: list[Ask] = []
        for act in self.acts:
            found += [act] if isinstance(act, Ask) else getattr(act, "asks", ())
        return tuple(found)

    def __str__(self) -> str:
        return self.name


@dataclass
class Telling:
    """One telling of a story, over as many lives of the agent as it takes.

    ``deaths`` are the instants, by number and name, at which the agent died so far; ``strays`` the
    aliases of which guest and books said different things before anything was told."""

    story: Story
    world: World
    strays: frozenset[str] = frozenset()
    deaths: tuple[str, ...] = ()
    told: int = 0
    is_granted: bool = False
    has_lost_power: bool = False
    is_booting: bool = False

    @classmethod
    def begin(cls, story: Story) -> "Telling":
        image, strays = _begun(story.begin)
        return cls(story, World.of(image), strays)

    def fork(self) -> "Fork":
        """As it would go on if the agent were killed now."""
        passed = self.world.instants.passed
        death = f"{len(passed)} (after '{passed[-1] if passed else ''}')"
        deaths = (*self.deaths, death)
        image = self.world.image()
        return Fork(
            self.story,
            image,
            self.strays,
            deaths,
            self.told,
            self.is_granted,
            self.has_lost_power,
            self.is_booting,
        )

    def lose_power(self) -> None:
        """The next life begins with the host's boot. Of the story only what was not yet asked is
        told: nobody knows what else would still happen to a guest that was shut off."""
        self.world.lose_power()
        self.deaths = (*self.deaths, "power loss")
        self.told = len(self.story.acts)
        self.has_lost_power = self.is_booting = True

    def changes(self) -> str:
        """Equal while nothing changes that would survive; cheap. Within one life."""
        return f"{self.told} {self.world.changes()}"

    def fingerprint(self) -> str:
        return f"{self.told} {self.is_granted} {self.is_booting} {self.world.fingerprint()}"

    def finish(
        self, *, or_else: frozenset[str] = AS_TOLD, always: Act = lambda world: None
    ) -> None:
        """Live as often as it takes, then check what must be true at the end, and ``always``.

        ``or_else``: operations may also end so, and then ``also`` is not asked."""
        try:
            while not self._live_once():
                pass
            self._check_end(or_else)
            always(self.world)
        except BaseException as error:
            faults = self.world.instants.faults
            error.add_note(f"'{self.story}', deaths at {self.deaths or 'no'} instants, {faults=}")
            raise
        finally:
            self.world.close()

    def _check_end(self, or_else: frozenset[str]) -> None:
        world, story = self.world, self.story
        _people_decide(world)
        is_strict = not or_else
        is_as_told = (is_strict or not story.is_timed) and not self.has_lost_power
        assert [record.operation_id for record in _open(world)] == []
        check_host(world)
        check_letters(world)
        if is_as_told or self.has_lost_power:
            check_attachments(world, self.strays, is_noted=is_strict)
        mine = [ask for ask in story.asks if ask.refused is None]
        for ask, ends in zip(mine, story.ends, strict=True):
            record = world.record(str(ask.request["request_id"]))
            assert not is_as_told or record.state in ends | or_else, (
                f"{record.verb} ended {record.state}: {record.cause}"
            )
            assert ask.send(world) == record.answer().wire(), "a replay is answered otherwise"
        if is_strict and not self.has_lost_power:
            story.also(world)

    def _live_once(self) -> bool:
        try:
            self._live()
        except Crash:
            self.world.die()
            return False
        return True

    def _live(self) -> None:
        world = self.world
        if self.is_booting:
            self.is_booting = False  # a boot whose reconnect dies goes on without it
            world.boot()
        world.start()
        world.run()
        check_rest(world)
        while self.told < len(self.story.acts):
            self.story.acts[self.told](world)
            self.told += 1
            world.run()
            check_rest(world)
        if self.has_lost_power:
            self._grant_everything()
        for ask in self.story.asks:
            if ask.refused is None and not ask.is_accepted(world):
                ask(world)
                world.run()
        if world.instants.faults:
            let_pass(10)(world)  # what was put off by the failure comes now
        self._grant_everything()
        for _ in range(PATIENCE):
            if not (_open(world) or world.lost_volumes) or not world.pass_time():
                break
        check_rest(world)

    def _grant_everything(self) -> None:
        if not self.is_granted:
            self.world.grant_everything()
            self.is_granted = True
        self.world.run()


@dataclass(frozen=True)
class Fork:
    """A telling that waits to be gone on with; it has no directory and no open file."""

    story: Story
    image: Image
    strays: frozenset[str]
    deaths: tuple[str, ...]
    told: int
    is_granted: bool
    has_lost_power: bool
    is_booting: bool

    def go_on(self) -> Telling:
        return Telling(
            self.story,
            World.of(self.image),
            self.strays,
            self.deaths,
            self.told,
            self.is_granted,
            self.has_lost_power,
            self.is_booting,
        )


@cache
def _begun(begin: Act) -> tuple[Image, frozenset[str]]:
    """What a story begins with, made once for all its tellings; and its strays."""
    world = World()
    try:
        world.start()
        begin(world)
        world.run()
        strays = frozenset(_strays(world))
        world.die()
        return world.image(), strays
    finally:
        world.close()


def _people_decide(world: World) -> None:
    """Which volume has the last writes of a guest that went with the pivot nobody else can tell."""
    for record in _open(world):
        if record.trouble is not None and "may have the last writes" in record.trouble.detail:
            world.agent.query("abandon_operation", {"operation_id": record.operation_id})


def _open(world: World) -> list[Record]:
    return world.journal.read(lambda book: book.open_operations())


def check_rest(world: World) -> None:
    """Nothing runs: every operation is closed, or waits for something that has a name."""
    assert world.locks.held() == []
    if world.journal_failed:
        assert world.agent.workers.next_alarm() is not None or not _open(world)
        return
    for record in _open(world):
        assert record.state in ("waiting", "unsettled"), f"{record.state} for nothing"
        assert record.waiting_for, "it waits, and does not say for what"
        assert record.wake_at is not None, "nothing will ever wake it"
        assert record.state == "waiting" or record.trouble is not None


def check_host(world: World) -> None:
    """Connected is what is used, promised or quarantined; sessions are of connected devices; and
    the journal claims of none of them that it has left."""
    held, quarantined = world.journal.read(
        lambda book: (book.attachments(), set(book.quarantined()))
    )
    connected = {device.volume_id for device in world.storage.devices.values()}
    used = {
        device.volume_id
        for device in world.storage.devices.values()
        if world.domains.in_use(device.names) or world.domains.says(device.volume_id)
    }
    promised = {
        row.attachment.volume_id
        for row in held
        if row.promised and row.attachment.connection.source_type != "network"
    }
    assert connected - quarantined == (used | promised) - quarantined
    assert world.storage.sessions == world.storage.targets
    needed = {secret.uuid for row in held if row.promised for secret in row.attachment.secrets}
    assert world.secrets.ours() <= needed, "a secret is left behind"
    for volume_id in connected:
        assert world.journal.presence(volume_id).connected, (
            f"{volume_id} is here, and said not to be"
        )
    assert world.locks.held() == []


def _strays(world: World) -> set[str]:
    """What is not in every half of its guest, or not in the books."""
    held = {
        (row.attachment.instance_id, row.attachment.alias)
        for row in world.journal.read(lambda book: book.attachments())
    }
    halves = {
        (guest.instance_id, half): parse_domain(xml)
        for guest in world.domains.guests.values()
        for half, xml in (("live", guest.live), ("inactive", guest.inactive))
        if xml is not None
    }
    there = {
        (instance_id, disk.alias, half)
        for (instance_id, half), facts in halves.items()
        for disk in facts.disks
        if disk.alias
    }
    wanted = {(*who, half) for who in held for instance_id, half in halves if instance_id == who[0]}
    return {alias for _, alias, _ in there ^ wanted}


def check_attachments(world: World, strays: frozenset[str], *, is_noted: bool) -> None:
    """What the last word on each attachment says is so: in both halves, in the books, noted.

    Of ``strays`` only a done operation of the story says anything. A note that could not be
    written (``is_noted`` False) is a warning."""
    last: dict[str, tuple[Record, Part]] = {}
    for record in world.records():
        for part in record.parts:
            if part.role == "stays" or (part.role == "yields" and record.state != "done"):
                continue
            if record.state == "done" or part.attachment_id not in last:
                last[part.attachment_id] = record, part
    rows = world.journal.read(lambda book: book.attachments())
    held = {row.attachment.attachment_id: row.attachment.alias for row in rows}
    inherited = set(held.values())
    for attachment_id, (record, part) in last.items():
        alias = held.get(attachment_id, f"{USER_ALIAS}{attachment_id}")
        is_attached = part.role == "joins" and record.state == "done"
        is_old_news = record.state != "done" or record.operation_id >= request_id(EARLIER)
        if (alias in strays and is_old_news) or (part.role == "leaves" and record.state != "done"):
            continue
        assert (attachment_id in held) == is_attached, f"{attachment_id}: the books are wrong"
        if record.verb in ("connect_instance", "prepare_migration"):
            continue  # whether a domain has it is for who defines that to say
        if not is_attached and alias in inherited:
            continue  # it is another attachment's disk by now, which is looked at itself
        guest = world.domains.guests.get(part.instance_id)
        places = []
        for half in (guest.live, guest.inactive) if guest else ():
            if half is not None:
                facts = parse_domain(half)
                found = [disk for disk in facts.disks if disk.alias == alias]
                is_told = half is guest.live and any(LOCKED_OUT in w for w in record.warnings)
                assert is_told or len(found) == is_attached, f"{alias} is {len(found)} in a half"
                notes = {a for a, n in facts.notes.items() if n.attachment_id == attachment_id}
                assert not is_noted or notes == ({alias} if is_attached else set()), notes
                places += [(disk.target_dev, disk.address) for disk in found]
        assert places[1:] in ([], places[:1]), f"{alias} has another place in each half"


def check_letters(world: World) -> None:
    """Each operation's notifications tell its states in order, the last one last."""
    letters = world.letters()
    for record in world.records():
        mine = [letter for letter in letters if letter["operation_id"] == record.operation_id]
        assert mine, "nobody was told"
        assert mine[-1]["state"] == record.state
        assert [letter["state"] in CLOSED for letter in mine].count(True) == 1
        times = [letter["at"] for letter in mine]
        assert world.clock.lost_seconds or times == sorted(times)


# what stories begin with, and what happens in them


def request_id(number: int) -> str:
    return f"00000000-0000-4000-9000-{number:012d}"


def volume(world: World, number: int = 1, **different: Any) -> None:
    """Volume 1 is LUN 1 of the shared target, and so on."""
    world.storage.luns[TARGET, number] = Lun(VOLUMES[number - 1], **different)


def attachment(
    number: int = 1, *, instance: int = 1, volume: int = 1, **different: Any
) -> dict[str, Any]:
    return {
        "attachment_id": f"att-{number}",
        "instance_id": INSTANCES[instance - 1],
        "volume_id": VOLUMES[volume - 1],
        "connection_info": {
            "driver_volume_type": "iscsi",
            "data": {
                "target_portal": "127.0.0.1:3260",
                "target_iqn": TARGET,
                "target_lun": volume,
                "auth_password": "geheim",
            },
        },
        **different,
    }


def _enveloped(verb: str, request: int, fields: Mapping[str, Any], refused: str | None) -> Ask:
    envelope = {"request_id": request_id(request), "not_after": moment(86400)}
    return Ask(verb, {**envelope, **fields}, refused)


def attach(
    request: int,
    number: int = 1,
    *,
    envelope: Mapping[str, Any] | None = None,
    refused: str | None = None,
    **different: Any,
) -> Ask:
    fields = {
        "attachment": attachment(number, **different),
        **(envelope or {}),
    }
    return _enveloped("attach", request, fields, refused)


def attach_batch(
    request: int,
    *attachments: Mapping[str, Any],
    refused: str | None = None,
    **envelope: Any,
) -> Ask:
    fields = {
        "attachments": list(attachments),
        **envelope,
    }
    return _enveloped("attach_batch", request, fields, refused)


def connect_instance(
    request: int,
    *attachments: Mapping[str, Any],
    instance: int = 1,
    refused: str | None = None,
    **envelope: Any,
) -> Ask:
    fields = {
        "instance_id": INSTANCES[instance - 1],
        "attachments": list(attachments),
        **envelope,
    }
    return _enveloped("connect_instance", request, fields, refused)


def disconnect_instance(
    request: int,
    *numbers: int,
    instance: int = 1,
    refused: str | None = None,
    **envelope: Any,
) -> Ask:
    """Of all attachments where none is named."""
    fields = {
        "instance_id": INSTANCES[instance - 1],
        "attachments": [{"attachment_id": f"att-{number}"} for number in numbers] or "all",
        **envelope,
    }
    return _enveloped("disconnect_instance", request, fields, refused)


def prepare_migration(
    request: int,
    *attachments: Mapping[str, Any],
    instance: int = 1,
    refused: str | None = None,
    **different: Any,
) -> Ask:
    """Attachment att-N replaces old-N, unless it says otherwise."""
    fields = {
        "migration_id": "mig-1",
        "instance_id": INSTANCES[instance - 1],
        "source": {"host": FAR_HOST},
        "attachments": [
            {"replaces": str(one["attachment_id"]).replace("att", "old"), **one}
            for one in attachments
        ],
        **different,
    }
    return _enveloped("prepare_migration", request, fields, refused)


def migrate(
    request: int,
    *numbers: int,
    instance: int = 1,
    refused: str | None = None,
    options: Mapping[str, Any] | None = None,
    **different: Any,
) -> Ask:
    """With attachments of these numbers, each a block device of the same name far away."""
    fields = {
        "migration_id": "mig-1",
        "instance_id": INSTANCES[instance - 1],
        "destination": {"host": FAR_HOST, "libvirt_uri": FAR_URI},
        "parts": {f"att-{number}": far_part(number) for number in numbers},
        "options": dict(options or {}),
        **different,
    }
    return _enveloped("migrate", request, fields, refused)


def far_part(number: int) -> str:
    return (
        f'<disk type="block"><driver cache="none"/><source dev="/dev/disk/by-id/far-{number}"/>'
        "</disk>"
    )


def cancel_migration(
    request: int, migration_id: str = "mig-1", *, refused: str | None = None, **envelope: Any
) -> Ask:
    fields = {"migration_id": migration_id, **envelope}
    return _enveloped("cancel_migration", request, fields, refused)


def detach(
    request: int,
    number: int = 1,
    *,
    instance: int = 1,
    refused: str | None = None,
    **envelope: Any,
) -> Ask:
    fields = {
        "attachment_id": f"att-{number}",
        "instance_id": INSTANCES[instance - 1],
        **envelope,
    }
    return _enveloped("detach", request, fields, refused)


def extend(
    request: int,
    size_bytes: int,
    *,
    volume: int = 1,
    refused: str | None = None,
    **envelope: Any,
) -> Ask:
    fields = {
        "volume_id": VOLUMES[volume - 1],
        "size_bytes": size_bytes,
        **envelope,
    }
    return _enveloped("extend", request, fields, refused)


def set_iotune(
    request: int,
    iotune: Mapping[str, Any],
    number: int = 1,
    *,
    refused: str | None = None,
    **envelope: Any,
) -> Ask:
    fields = {
        "attachment_id": f"att-{number}",
        "iotune": dict(iotune),
        **envelope,
    }
    return _enveloped("set_iotune", request, fields, refused)


def swap(
    request: int,
    number: int = 1,
    new: int = 2,
    *,
    volume: int = 2,
    envelope: Mapping[str, Any] | None = None,
    refused: str | None = None,
    **different: Any,
) -> Ask:
    """What is different is so of the new attachment."""
    fields = {
        "attachment_id": f"att-{number}",
        "new": attachment(new, volume=volume, **different),
        **(envelope or {}),
    }
    return _enveloped("swap", request, fields, refused)


def moment(seconds: float) -> str:
    """So many seconds after the world's beginning."""
    return rfc3339(datetime.fromtimestamp(BEGINNING + seconds, UTC))


def attached(world: World, number: int = 1, **different: Any) -> None:
    """As an earlier attach has left it."""
    ask = attach(EARLIER + number, number, **different)
    ask(world)
    world.run()
    assert world.record(request_id(EARLIER + number)).state == "done"


def cancel(request: int) -> Act:
    def act(world: World) -> None:
        world.agent.query("cancel_operation", {"operation_id": request_id(request)})

    return act


def let_pass(seconds: float) -> Act:
    """Time, with every alarm in it."""

    def act(world: World) -> None:
        end = world.clock.monotonic() + seconds
        while (alarm := world.next_alarm()) is not None and alarm <= end:
            world.pass_time()
        world.clock.pass_to(end)

    return act
