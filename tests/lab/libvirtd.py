"""A private libvirtd, with its guests, that shares nothing with the machine's own.

    <directory>/
        etc/  run/  lib/  log/  cache/    seen inside as /etc/libvirt, /run/libvirt …
        run/libvirt-sock                  the socket: reachable from outside by this path
        log/libvirtd.log                  warnings and errors

The machine's D-Bus and control groups are hidden from it, so that machined and systemd are
not told of guests that are none of theirs. /dev/kvm too, because it may be there and not work:
it is a file that cannot be written. (As /dev/null it would look usable, and libvirt would ask
QEMU for its capabilities anew in every call.) No network: the guests have none, and the
machine's firewall is not libvirtd's business here. One that is a host of its own (Station) has a
link to the other (two_hypervisors.py), and its guests' sockets and consoles are in guests/.
"""

import os
import signal
import threading
import uuid
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import libvirt

from tests.lab.enclosure import Enclosure, Inside
from tests.lab.patience import PATIENCE, LabError, wait_until

_PROGRAM = "/usr/sbin/libvirtd"
_SHARED_CACHE = "libvirt-capabilities"

_QEMU_CONF = """
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
security_default_confined = 0
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
vnc_listen = "127.0.0.1"
set_process_name = 0
"""

_TRAVEL = """
migration_host = "{address}"
migrate_tls_x509_cert_dir = "/etc/libvirt/pki"
"""

# For a station: a link that is cut shows after 4 seconds on either side, instead of 30.
_KEEPALIVE = """
keepalive_interval = 1
keepalive_count = 3
"""

_LIBVIRTD_CONF = """
listen_tls = 0
listen_tcp = {listen_tcp}
auth_tcp = "none"
unix_sock_group = "root"
unix_sock_ro_perms = "0700"
unix_sock_rw_perms = "0700"
auth_unix_ro = "none"
auth_unix_rw = "none"
host_uuid = "{host_uuid}"
log_outputs = "3:file:/var/log/libvirt/libvirtd.log"
"""

_SETUP = """
mkdir -p /run/libvirt /etc/libvirt /var/lib/libvirt /var/log/libvirt /var/cache/libvirt
mount --bind {directory}/etc /etc/libvirt
mount --bind {directory}/run /run/libvirt
mount --bind {directory}/lib /var/lib/libvirt
mount --bind {directory}/log /var/log/libvirt
mount --bind {cache} /var/cache/libvirt
umount --recursive --lazy /sys/fs/cgroup 2> /dev/null || true
if [ -e /dev/kvm ]; then
    : > {directory}/no-kvm
    mount --bind {directory}/no-kvm /dev/kvm
    mount -o remount,bind,ro /dev/kvm
fi
"""

_OWN_GUESTS = """
mount --bind {directory}/guests {guest_directory}
"""


def _drop_message(_context: object, _error: object) -> None:
    """libvirt prints every error by default; ours are raised."""


@dataclass(frozen=True)
class Station:
    """What makes a host of its own of it, to and from which guests go. ``guest_directory`` is the
    same path on each, and another directory."""

    hostname: str
    address: str
    guest_directory: Path


