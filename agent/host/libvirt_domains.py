"""ports.Domains on a real libvirt.

Each half has its own calls and its own flag, never LIVE|CONFIG in one call: libvirt takes a disk
out of the configuration at once even if the guest never lets go, and refuses to plug a disk into
one half because the other has it.

Disks are taken out by alias. Given XML, libvirt takes out whatever sits at its target name, so
below 4.4, and of a disk without a user's alias, the XML is the one that libvirt itself shows for
what the disk is found by, read just before.
"""

import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Final, TypeVar

import libvirt
from lxml import etree

from agent.errors import AgentError, Unavailable, WrongDevice
from agent.host.libvirt_abilities import DETACH_BY_ALIAS, Abilities, version_of
from agent.host.libvirt_connection import LibvirtConnection, VirConnect
from agent.host.libvirt_devices import Mark, devices_in, found_by, target_in
from agent.host.libvirt_disks import LibvirtDisks
from agent.host.libvirt_looks import (
    LastLooks,
    VirDomain,
    live_xml,
    look_of,
    read,
    unanswered_milliseconds,
)
from agent.host.libvirt_migration_words import ARRIVED_IN_POST_COPY, BACK, HELD, post_copy_phase
from agent.host.libvirt_refusals import (
    is_no_such_device,
    is_no_such_domain,
    is_no_such_half,
    is_not_yet,
    is_on_its_way_here,
)
from agent.host.libvirt_shared import Shared
from agent.model.mark import METADATA_NAMESPACE, is_user_alias
from agent.ports import INCOMING_MIGRATION, Capabilities, DomainLook, DomainXml

Told = TypeVar("Told")

METADATA_PREFIX: Final = "laa"

ASK_AGAIN_SECONDS: Final = 2.0
"""Before the same disk is asked for once more.

libvirtd 9.0.0 dies (SIGSEGV in virDomainAuditDisk) when it is asked for a disk that QEMU has just
let go and libvirt has not yet heard of: some 50 ms for a virtio-scsi disk.
"""

STUCK_SECONDS: Final = 10.0
"""A monitor command that takes longer has met a QEMU that hangs; usual ones take milliseconds."""

_JOBS: Final = {
    libvirt.VIR_DOMAIN_JOB_OPERATION_START: "start",
    libvirt.VIR_DOMAIN_JOB_OPERATION_SAVE: "save",
    libvirt.VIR_DOMAIN_JOB_OPERATION_RESTORE: "restore",
    libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN: INCOMING_MIGRATION,
    libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT: "migration",
    libvirt.VIR_DOMAIN_JOB_OPERATION_SNAPSHOT: "snapshot",
    libvirt.VIR_DOMAIN_JOB_OPERATION_SNAPSHOT_REVERT: "revert to a snapshot",
    libvirt.VIR_DOMAIN_JOB_OPERATION_DUMP: "core dump",
}
"""Jobs of the whole domain. A backup is none: it lets devices come and go, as block jobs do."""

_ERRORS: Final[dict[int, str]] = {libvirt.VIR_DOMAIN_DISK_ERROR_NO_SPACE: "enospc"}


@dataclass(frozen=True)
class _Half:
    """Of a domain: how to change it, and how to read it."""

    affect: int
    xml_flags: int
    name: str


_LIVE: Final = _Half(libvirt.VIR_DOMAIN_AFFECT_LIVE, 0, "the running guest")
_CONFIG: Final = _Half(
    libvirt.VIR_DOMAIN_AFFECT_CONFIG, libvirt.VIR_DOMAIN_XML_INACTIVE, "the configuration"
)


