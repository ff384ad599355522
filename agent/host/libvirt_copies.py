"""ports.Copies on a real libvirt: block jobs, which QEMU carries on whatever becomes of us.

A job is transient (it is over when the guest stops) and the destination is there already; so a
persistent domain stays defined all the time. With the pivot libvirt changes both halves.
"""

import json
import re
from collections.abc import Collection, Sequence
from typing import Any, Final

import libvirt
import libvirt_qemu
from lxml import etree

from agent.errors import AgentError, CopyFailed, Unavailable, Unsupported
from agent.host.libvirt_abilities import Abilities
from agent.host.libvirt_calls import LibvirtCalls, libvirt_refusal
from agent.host.libvirt_connection import LibvirtConnection, VirConnect
from agent.host.libvirt_refusals import is_no_such_domain, is_no_such_half
from agent.model.copy import CopyProgress, CopyWishes
from agent.ports import SYNCHRONOUS_WRITES

VirDomain = Any
"""A libvirt.virDomain."""

_FLAGS: Final = (
    libvirt.VIR_DOMAIN_BLOCK_COPY_REUSE_EXT | libvirt.VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB
)

_SYNCHRONOUS: Final = 8
"""VIR_DOMAIN_BLOCK_COPY_SYNCHRONOUS_WRITES: the binding has it since 8.0 only."""

_NO_JOB: Final = "does not have an active block job"


class LibvirtCopies(LibvirtCalls):
    """Any thread may call. ``without``: abilities not to be used even where they are there."""

    def __init__(self, connection: LibvirtConnection, *, without: Collection[str] = ()) -> None:
        super().__init__(connection)
        self._abilities = Abilities(without)

    def start(
        self, instance_id: str, target_dev: str, destination_xml: str, wishes: CopyWishes
    ) -> None:
        doing = f"copying {target_dev} of domain {instance_id}"

        def begin(connection: VirConnect) -> None:
            flags = _FLAGS
            if wishes.synchronous_writes:
                if not self._abilities.has_now(connection, SYNCHRONOUS_WRITES):
                    raise Unsupported(f"{doing}: synchronous_writes needs libvirt 8.0 or newer")
                flags |= _SYNCHRONOUS
            parameters = {}
            if wishes.bandwidth_bytes_per_second is not None:
                parameters["bandwidth"] = wishes.bandwidth_bytes_per_second
            domain = connection.lookupByUUIDString(instance_id)
            try:
                domain.blockCopy(target_dev, destination_xml, parameters, flags)
            except libvirt.libvirtError as error:
                is_active = error.get_error_code() == libvirt.VIR_ERR_BLOCK_COPY_ACTIVE
                if not (is_active and _goes_to(domain, target_dev, destination_xml)):
                    raise

        try:
            self._connection.call(begin)
        except libvirt.libvirtError as error:
            raise _copy_refusal(error, doing) from error

    def progress(self, instance_id: str, target_dev: str) -> CopyProgress | None:
        def ask(connection: VirConnect) -> CopyProgress | None:
            domain = connection.lookupByUUIDString(instance_id)
            try:
                job = domain.blockJobInfo(target_dev)
            except libvirt.libvirtError as error:
                if _is_over(error):
                    return None
                raise
            return CopyProgress(int(job["cur"]), int(job["end"])) if job else None

        return self._question(ask)

    def pivot(self, instance_id: str, target_dev: str) -> None:
        def ask(connection: VirConnect) -> None:
            domain = connection.lookupByUUIDString(instance_id)
            try:
                domain.blockJobAbort(target_dev, libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)
            except libvirt.libvirtError as error:
                if error.get_error_code() == libvirt.VIR_ERR_BLOCK_COPY_ACTIVE:
                    raise Unavailable(
                        "libvirt", f"the copy of {target_dev} is not ready for the pivot yet"
                    ) from error
                if _is_over(error):
                    raise CopyFailed(f"there is no copy of {target_dev} any more") from error
                raise

        self._change(ask, f"the pivot of {target_dev} of domain {instance_id}")

    def abort(self, instance_id: str, target_dev: str) -> None:
        def ask(connection: VirConnect) -> None:
            try:
                domain = connection.lookupByUUIDString(instance_id)
                domain.blockJobAbort(target_dev)
            except libvirt.libvirtError as error:
                if not (_is_over(error) or is_no_such_domain(error.get_error_code())):
                    raise

        self._change(ask, f"giving up the copy of {target_dev} of domain {instance_id}")

    def astray(self, instance_id: str, target_dev: str) -> bool:
        def ask(connection: VirConnect) -> bool:
            domain = connection.lookupByUUIDString(instance_id)
            command = json.dumps({"execute": "query-block"})
            try:
                told = json.loads(libvirt_qemu.qemuMonitorCommand(domain, command, 0))
            except libvirt.libvirtError as error:
                if is_no_such_half(error.get_error_code(), str(error)):
                    return False
                raise
            return is_astray(domain.XMLDesc(0), target_dev, told["return"])

        return self._question(ask)


def is_astray(live_xml: str, target_dev: str, blocks: Sequence[dict[str, Any]]) -> bool:
    """By the answer of QEMU's query-block: libvirt numbers what it gives to QEMU, and shows the
    number of a disk's source (since 5.10; without it nothing is known, and it is not astray)."""
    disk = etree.fromstring(live_xml).find(f"devices/disk/target[@dev='{target_dev}']/..")
    source, alias = (None, None) if disk is None else (disk.find("source"), disk.find("alias"))
    if source is None or alias is None or source.get("index") is None:
        return False
    for block in blocks:
        if alias.get("name") in block.get("qdev", "").split("/"):
            node = re.match(r"libvirt-(\d+)-", block.get("inserted", {}).get("node-name", ""))
            return node is not None and node[1] != source.get("index")
    return False


def _copy_refusal(error: Any, doing: str) -> AgentError:
    """What libvirt says of the destination is no word on a plug."""
    told = libvirt_refusal(error, doing)
    return CopyFailed(told.detail) if told.code == "plug-refused" else told


def _is_over(error: libvirt.libvirtError) -> bool:
    code, message = error.get_error_code(), str(error)
    is_none = code == libvirt.VIR_ERR_INVALID_ARG and _NO_JOB in message
    return is_none or is_no_such_half(code, message)


def _goes_to(domain: VirDomain, target_dev: str, destination_xml: str) -> bool:
    """An answer was lost: the copy that is asked for runs already."""
    live = etree.fromstring(domain.XMLDesc(0))
    mirror = live.find(f"devices/disk/target[@dev='{target_dev}']/../mirror/source")
    wanted = etree.fromstring(destination_xml).find("source")
    names = ("dev", "file", "protocol", "name")
    return (
        mirror is not None
        and wanted is not None
        and all(mirror.get(name) == wanted.get(name) for name in names)
    )