class Libvirtd:
    """libvirtd in namespaces of its own. Guests live on when it is restarted or killed.

    With a ``station`` it takes guests over TCP, and asks nobody who he is: who reaches its network
    is in it (two_hypervisors.py)."""

    def __init__(
        self, directory: Path, *, cache_directory: Path, station: Station | None = None
    ) -> None:
        self.directory = directory
        self.uri = f"qemu+unix:///system?socket={directory}/run/libvirt-sock"
        self.station = station
        self._cache = cache_directory / _SHARED_CACHE
        setup = _SETUP.format(directory=directory, cache=self._cache)
        hostname = None
        if station is not None:
            hostname = station.hostname
            setup += _OWN_GUESTS.format(
                directory=directory, guest_directory=station.guest_directory
            )
        self.enclosure = Enclosure("libvirtd", setup=setup, network=False, hostname=hostname)
        self._daemon: Inside | None = None
        self._connection: libvirt.virConnect | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def open(self) -> None:
        """Make the namespaces and start the daemon; back when it answers."""
        for name in ("etc", "run", "lib", "log", "guests"):
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        self._cache.mkdir(parents=True, exist_ok=True)
        self.pki.mkdir(exist_ok=True)
        (self.directory / "etc" / "qemu.conf").write_text(self._qemu_conf())
        (self.directory / "etc" / "libvirtd.conf").write_text(self._libvirtd_conf())
        libvirt.registerErrorHandler(_drop_message, None)
        self.enclosure.open()
        try:
            self.start()
        except BaseException:
            self.enclosure.close()
            raise

    @property
    def pki(self) -> Path:
        """Where QEMU looks for the certificates of migrations; empty."""
        return self.directory / "etc" / "pki"

    def _qemu_conf(self) -> str:
        if self.station is None:
            return _QEMU_CONF
        return _QEMU_CONF + _TRAVEL.format(address=self.station.address) + _KEEPALIVE

    def _libvirtd_conf(self) -> str:
        conf = _LIBVIRTD_CONF.format(
            host_uuid=uuid.uuid4(), listen_tcp=int(self.station is not None)
        )
        return conf if self.station is None else conf + _KEEPALIVE

    def close(self) -> None:
        """End the daemon and every guest."""
        self._drop_connection()
        if self._daemon is not None and self._daemon.is_alive():
            self._daemon.end(seconds=5)
        self._daemon = None
        self.enclosure.close()

    def start(self) -> None:
        """Start the daemon (again), and wait until it answers."""
        if self._daemon is not None and self._daemon.is_alive():
            raise LabError("libvirtd runs already")
        environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "DBUS_SYSTEM_BUS_ADDRESS": "unix:path=/nonexistent",
        }
        with (self.directory / "log" / "output").open("ab") as output:
            self._daemon = self.enclosure.start(
                # The usual /run/libvirtd.pid is the lock of the machine's own daemon.
                [
                    *(_PROGRAM, "--pid-file", "/run/libvirt/libvirtd.pid"),
                    *(["--listen"] if self.station else []),
                ],
                output=output,
                env=environment,
            )
        wait_until(self._answers, "libvirtd answers", seconds=30)

    def _answers(self) -> bool:
        assert self._daemon is not None
        if not self._daemon.is_alive():
            raise LabError(f"libvirtd ended; its last words:\n{self._last_words()}")
        try:
            self.connection().getLibVersion()
        except libvirt.libvirtError:
            self._drop_connection()
            return False
        return True

    def _last_words(self) -> str:
        texts = (
            (self.directory / "log" / name).read_text(errors="replace")[-2000:]
            for name in ("output", "libvirtd.log")
            if (self.directory / "log" / name).exists()
        )
        return "\n".join(texts)

    def stop(self) -> None:
        """End the daemon in good order; guests run on."""
        assert self._daemon is not None
        self._drop_connection()
        self._daemon.send(signal.SIGTERM)
        self._daemon.wait(seconds=40 * PATIENCE)  # it gives itself 30

    def kill(self) -> None:
        """SIGKILL for the daemon; guests run on."""
        assert self._daemon is not None
        self._daemon.kill()
        self._drop_connection()

    def restart(self) -> None:
        self.stop()
        self.start()

    @property
    def pid(self) -> int:
        assert self._daemon is not None
        return self._daemon.pid

    def connection(self) -> libvirt.virConnect:
        """One connection for all of this process, opened anew when the daemon was restarted."""
        with self._lock:
            if self._connection is None or not self._connection.isAlive():
                self._connection = libvirt.open(self.uri)
            return self._connection

    def outside(self, path: Path) -> Path:
        """Where a file that a guest's QEMU has made is seen from outside."""
        if self.station is None:
            return path
        return self.directory / "guests" / path.relative_to(self.station.guest_directory)

    def _drop_connection(self) -> None:
        with self._lock:
            connection, self._connection = self._connection, None
        del connection  # closed when its last user lets go

    def has(self, instance_id: str) -> bool:
        """A domain of that UUID, whether it runs or not."""
        return instance_id in {d.UUIDString() for d in self.connection().listAllDomains()}

    def guest_pids(self) -> dict[str, int]:
        """QEMU's process id on the outside, by the domain's name."""
        found: dict[str, int] = {}
        namespace = os.readlink(f"/proc/{self.enclosure.first_pid}/ns/pid")
        for process in Path("/proc").iterdir():
            if not process.name.isdigit():
                continue
            try:
                if os.readlink(process / "ns" / "pid") != namespace:
                    continue
                words = (process / "cmdline").read_bytes().split(b"\0")
            except OSError:  # it has just ended
                continue
            if b"-name" in words and b"qemu" in words[0]:
                name = words[words.index(b"-name") + 1].decode()
                found[name.removeprefix("guest=").split(",")[0]] = int(process.name)
        return found
