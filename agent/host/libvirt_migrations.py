"""ports.Migrations on a real libvirt: from this libvirtd to another, peer to peer."""

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import libvirt

from agent.errors import AgentError, TooLate, Unavailable, Unsupported
from agent.host.libvirt_abilities import (
    LASTING_STATISTICS,
    PARALLEL_MIGRATION,
    POST_COPY_RECOVERY,
    Abilities,
)
from agent.host.libvirt_calls import libvirt_refusal
from agent.host.libvirt_connection import LibvirtConnection, VirConnect
from agent.host.libvirt_migration_words import (
    KEEP_COMPLETED,
    POSTCOPY_RESUME,
    flags_of,
    parameters_of,
    post_copy_phase,
    progress_of,
    statistics_of,
)
from agent.host.libvirt_moves import LibvirtMoves
from agent.host.libvirt_refusals import (
    is_connection_lost,
    is_no_such_domain,
    is_no_such_half,
    is_no_such_job,
    is_on_its_way_here,
    migration_refusal,
    unknown,
)
from agent.host.libvirt_remembered import Remembered
from agent.model.migration import IN_POST_COPY, Journey, MigrationProgress

Answer = TypeVar("Answer")

VirDomain = Any
"""A libvirt.virDomain."""

_FOR_GOING: Final = libvirt.VIR_DOMAIN_XML_MIGRATABLE | libvirt.VIR_DOMAIN_XML_SECURE
"""With what is secret in it: a console keeps its password over there."""