class LibvirtDomains(LibvirtDisks):
    """Any thread may call. ``without``: abilities not to be used even where they are there."""

    def __init__(self, connection: LibvirtConnection, *, without: Collection[str] = ()) -> None:
        super().__init__(connection)
        self._abilities = Abilities(without)
        self._asked = _Asked()
        self._all = Shared(self._look_at_all)
        self._last_looks = LastLooks()

    def answering(self) -> bool:
        return self._connection.alive()

    def look(self, instance_id: str) -> DomainLook | None:
        """Not held up by a QEMU that hangs, or (libvirt 11.3) for 30 seconds: ``job`` says so."""

        def look(domain: VirDomain) -> DomainLook:
            xml = read(domain, is_persistent=domain.isPersistent())
            if not xml.active:
                return look_of(xml, libvirt.VIR_DOMAIN_SHUTOFF)
            state, reason = domain.state()
            return replace(
                look_of(xml, state),
                job=_job(domain, state, reason),
                is_held=(state, reason) == HELD,
                is_back=(state, reason) == BACK,
            )

        return self._of(instance_id, look)

    def read(self, instance_id: str) -> DomainXml | None:
        return self._of(
            instance_id, lambda domain: read(domain, is_persistent=domain.isPersistent())
        )

    def job(self, instance_id: str) -> str | None:
        def job(domain: VirDomain) -> str | None:
            state, reason = domain.state()
            is_off = state == libvirt.VIR_DOMAIN_SHUTOFF
            return None if is_off else _job(domain, state, reason)

        return self._of(instance_id, job)

    def _of(self, instance_id: str, tell: Callable[[VirDomain], Told | None]) -> Told | None:
        """What is told of the domain; None where there is none, or none any more."""

        def ask(connection: VirConnect) -> Told | None:
            try:
                return tell(connection.lookupByUUIDString(instance_id))
            except libvirt.libvirtError as error:
                if is_no_such_domain(error.get_error_code()):
                    return None
                raise

        return self._question(ask)

    def all(self) -> list[DomainLook]:
        """A domain that comes or goes meanwhile may be missing."""
        return self._all.look()

    def _look_at_all(self) -> list[DomainLook]:
        def ask(connection: VirConnect) -> list[DomainLook]:
            transient = _ids(connection, libvirt.VIR_CONNECT_LIST_DOMAINS_TRANSIENT)
            states = connection.getAllDomainStats(libvirt.VIR_DOMAIN_STATS_STATE)
            return self._last_looks.of_all(states, transient)

        return self._question(ask)

    def plug(self, instance_id: str, device_xml: str) -> None:
        """A disk whose alias the guest has, a controller whose index it has: nothing to do.

        Raises PlugRefused, NoFreeAddress, UnknownInstance; Unavailable if it does not run."""
        self._put(instance_id, device_xml, _LIVE)
        self._asked.forget(instance_id, Mark.of(device_xml).alias)

    def define(self, instance_id: str, device_xml: str) -> None:
        """As plug; Unavailable if the domain is transient."""
        self._put(instance_id, device_xml, _CONFIG)

    def unplug(self, instance_id: str, alias: str) -> None:
        """No disk, no running guest, no domain: it is out already.

        Raises Busy while a block job is active on the disk; PlugRefused. Before libvirt 4.4 it
        returns only after 5 seconds where the guest must help."""
        if self._asked.lately(instance_id, alias):
            return
        try:
            self._take_out(instance_id, alias, _LIVE)
        except AgentError:
            self._asked.forget(instance_id, alias)
            raise

    def forget(self, instance_id: str, alias: str) -> None:
        """No disk, no configuration, no domain: it is out already."""
        self._take_out(instance_id, alias, _CONFIG)

    def disk_errors(self, instance_id: str) -> dict[str, str | None]:
        def ask(connection: VirConnect) -> dict[str, str | None]:
            try:
                found = connection.lookupByUUIDString(instance_id).diskErrors()
            except libvirt.libvirtError as error:
                code = error.get_error_code()
                if is_no_such_domain(code) or is_no_such_half(code, str(error)):
                    return {}
                raise
            return {target_dev: _ERRORS.get(code) for target_dev, code in found.items()}

        return self._question(ask)

    def redefine(self, instance_id: str, disk_xml: str) -> None:
        """libvirt changes whatever sits at the target name: what that is is looked at just before.

        Raises WrongDevice, PlugRefused, UnknownInstance; Unavailable if the domain is transient."""
        disk = etree.fromstring(disk_xml)
        mark = found_by(disk)

        def ask(connection: VirConnect) -> None:
            domain = connection.lookupByUUIDString(instance_id)
            if not domain.isPersistent():
                raise Unavailable("libvirt", f"domain {instance_id} has no configuration")
            there = devices_in(_xml_of(domain, _CONFIG))
            if not any((found_by(d), target_in(d)) == (mark, target_in(disk)) for d in there):
                raise WrongDevice(
                    f"the definition of domain {instance_id} has no disk {mark}; nothing was "
                    "changed: see what it has ('attachctl instance')"
                )
            domain.updateDeviceFlags(disk_xml, _CONFIG.affect)

        self._change_domain(instance_id, ask, f"changing the disk {mark} in the definition")

    def note(self, instance_id: str, metadata_xml: str) -> None:
        """An element without children takes ours away.

        Raises UnknownInstance; Unavailable if the domain stopped or started meanwhile."""
        empty = len(etree.fromstring(metadata_xml)) == 0

        def ask(connection: VirConnect) -> None:
            domain = connection.lookupByUUIDString(instance_id)
            domain.setMetadata(
                libvirt.VIR_DOMAIN_METADATA_ELEMENT,
                None if empty else metadata_xml,
                METADATA_PREFIX,
                METADATA_NAMESPACE,
                (_LIVE.affect if domain.isActive() else 0)
                | (_CONFIG.affect if domain.isPersistent() else 0),
            )

        self._change_domain(instance_id, ask, "the note of disks")

    def capabilities(self) -> Capabilities:
        """Asked anew each time: libvirtd and QEMU can be upgraded under us."""

        def ask(connection: VirConnect) -> Capabilities:
            version = version_of(connection.getLibVersion())
            return Capabilities(
                libvirt=version,
                qemu=version_of(connection.getVersion()),
                missing=self._abilities.missing(version),
            )

        return self._question(ask)

    def _put(self, instance_id: str, device_xml: str, half: _Half) -> None:
        mark = Mark.of(device_xml)

        def ask(connection: VirConnect) -> None:
            domain = connection.lookupByUUIDString(instance_id)
            try:
                domain.attachDeviceFlags(device_xml, half.affect)
            except libvirt.libvirtError:
                # An error says nothing of the effect, and a second time is no error of ours.
                if not mark.is_in(_xml_of(domain, half)):
                    raise

        self._change_domain(instance_id, ask, f"plugging {mark} into {half.name}")

    def _take_out(self, instance_id: str, alias: str, half: _Half) -> None:
        def ask(connection: VirConnect) -> None:
            try:
                domain = connection.lookupByUUIDString(instance_id)
                version = version_of(connection.getLibVersion())
                if is_user_alias(alias) and self._abilities.has(version, DETACH_BY_ALIAS):
                    domain.detachDeviceAlias(alias, half.affect)
                else:
                    _detach_by_xml(domain, alias, half)
            except libvirt.libvirtError as error:
                if not _is_out(error):
                    raise

        self._change_domain(instance_id, ask, f"taking the disk {alias} out of {half.name}")

    def _change_domain(
        self, instance_id: str, ask: Callable[[VirConnect], None], doing: str
    ) -> None:
        """Whatever came of it, and whenever it ends: what was known of its disks is so no more."""

        def change(connection: VirConnect) -> None:
            try:
                ask(connection)
            finally:
                self._last_looks.forget(instance_id)

        self._change(change, f"{doing} of domain {instance_id}")


