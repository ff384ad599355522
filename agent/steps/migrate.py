"""An instance goes to another host while it runs: libvirt carries it, we look."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from agent.errors import AgentError, Busy, Invalid, MigrationFailed, Unavailable, Unsupported
from agent.guest.halves import halves
from agent.guest.migration_xml import files_written, has_block_job, why_it_stays
from agent.guest.whereabouts import Where
from agent.model.contract import MOVE_INSTANCE
from agent.model.migration import IN_POST_COPY, MigrationOptions, MigrationProgress
from agent.model.outcome import Progress
from agent.ports import DomainLook, Host, dotted
from agent.saga.plan import Commit, Lane, Learnt, Parked, Scene, Step
from agent.steps.guest_checks import find_domain
from agent.steps.travel import Travel

DIES_OF_GOING_ON: Final = (11, 3, 0)
"""libvirt 11.3 was seen to follow a null pointer when it is to take up a post-copy again
(qemuProcessIncomingDefNew), 9.0 does it; others were not tried."""

LOOK_SECONDS: Final = 5.0
"""Between two looks at a migration; events tell of each turn of the copy, and of most ends."""

SOON_SECONDS: Final = 1.0
"""Between two looks while it begins, or the two hosts do not agree yet."""

FRESH_SECONDS: Final = 30.0
"""For how long the word of the other host holds that it is ready."""

DOUBT_SECONDS: Final = 30.0
"""For how long they may disagree before somebody must look."""


@dataclass(frozen=True)
class CheckTraveller(Step):
    """Refuse an instance that could not go. Changes nothing."""

    name: ClassVar[str] = "check-traveller"
    only_looks: ClassVar[bool] = True
    travel: Travel

    def apply(self, scene: Scene) -> Learnt:
        if self.travel.is_begun(scene):
            return {}
        host = scene.host
        look = find_domain(host, self.travel.instance_id)
        guest = halves(look)
        if look.live_xml is None or not _can_go(look):
            raise Busy(
                f"domain {look.name} is {look.state}: what migrates runs, or was paused by somebody"
            )
        if look.is_held and self.travel.options.post_copy:
            raise Unsupported(
                "options.post_copy: the guest is paused, and nothing would be fetched"
            )
        if has_block_job(look.live_xml):
            raise Busy(f"a disk of domain {look.name} is being copied: try again when it has ended")
        reason = why_it_stays(look.live_xml)
        if reason is not None:
            raise Unsupported(f"{reason}: detach it, and attach it otherwise")
        for path in files_written(look.live_xml):
            if host.connectors.is_only_here(path):
                raise Unsupported(
                    f"the guest writes to {path}, which is on a file system of this host alone: "
                    "volumes migrate, and files on storage that both hosts have"
                )
        missing = [alias for alias in self.travel.parts if guest.live_disk(alias) is None]
        if missing:
            raise Invalid(f"parts: the running guest has no disk {', '.join(missing)}")
        self.travel.first_journey(host)
        return {}


@dataclass(frozen=True)
class CheckDestination(Step):
    """Refuse a host that has not what the instance needs. Changes nothing, on either side."""

    name: ClassVar[str] = "check-destination"
    only_looks: ClassVar[bool] = True
    travel: Travel

    @property
    def lane(self) -> Lane:
        return "peers"

    def apply(self, scene: Scene) -> Learnt:
        if self.travel.is_begun(scene):
            return {}
        self.travel.refuse_unready(scene.host, has_begun=False)
        return {"checked": scene.host.clock.now()}


@dataclass(frozen=True)
class MoveInstance(Commit):
    """libvirt copies the guest's memory, and lets it run over there; parked meanwhile."""

    name: ClassVar[str] = MOVE_INSTANCE
    reached: ClassVar[str] = "has switched the guest over"
    travel: Travel

    @property
    def lane(self) -> Lane:
        return "peers"

    def apply(self, scene: Scene) -> Learnt | Parked:
        host, instance_id = scene.host, self.travel.instance_id
        progress = host.migrations.progress(instance_id)
        if progress is not None:
            return self._going(scene, progress)
        look = host.domains.look(instance_id)
        if "begun_at" not in scene.known and look is not None and _can_go(look):
            if not self._is_fresh(scene):
                self.travel.refuse_unready(host, has_begun=True)
            host.migrations.start(instance_id, self.travel.first_journey(host))
            now = host.clock.now()
            return Parked("the migration to begin", now + SOON_SECONDS, {"begun_at": now})
        return self._ended(scene, look)

    def _is_fresh(self, scene: Scene) -> bool:
        """Is what the other host has said true still? An agent that was away since may not know
        that it was told to cancel."""
        said_at: float = scene.known["checked"]
        return 0 <= scene.host.clock.now() - said_at <= FRESH_SECONDS

    def give_up(self, scene: Scene) -> Parked | None:
        host, instance_id = scene.host, self.travel.instance_id
        progress = host.migrations.progress(instance_id)
        if progress is None or progress.phase in IN_POST_COPY:
            return None
        host.migrations.abort(instance_id)
        return Parked("the migration to be given up", host.clock.now() + SOON_SECONDS)

    def happened(self, scene: Scene) -> bool:
        """In post-copy the guest runs over there: nobody can call it back."""
        host, instance_id = scene.host, self.travel.instance_id
        progress = host.migrations.progress(instance_id)
        if progress is not None:
            if progress.phase in IN_POST_COPY:
                return True
            raise Unavailable("libvirt", "the migration goes on")
        where = self.travel.where(host, host.domains.look(instance_id))
        if where == "between":
            raise Busy(f"the instance is on its way to {self.travel.destination.host} still")
        if where in ("both", "unknown"):
            raise _lost_sight(self.travel, where)
        return where == "there"

    def revert(self, scene: Scene) -> Parked | None:
        return self.give_up(scene)

    def _going(self, scene: Scene, progress: MigrationProgress) -> Learnt | Parked:
        if progress.phase in IN_POST_COPY:
            return {}
        now = scene.host.clock.now()
        learnt = {**_best(scene, progress, now), **_begun(scene, now)}
        learnt |= self._allow_downtime(scene, now - learnt["begun_at"])
        late = None if "forced" in learnt else _why_late(self.travel.options, learnt, now)
        if late is not None:
            self._force(scene, late)
            learnt["forced"] = late
        return Parked(
            f"the migration to {self.travel.destination.host}, in {progress.phase}",
            now + LOOK_SECONDS,
            learnt,
            _shown(progress),
        )

    def _allow_downtime(self, scene: Scene, after_seconds: float) -> dict[str, Any]:
        """More of it with time."""
        options = self.travel.options
        wanted = options.downtime_milliseconds(after_seconds)
        allowed = scene.known.get("downtime_milliseconds", options.downtime_milliseconds())
        if wanted is not None and wanted != allowed:
            scene.host.migrations.allow_downtime(self.travel.instance_id, wanted)
        return {} if wanted is None else {"downtime_milliseconds": wanted}

    def _force(self, scene: Scene, late: str) -> None:
        """What options.on_timeout says.  Raises MigrationFailed: give it up."""
        migrations, instance_id = scene.host.migrations, self.travel.instance_id
        wanted = self.travel.options.on_timeout
        if wanted == "post_copy":
            migrations.start_post_copy(instance_id)
        elif wanted == "pause":
            migrations.pause(instance_id)
        else:
            raise MigrationFailed(f"{late}, so it was given up (options.on_timeout)")

    def _ended(self, scene: Scene, look: DomainLook | None) -> Learnt | Parked:
        host = scene.host
        where = self.travel.where(host, look)
        if where == "there":
            return {}
        if where in ("here", "nowhere"):
            raise _why_failed(host, self.travel, look)
        now = host.clock.now()
        since = scene.since("doubted_since", now)
        if where == "both" or now > since + DOUBT_SECONDS:
            raise _lost_sight(self.travel, where)
        return Parked(
            f"{self.travel.destination.host} to say that it has the instance",
            now + SOON_SECONDS,
            {"doubted_since": since},
        )


