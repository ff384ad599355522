"""os-brick as a library of this process: set up once; and what it gives besides connectors."""

import logging
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import os_brick
from os_brick import privileged
from oslo_concurrency import lockutils
from oslo_service import backend

from agent.errors import Invalid
from agent.host.brick_lock_files import share_lock_files

LOG = logging.getLogger(__name__)

NVME_CORE = Path("/sys/module/nvme_core")

MODPROBE_SECONDS = 30

UDEV_SECONDS = 10
"""How long udev may take for the events of a device that has just come."""


def prepare_os_brick(conf: Any) -> None:
    """Set up os-brick for this process; to be called before anything else imports it.

    Threads instead of eventlet, its commands run by this process (which is root) instead of a
    privsep daemon. Where the operator gave no [oslo_concurrency] lock_path, os-brick's lock files
    go below state_path; another program that uses os-brick on this host must share them, and can
    open them whoever it is.
    Raises Invalid where its connectors and its guard would lock in different directories.
    """
    backend.init_backend(backend.BackendType.THREADING)
    for context in (privileged.default, privileged.brick_privsep_hide_output):
        context.set_client_mode(False)
    is_shared = lockutils.get_lock_path(conf) is not None
    if not is_shared and "state_path" in conf:
        own = str(Path(conf.state_path) / "os-brick")
        conf.set_default("lock_path", own, "oslo_concurrency")
    os_brick.setup(conf)
    _refuse_two_lock_paths(lockutils.get_lock_path(conf), conf.os_brick.lock_path)
    if is_shared:
        share_lock_files(Path(lockutils.get_lock_path(conf)))


def _refuse_two_lock_paths(guard: str | None, connectors: str | None) -> None:
    """os-brick reads one for guard_connection, the other for everything else: who shares only one
    of them with this host's compute service is not excluded by the other lock."""
    if (
        guard is None
        or connectors is None
        or os.path.realpath(guard) == os.path.realpath(connectors)
    ):
        return
    raise Invalid(
        f"[oslo_concurrency] lock_path is {guard} and [os_brick] lock_path is {connectors}: "
        "os-brick's locks would be in two places, and other programs that use os-brick on this "
        "host would be excluded by half of them. Set both to the same directory, the one of the "
        "compute or volume service if there is one here"
    )


def os_brick_connector(protocol: str, **options: Any) -> Any:
    """os-brick's connector of a protocol."""
    # Imported late: its connectors make oslo.service choose a backend, once for the process.
    from os_brick.initiator import connector

    if protocol == "NVMEOF" and options.get("use_multipath"):
        _look_for_native_multipath()
    return connector.InitiatorConnector.factory(protocol, "", **options)


def _look_for_native_multipath() -> None:
    """os-brick looks once in the life of the process, and it may be before the kernel has the
    module: 'nvme connect' loads that, which os-brick asks for only where it has seen it."""
    from os_brick.initiator.connectors import nvmeof

    if not NVME_CORE.exists():
        load_module("nvme-core")
    connector = nvmeof.NVMeOFConnector
    connector.native_multipath_supported = connector._is_native_multipath_supported()


def load_module(name: str) -> None:
    """Of the kernel; where that cannot be, whoever needs it says so."""
    try:
        subprocess.run(
            ["modprobe", name], capture_output=True, timeout=MODPROBE_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        LOG.warning("the kernel's module %s was not loaded: %s", name, error)


def os_brick_properties(**options: Any) -> Mapping[str, Any]:
    """What os-brick knows about this host's initiators."""
    from os_brick.initiator import connector

    if options.get("multipath"):
        _look_for_native_multipath()
    found: Mapping[str, Any] = connector.get_connector_properties("", **options)
    return found


def spare_what_is_here(connector: Any) -> None:
    """For a connect: what it leaves when it fails is its caller's, who asks first who uses it.

    By itself os-brick takes away, by force, whatever is at the volume's address then: also what was
    there before, and has a guest on it that only waits for its paths to come back."""
    for cleanup in CLEANUPS_OF_A_FAILED_CONNECT:
        if hasattr(connector, cleanup):
            setattr(connector, cleanup, _leave_it)


CLEANUPS_OF_A_FAILED_CONNECT = ("_cleanup_connection", "_try_disconnect_all")
"""Of os-brick's iSCSI and NVMe connectors; it has no public way to do without."""


def keep_to_the_target(connector: Any, iqn: str) -> None:
    """For a connect by one portal over all paths: of what the portal tells (sendtargets) the one
    target that the request names.

    By itself os-brick logs in to every target that the portal tells of, where not all of them are
    at the same portals, and takes whatever has the LUN there for the volume."""
    discover = connector._discover_iscsi_portals

    def ways(properties: dict[str, Any]) -> list[tuple[Any, ...]]:
        told = discover(properties)
        named = [way for way in told if way[1] == iqn]
        if others := sorted({way[1] for way in told} - {iqn}):
            LOG.info("of what the portal tells only %s is used, and not %s", iqn, ", ".join(others))
        return named or [tuple(properties[f"target_{part}"] for part in ("portal", "iqn", "lun"))]

    connector._discover_iscsi_portals = ways


def _leave_it(*_about: object, **_how: object) -> None:
    pass


def remove_scsi_devices(names: Sequence[str], execute: Callable[..., Any]) -> None:
    """Flush and remove devices by their kernel names (sdb), and the multipath map on them.

    Raises what os-brick raises. The caller holds os-brick's lock of the host."""
    from os_brick.initiator import linuxscsi

    linuxscsi.LinuxSCSI("", execute=execute).remove_connection(set(names))


def settle_udev() -> None:
    """Returns once udev has handled what the kernel told it so far, or after UDEV_SECONDS."""
    try:
        subprocess.run(
            ["udevadm", "settle", f"--timeout={UDEV_SECONDS}"],
            capture_output=True,
            timeout=UDEV_SECONDS + 5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        LOG.warning("udev was not waited for: %s", error)
