"""The options of the configuration file, and the frozen Settings that they become.

Read once, by the composition root; everything else is given what it needs. A sample with every
option is made by ``oslo-config-generator`` (etc/attachment-agent.conf.sample).
"""

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oslo_config import cfg
from oslo_utils import netutils

from agent.errors import Invalid

MOUNT_POINT_BASE = "/var/lib/attachment-agent-mnt"

DEFAULT_OPTS = [
    cfg.HostAddressOpt(
        "host",
        default=socket.gethostname(),
        sample_default="the machine's host name",
        help="Name of this hypervisor on the bus: the server that orchestrators address, and "
        "`host` in every notification. Must not change while attachments exist.",
    ),
    cfg.StrOpt(
        "state_path",
        default="/var/lib/attachment-agent",
        help="Directory of the journal and of the agent's own lock files. Must be on a disk that "
        "survives power loss: what the agent has accepted is there and nowhere else.",
    ),
    cfg.IntOpt(
        "max_open_operations",
        default=4096,
        min=1,
        help="How many operations may be open at once; more are refused with `queue-full`.",
    ),
    cfg.IntOpt(
        "stop_seconds",
        default=10,
        min=1,
        help="How long a stop may take: for steps that are under way, answers, notifications. What "
        "has not ended then is taken up by the next start, as after a crash.",
    ),
]

JOURNAL_OPTS = [
    cfg.IntOpt(
        "retention_seconds",
        default=30 * 86400,
        min=60,
        help="How long a closed operation is kept, and with it the answer to a replay of its "
        "request. Also how far ahead `not_after` of a request may be.",
    ),
]

LIBVIRT_OPTS = [
    cfg.StrOpt("uri", default="qemu:///system", help="Where libvirt of this host is reached."),
    cfg.IntOpt(
        "call_timeout_seconds",
        default=60,
        min=31,
        help="How long one call may take before its connection is given up. libvirt itself "
        "waits 30 seconds for a domain that another call occupies.",
    ),
    cfg.FloatOpt(
        "retry_seconds",
        default=2.0,
        min=0.1,
        help="How soon an operation looks again at a libvirt that did not answer.",
    ),
    cfg.FloatOpt(
        "unplug_retry_seconds",
        default=60.0,
        min=1.0,
        help="How often a guest that does not let go of a disk is asked again, after the first "
        "minute. An event from the guest is acted on at once whatever this says.",
    ),
    cfg.FloatOpt(
        "copy_stall_seconds",
        default=600.0,
        min=10.0,
        help="A swap whose copy has not come a byte further for so long is undone: the guest stays "
        "on its old volume.",
    ),
]

STORAGE_OPTS = [
    cfg.HostAddressOpt(
        "my_ip",
        default=netutils.get_my_ipv4(),
        sample_default="the address that the default route leaves by",
        help="Address of this host on the storage network, as get_connector tells it. Volume "
        "services export to it (NFS) or log it: set it where storage has a network of its own.",
    ),
    cfg.BoolOpt(
        "use_multipath",
        default=False,
        help="Connect iSCSI and Fibre Channel volumes over all their paths (needs multipathd).",
    ),
    cfg.BoolOpt(
        "enforce_multipath",
        default=True,
        help="With use_multipath: refuse to connect while multipathd does not run, rather than "
        "use a single path.",
    ),
    cfg.IntOpt(
        "device_scan_attempts",
        default=1,
        min=1,
        help="How often os-brick rescans for a LUN that does not show. It waits longer each "
        "time, and no other SCSI volume of the host is connected meanwhile: 42 s in all for 1, "
        "165 s for 3, 420 s for 5. Of Fibre Channel five at least, two seconds each.",
    ),
    cfg.StrOpt(
        "nfs_mount_point_base",
        default=MOUNT_POINT_BASE,
        help="Below it NFS exports are mounted. QEMU opens files there as a user of its own: not "
        "below state_path, which is closed to it. No symbolic link may be part of it: the kernel "
        "names its mounts by what is behind one, and guests' disks would not.",
    ),
    cfg.StrOpt("nfs_mount_options", default="", help="Options of every NFS mount, without the -o."),
    cfg.FloatOpt(
        "lock_timeout_seconds",
        default=600.0,
        min=1.0,
        help="How long an operation waits for the lock of a volume or target before it steps "
        "back and tries again later. `attachctl locks` shows holders and waiters.",
    ),
]

RECONNECT_OPTS = [
    cfg.FloatOpt(
        "volume_seconds",
        default=60.0,
        min=1.0,
        help="After a power loss, before guests start: how long one volume may take to come "
        "back. What takes longer is ended and left to the agent.",
    ),
    cfg.FloatOpt(
        "total_seconds",
        default=300.0,
        min=1.0,
        help="How long all of them may take together, and hold up libvirt. TimeoutStartSec= of "
        "attachment-agent-reconnect.service must be longer.",
    ),
]

LOCAL_OPTS = [
    cfg.ListOpt(
        "allowed_paths",
        default=[],
        help="Directories below which (links resolved) a `local` volume's device must be, for "
        "example /dev/drbd,/dev/vg-volumes. Empty: no local volume is attached. Whoever may "
        "send requests may hand every device below them to a guest.",
    ),
]

ENCRYPTION_OPTS = [
    cfg.ListOpt(
        "secret_directories",
        default=[],
        help="Directories below which (links resolved) `encryption.secret_file` of a request must "
        "be: for example the agent's systemd credentials, "
        "/run/credentials/attachment-agent.service. Empty: passphrases come in requests only. "
        "A file there must be the agent's user's or root's, and closed to others.",
    ),
]