class LibvirtMigrations:
    """Any thread may call. ``on_end`` gets the id of an instance whose call has returned, in the
    thread of that call; it must not raise."""

    def __init__(self, connection: LibvirtConnection, on_end: Callable[[str], None]) -> None:
        self._connection = connection
        self._abilities = Abilities()
        self._moves = LibvirtMoves(connection, on_end)
        self._statistics: Remembered[dict[str, int]] = Remembered()

    def descriptions(self, instance_id: str) -> tuple[str, str | None]:
        def ask(connection: VirConnect) -> tuple[str, str | None]:
            domain = connection.lookupByUUIDString(instance_id)
            if not domain.isActive():
                raise unknown(f"domain {instance_id} does not run")
            inactive = None
            if domain.isPersistent():
                inactive = domain.XMLDesc(_FOR_GOING | libvirt.VIR_DOMAIN_XML_INACTIVE)
            return domain.XMLDesc(_FOR_GOING), inactive

        return self._call(ask, f"describing domain {instance_id}")

    def start(self, instance_id: str, journey: Journey) -> None:
        """Raises Unsupported, too: parallel connections."""

        def is_still(connection: VirConnect) -> bool:
            if journey.options.parallel_connections is not None:
                self._require(connection, PARALLEL_MIGRATION, "options.parallel_connections")
            return _progress(connection.lookupByUUIDString(instance_id)) is None

        if self._call(is_still, f"moving domain {instance_id}"):
            self._move(instance_id, journey, flags_of(journey))

    def progress(self, instance_id: str) -> MigrationProgress | None:
        """Our own call counts from before libvirt knows of it until it has returned."""
        is_under_way = self._moves.is_under_way(instance_id)
        found = self._while_it_goes(instance_id, lambda _domain, progress: progress)
        return MigrationProgress(phase="setup") if found is None and is_under_way else found

    def refusal(self, instance_id: str) -> AgentError | None:
        return self._moves.refusal(instance_id)

    def statistics(self, instance_id: str) -> Mapping[str, int]:
        """Heard at its end: the source's domain goes with it. The destination's can be asked."""
        heard = self._statistics.get(instance_id)
        if heard is not None:
            return heard

        def ask(connection: VirConnect) -> Mapping[str, int]:
            flags = libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED
            if self._abilities.has_now(connection, LASTING_STATISTICS):
                flags |= KEEP_COMPLETED
            return statistics_of(connection.lookupByUUIDString(instance_id).jobStats(flags))

        return self._unless_quiet(ask, instance_id) or {}

    def job_completed(self, instance_id: str, job: Mapping[str, Any]) -> None:
        """For LibvirtEvents. libvirt 9.0.0 sends no such event where a migration failed."""
        statistics = statistics_of(job)
        if statistics:
            self._statistics.keep(instance_id, statistics)

    def abort(self, instance_id: str) -> None:
        self._moves.call_off(instance_id)

        def give_up(domain: VirDomain, progress: MigrationProgress) -> None:
            if progress.phase in IN_POST_COPY:
                raise TooLate(
                    "the instance runs at the destination and fetches what is missing from here "
                    "(post-copy): it cannot be called back"
                )
            domain.abortJob()

        self._while_it_goes(instance_id, give_up)

    def allow_downtime(self, instance_id: str, milliseconds: int) -> None:
        self._while_it_goes(
            instance_id, lambda domain, _progress: domain.migrateSetMaxDowntime(milliseconds)
        )

    def start_post_copy(self, instance_id: str) -> None:
        def switch(domain: VirDomain, progress: MigrationProgress) -> None:
            if progress.phase == "setup":
                raise Unavailable("libvirt", "the copy of the guest's memory has not begun yet")
            if progress.phase not in IN_POST_COPY:
                domain.migrateStartPostCopy()

        self._while_it_goes(instance_id, switch)

    def resume_post_copy(self, instance_id: str, journey: Journey) -> None:
        """libvirt asks QEMU first, and refuses while that goes on by itself. Told to give up
        (VIR_DOMAIN_ABORT_JOB_POSTCOPY), the QEMU over there would wait for memory with its monitor
        locked, and its libvirtd for the monitor."""

        def is_broken(domain: VirDomain, progress: MigrationProgress) -> bool:
            if progress.phase != "postcopy-failed" or self._moves.is_under_way(instance_id):
                return False
            self._require(domain.connect(), POST_COPY_RECOVERY, "to go on with a post-copy")
            return True

        if self._while_it_goes(instance_id, is_broken):
            self._move(instance_id, journey, flags_of(journey) | POSTCOPY_RESUME)

    def clear(self, instance_id: str) -> None:
        """Raises Unavailable where it runs: that is no leftover."""

        def ask(connection: VirConnect) -> None:
            domain = connection.lookupByUUIDString(instance_id)
            if domain.state()[0] == libvirt.VIR_DOMAIN_RUNNING:
                raise Unavailable("libvirt", f"domain {instance_id} runs here")
            is_persistent = domain.isPersistent()
            if domain.isActive():
                domain.destroy()
            if is_persistent:
                # Both hosts may have it: it is the guest's, which has only moved.
                domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM)

        self._unless_quiet(ask, instance_id)

    def pause(self, instance_id: str) -> None:
        def stand(domain: VirDomain, _progress: MigrationProgress) -> None:
            if domain.state()[0] == libvirt.VIR_DOMAIN_RUNNING:
                domain.suspend()

        self._while_it_goes(instance_id, stand)

    def _move(self, instance_id: str, journey: Journey, flags: int) -> None:
        self._statistics.forget(instance_id)
        parameters = parameters_of(journey)
        downtime_milliseconds = journey.options.downtime_milliseconds()

        def move(domain: VirDomain) -> None:
            if downtime_milliseconds is not None:
                domain.migrateSetMaxDowntime(downtime_milliseconds)
            domain.migrateToURI3(journey.libvirt_uri, parameters, flags)

        self._moves.begin(instance_id, move)

    def _require(self, connection: VirConnect, ability: str, what: str) -> None:
        if not self._abilities.has_now(connection, ability):
            raise Unsupported(f"{what}: libvirt on this host is too old for it (describe tells)")

    def _while_it_goes(
        self, instance_id: str, act: Callable[[VirDomain, MigrationProgress], Answer]
    ) -> Answer | None:
        """What ``act`` answers; None where nothing goes away (any more)."""

        def ask(connection: VirConnect) -> Answer | None:
            domain = connection.lookupByUUIDString(instance_id)
            progress = _progress(domain)
            return None if progress is None else act(domain, progress)

        return self._unless_quiet(ask, instance_id)

    def _unless_quiet(self, ask: Callable[[VirConnect], Answer], instance_id: str) -> Answer | None:
        """None where there is no such domain, it does not run, or nothing goes away by now."""

        def look(connection: VirConnect) -> Answer | None:
            try:
                return ask(connection)
            except libvirt.libvirtError as error:
                if _is_quiet(error):
                    return None
                raise

        return self._call(look, f"the migration of domain {instance_id}")

    def _call(self, ask: Callable[[VirConnect], Answer], doing: str) -> Answer:
        try:
            return self._connection.call(ask)
        except libvirt.libvirtError as error:
            code, message = error.get_error_code(), str(error)
            if is_no_such_domain(code) or is_no_such_half(code, message):
                raise libvirt_refusal(error, doing) from error
            if code == libvirt.VIR_ERR_OPERATION_TIMEOUT:
                raise unknown(message) from error
            raise migration_refusal(code, message) from error


def _progress(domain: VirDomain) -> MigrationProgress | None:
    phase = post_copy_phase(*domain.state())
    if phase is not None:
        return MigrationProgress(phase=phase)
    try:
        job = domain.jobStats()
    except libvirt.libvirtError as error:
        if _is_quiet(error):
            return None
        if is_connection_lost(error.get_error_code(), error.get_error_domain()):
            raise
        raise unknown(str(error)) from error  # a question without an answer gives nothing up
    return progress_of(job, *domain.state())


def _is_quiet(error: libvirt.libvirtError) -> bool:
    code, message = error.get_error_code(), str(error)
    return (
        is_no_such_domain(code)
        or is_no_such_half(code, message)
        or is_no_such_job(code, message)
        or is_on_its_way_here(code, message)
    )