@dataclass(frozen=True)
class FinishMove(Step):
    """Wait for what is still fetched from here, and clear away what is left of the domain."""

    name: ClassVar[str] = "finish-move"
    travel: Travel

    @property
    def lane(self) -> Lane:
        return "peers"

    def apply(self, scene: Scene) -> Learnt | Parked:
        host, instance_id = scene.host, self.travel.instance_id
        progress = host.migrations.progress(instance_id)
        if progress is not None:
            return self._fetched(scene, progress)
        look = host.domains.look(instance_id)
        if look is not None:
            where = self.travel.where(host, look)
            if where == "between":
                later = host.clock.now() + SOON_SECONDS
                return Parked(f"{self.travel.destination.host} to have all of it", later)
            if where != "there":
                raise _lost_sight(self.travel, where, runs_here=look.state == "running")
            host.migrations.clear(instance_id)
        return {"statistics": dict(host.migrations.statistics(instance_id))}

    def _fetched(self, scene: Scene, progress: MigrationProgress) -> Parked:
        host, there = scene.host, self.travel.destination.host
        now = host.clock.now()
        if progress.phase != "postcopy-failed":
            return Parked(f"{there} to fetch the rest of the memory", now + LOOK_SECONDS)
        found = host.peers.look(there, self.travel.instance_id)
        if found is not None and found.state is None:
            raise MigrationFailed(
                f"the post-copy broke, and {there} has no such instance: part of its memory is "
                "here, paused, and part is lost. Nobody starts it: look at both hosts"
            )
        dies = _dies_of_going_on(host, there, self.travel.instance_id)
        asked_at = scene.known.get("resumed_at")
        is_due = not dies and (asked_at is None or abs(now - asked_at) >= LOOK_SECONDS)
        if is_due:
            host.migrations.resume_post_copy(self.travel.instance_id, self.travel.journey(host))
        told = host.migrations.refusal(self.travel.instance_id)
        return Parked(
            f"{there} to fetch the rest of the memory: the two libvirts have lost each other "
            "(postcopy-failed), see that both run, and the network between them"
            + (f": {told.detail}" if told else "")
            + dies,
            now + LOOK_SECONDS,
            {"resumed_at": now} if is_due else {},
        )