MULTIATTACH_OPTS = [
    cfg.BoolOpt("enabled", default=True, help="Attach volumes that several guests may share."),
    cfg.BoolOpt(
        "bootable",
        default=True,
        help="Attach shared volumes that guests boot from (disk.boot_order).",
    ),
]

METRICS_OPTS = [
    cfg.PortOpt(
        "port",
        help="Where Prometheus may scrape http://address:port/metrics. Not set: nowhere.",
    ),
    cfg.HostAddressOpt(
        "address",
        default="127.0.0.1",
        help="Address to listen on for Prometheus. There is no authentication: keep it local, "
        "or on a network of the operators.",
    ),
]

OPTIONS = {
    "DEFAULT": DEFAULT_OPTS,
    "journal": JOURNAL_OPTS,
    "libvirt": LIBVIRT_OPTS,
    "storage": STORAGE_OPTS,
    "reconnect": RECONNECT_OPTS,
    "local": LOCAL_OPTS,
    "encryption": ENCRYPTION_OPTS,
    "multiattach": MULTIATTACH_OPTS,
    "metrics": METRICS_OPTS,
}


@dataclass(frozen=True)
class Settings:
    """What the configuration says, checked."""

    host: str
    state_path: Path
    max_open_operations: int
    stop_seconds: float
    retention_seconds: float
    libvirt_uri: str
    libvirt_call_timeout_seconds: float
    libvirt_retry_seconds: float
    unplug_retry_seconds: float
    copy_stall_seconds: float
    my_ip: str
    use_multipath: bool
    enforce_multipath: bool
    device_scan_attempts: int
    nfs_mount_point_base: str
    nfs_mount_options: str
    lock_timeout_seconds: float
    reconnect_volume_seconds: float
    reconnect_total_seconds: float
    local_allowed_paths: tuple[str, ...]
    secret_directories: tuple[str, ...]
    multiattach: bool
    bootable_multiattach: bool
    metrics_address: str
    metrics_port: int | None


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """For oslo-config-generator."""
    return list(OPTIONS.items())


def register(conf: Any) -> None:
    for group, options in OPTIONS.items():
        conf.register_opts(options, None if group == "DEFAULT" else group)


def warnings(settings: Settings) -> list[str]:
    """What is valid, and hardly what the operator wants."""
    if settings.my_ip not in ("localhost", "::1") and not settings.my_ip.startswith("127."):
        return []
    return [
        f"[storage] my_ip is {settings.my_ip}, and get_connector tells it to the volume service, "
        "which cannot reach this host there (exports of NFS, lists of allowed hosts): set it to "
        "this host's address on the storage network"
    ]


def settings(conf: Any) -> Settings:
    """Of a ``conf`` that was registered and called.  Raises Invalid."""
    allowed = _absolute("[local] allowed_paths", conf.local.allowed_paths)
    secrets = _absolute("[encryption] secret_directories", conf.encryption.secret_directories)
    return Settings(
        host=conf.host,
        state_path=Path(conf.state_path),
        max_open_operations=conf.max_open_operations,
        stop_seconds=conf.stop_seconds,
        retention_seconds=conf.journal.retention_seconds,
        libvirt_uri=conf.libvirt.uri,
        libvirt_call_timeout_seconds=conf.libvirt.call_timeout_seconds,
        libvirt_retry_seconds=conf.libvirt.retry_seconds,
        unplug_retry_seconds=conf.libvirt.unplug_retry_seconds,
        copy_stall_seconds=conf.libvirt.copy_stall_seconds,
        my_ip=conf.storage.my_ip,
        use_multipath=conf.storage.use_multipath,
        enforce_multipath=conf.storage.enforce_multipath,
        device_scan_attempts=conf.storage.device_scan_attempts,
        nfs_mount_point_base=_mount_point_base(conf.storage.nfs_mount_point_base),
        nfs_mount_options=conf.storage.nfs_mount_options,
        lock_timeout_seconds=conf.storage.lock_timeout_seconds,
        reconnect_volume_seconds=conf.reconnect.volume_seconds,
        reconnect_total_seconds=conf.reconnect.total_seconds,
        local_allowed_paths=allowed,
        secret_directories=secrets,
        multiattach=conf.multiattach.enabled,
        bootable_multiattach=conf.multiattach.bootable,
        metrics_address=conf.metrics.address,
        metrics_port=conf.metrics.port,
    )


def _mount_point_base(given: str) -> str:
    """As it is named in definitions, and in the kernel's table of mounts."""
    option = "[storage] nfs_mount_point_base"
    (path,) = _absolute(option, [os.path.normpath(given)])
    real = os.path.realpath(path)
    if path == MOUNT_POINT_BASE and not _has_entries(real):  # nobody has chosen it, or needs it
        return real
    if real != path:
        raise Invalid(
            f"{option}: {path} leads to {real}, and by that the kernel names what is mounted: no "
            f"export would be found again; nothing was touched: set it to {real}, or, where "
            "guests have disks below it, replace the link by a bind mount"
        )
    return path


def _has_entries(directory: str) -> bool:
    try:
        return bool(os.listdir(directory))
    except OSError:
        return False


def _absolute(option: str, paths: list[str]) -> tuple[str, ...]:
    for path in paths:
        if not path.startswith("/"):
            raise Invalid(f"{option}: {path} is not an absolute path")
    return tuple(paths)