class _Asked:
    """When the guests were asked for which disk: only the last seconds count."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._at: dict[tuple[str, str], float] = {}

    def lately(self, instance_id: str, alias: str) -> bool:
        """Whether somebody asked within ASK_AGAIN_SECONDS; if not, the caller does now."""
        now = time.monotonic()
        with self._lock:
            old = [key for key, at in self._at.items() if at <= now - ASK_AGAIN_SECONDS]
            for key in old:
                del self._at[key]
            if (instance_id, alias) in self._at:
                return True
            self._at[instance_id, alias] = now
            return False

    def forget(self, instance_id: str, alias: str | None) -> None:
        """The alias is a new disk's now."""
        with self._lock:
            self._at.pop((instance_id, alias or ""), None)


def _xml_of(domain: VirDomain, half: _Half) -> str | None:
    return live_xml(domain) if half is _LIVE else str(domain.XMLDesc(half.xml_flags))


def _job(domain: VirDomain, running: int, reason: int) -> str | None:
    """Of a running domain, and what its state is."""
    if post_copy_phase(running, reason) is not None:
        return _JOBS[libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT]
    if (running, reason) in ARRIVED_IN_POST_COPY:
        return _JOBS[libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN]
    if unanswered_milliseconds(domain) > STUCK_SECONDS * 1000:
        return f"command to QEMU (unanswered for more than {STUCK_SECONDS:g} s)"  # told once
    try:
        job = domain.jobStats()
    except libvirt.libvirtError as error:
        if is_no_such_half(error.get_error_code(), str(error)):
            return None
        if is_on_its_way_here(error.get_error_code(), str(error)):
            return _JOBS[libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN]
        raise
    if job.get("type") not in (libvirt.VIR_DOMAIN_JOB_BOUNDED, libvirt.VIR_DOMAIN_JOB_UNBOUNDED):
        return None
    operation = job.get(libvirt.VIR_DOMAIN_JOB_OPERATION)
    if operation == libvirt.VIR_DOMAIN_JOB_OPERATION_BACKUP:
        return None
    return _JOBS.get(operation, "job")


def _ids(connection: VirConnect, flags: int) -> frozenset[str]:
    return frozenset(domain.UUIDString() for domain in connection.listAllDomains(flags))


def _detach_by_xml(domain: VirDomain, alias: str, half: _Half) -> None:
    found = (device for device in devices_in(_xml_of(domain, half)) if found_by(device) == alias)
    device = next(found, None)
    if device is not None:
        domain.detachDeviceFlags(etree.tostring(device, encoding="unicode"), half.affect)


def _is_out(error: libvirt.libvirtError) -> bool:
    code, message = error.get_error_code(), str(error)
    return (
        is_no_such_domain(code)
        or is_no_such_half(code, message)
        or is_no_such_device(code, message)
        or is_not_yet(message)
    )