def _dies_of_going_on(host: Host, there: str, instance_id: str) -> str:
    """What to tell of its libvirt, which must not be asked then; empty: it may be."""
    ready = host.peers.readiness(there, instance_id)
    if ready is None or ready.libvirt < DIES_OF_GOING_ON:
        return ""
    return (
        f"; libvirt {dotted(ready.libvirt)} of {there} may die of being asked to go on, and is "
        "not: if the QEMUs do not do so by themselves see docs/migration"
    )


def _can_go(look: DomainLook) -> bool:
    return look.state == "running" or look.is_held


def _begun(scene: Scene, now: float) -> dict[str, Any]:
    forced = {"forced": scene.known["forced"]} if "forced" in scene.known else {}
    return {"begun_at": scene.since("begun_at", now), **forced}


def _best(scene: Scene, progress: MigrationProgress, now: float) -> dict[str, Any]:
    """When less was left than ever before, and how much."""
    best = scene.known.get("best_bytes")
    left = progress.remaining_bytes
    if progress.phase == "precopy" and (best is None or left < best):
        return {"best_bytes": left, "best_at": now}
    return {"best_bytes": best, "best_at": scene.since("best_at", now)}


def _why_late(options: MigrationOptions, learnt: Mapping[str, Any], now: float) -> str | None:
    complete, stalled = options.completion_timeout_seconds, options.no_progress_timeout_seconds
    if complete is not None and now > learnt["begun_at"] + complete:
        return f"the migration was not completed within {complete} s"
    if stalled is not None and now > learnt["best_at"] + stalled:
        return f"for {stalled} s the migration came no nearer to its end"
    return None


def _shown(progress: MigrationProgress) -> Progress | None:
    if not progress.total_bytes:
        return None
    left, rate = progress.remaining_bytes, progress.rate_bytes_per_second
    return Progress(
        done=max(0, progress.total_bytes - left),
        total=progress.total_bytes,
        unit="bytes",
        rate=float(rate) if rate else None,
        eta_seconds=left / rate if rate else None,
        dirty_rate=float(progress.dirty_bytes_per_second),
        downtime_milliseconds=progress.downtime_milliseconds or None,
    )


def _why_failed(host: Host, travel: Travel, look: DomainLook | None) -> AgentError:
    """As this life was told, or that nobody was told; and that the guest stands, where it does."""
    why = host.migrations.refusal(travel.instance_id)
    if why is None or isinstance(why, Unavailable):
        why = MigrationFailed(
            "libvirt has given the migration up, and the instance did not leave: the logs of "
            "libvirt and QEMU on both hosts say why"
        )
    if look is None or look.state != "paused" or look.is_held:
        return why
    return MigrationFailed(
        f"{why.detail}; the instance stands here, and {travel.destination.host} does not have it: "
        "see why ('virsh domstate --reason'), and that no other host runs it, then 'virsh resume' "
        "it here"
    )


def _lost_sight(travel: Travel, where: Where, *, runs_here: bool = False) -> MigrationFailed:
    there = travel.destination.host
    if where == "both":
        return MigrationFailed(
            f"the instance runs here and on {there}: that must never be; stop one of them now"
        )
    if where == "here" and runs_here:
        return MigrationFailed(
            f"the instance was switched over to {there}, and RUNS HERE again; {there} does not run "
            "it, or does not answer: start it nowhere else before you have looked at both "
            f"('attachctl instance'). Stop it here, then start it on {there}, and this ends by "
            "itself; if it is to stay here: docs/migration, Who has it"
        )
    if where == "here":
        return MigrationFailed(
            f"the instance was switched over to {there}, which has it no more; it stands here "
            f"('virsh domstate --reason'). Start it on {there}, and this ends by itself; if it is "
            "to be here: docs/migration, Who has it"
        )
    return MigrationFailed(
        "the migration has ended, and nobody can say where the instance runs: it stands or is gone "
        f"here, or runs again since the switch was called off, and {there} has it paused, or does "
        "not answer. Nothing is started or disconnected: look at both hosts ('attachctl "
        "instance'); it goes on as soon as both are clear. If that host is dead for good: "
        "'attachctl operations abandon'"
    )
