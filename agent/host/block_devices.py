"""What a block device says of itself, by the kernel's word: a stat, a realpath, files of sysfs.

    /dev/disk/by-id/wwn-0x6001405…      a name that udev keeps
      └▶ /dev/sdb                       a kernel name, good for this moment
           └ 8:16                       what the kernel means by it
              └ /sys/dev/block/8:16/    device/wwid, nguid, dm/uuid, loop/backing_file, size, ro

A path that leads to a network file system is not followed there (far_files).
No subprocess: ``names`` is asked for every disk of every domain. Rejected: udev's database (not
there in a container, and behind after a burst of events), blkid (reads what guests write).
"""

import os
import re
import stat
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.host.fabric import ports_seen
from agent.host.far_files import FarFiles
from agent.host.host_use import built_on, use_by_host
from agent.host.iscsi_sessions import empty_sessions, portal_and_iqn, sessions
from agent.host.nvme_sysfs import Controller, controllers, portal_of, working_paths
from agent.host.sysfs import content, entries, text
from agent.model.device import BACKED, conflict, plain_identity

SECTOR_BYTES = 512
"""sysfs counts in these, whatever the device's own block size (kernel: sysfs-block, size)."""

_GLOBAL = re.compile(r"^(naa|eui|uuid)\.")
"""wwid values that are numbers unique in the world; ``t10.`` and ``nvme.`` only promise it."""

STABLE_NAMES = ("dm-uuid-mpath-", "wwn-0x", "scsi-3", "nvme-uuid.", "nvme-eui.")
"""Prefixes in /dev/disk/by-id, best first. ``wwn-`` and ``scsi-`` of a LUN with several paths mean
the multipath map where there is one (udev link priority)."""

MAKERS_NAMES = ("scsi-", "nvme-nvme.")
"""Of devices without a number that is unique in the world. Not ``nvme-<model>_<serial>``: it is the
subsystem's, and means whichever of its namespaces came last (udev: 60-persistent-storage.rules)."""


def device_number(path: Path) -> str | None:
    """``major:minor`` of a block device; None: it is something else.  Raises OSError."""
    found = path.stat()
    if not stat.S_ISBLK(found.st_mode):
        return None
    return f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"


@dataclass(frozen=True)
class Found:
    """A block device as it is now. ``node`` is its kernel name (/dev/sdb). ``paths`` work, by the
    portals in ``ways`` where the kernel knows them. ``is_map``: a multipath map."""

    node: str
    identity: Mapping[str, str]
    size_bytes: int
    read_only: bool
    scsi: bool
    paths: int
    ways: frozenset[str] = frozenset()
    is_map: bool = False


class BlockDevices:
    """The block devices of this host. ``dev`` and ``sys`` are /dev and /sys; ``far`` tells which
    files may have a server that is away."""

    def __init__(
        self,
        dev: Path = Path("/dev"),
        sys: Path = Path("/sys"),
        number: Callable[[Path], str | None] = device_number,
        far: FarFiles | None = None,
        proc: Path = Path("/proc"),
    ) -> None:
        self._dev = dev
        self._sys = sys
        self._proc = proc
        self._number = number
        self._far = far or FarFiles()

    def names(self, source: str) -> frozenset[str]:
        """Every name of what ``source`` means now. Two that mean the same share one."""
        if not source.startswith("/"):
            return frozenset((source,))
        if far := self._far.names(source):
            return far
        try:
            real = os.path.realpath(source, strict=True)
            number = self._number(Path(real))
            if number is not None:
                return frozenset((source, real, f"block {number}", *self._aliases(number)))
            found = os.stat(real)
        except OSError:  # nothing is there, and nothing else can be the same
            return frozenset((source,))
        return frozenset((source, real, f"file {found.st_dev}:{found.st_ino}"))

    def find(self, identity: Mapping[str, str]) -> str | None:
        """The kernel name of the device with all of this identity; the multipath map if one has it,
        unless that has lost its paths and a path is here.

        None: it is not on this host. ``identity`` is as ``look`` gave it."""
        return min(self.all_of(identity), key=self._rank, default=None)

    def look_for(self, path: str, identity: Mapping[str, str]) -> Found | None:
        """What ``find`` finds; where ``path`` leads to a map or head device with paths that is it,
        nothing else of the host is looked at."""
        named = self.look(path)
        gathers = named is not None and named.paths and (named.is_map or not named.scsi)
        if named and gathers and self.shows(named.identity, named.node, identity):
            return named
        node = self.find(identity)
        return self.look(node) if node else None

    def all_of(self, identity: Mapping[str, str]) -> list[str]:
        """The kernel names of every device with all of this identity: the map, and each path."""
        return [
            node
            for number in self._numbers()
            if (node := self._node(number)) and self._is_it(number, node, identity)
        ]

    def is_empty_map(self, node: str) -> bool:
        """Is it a multipath map that has outlived its paths?"""
        return _is_empty_map(self._block(node))

    def map_name(self, node: str) -> str:
        """What device-mapper calls a map, and its tools take: ``mpatha`` of /dev/dm-3."""
        return text(self._block(node), "dm/name")

    def at(self, pattern: str) -> list[Found]:
        """What is at an address: ``pattern`` of names in /dev/disk/by-path."""
        links = sorted((self._dev / "disk" / "by-path").glob(pattern))
        return [found for link in links if (found := self.look(str(link)))]

    def strangers(self, found: Found) -> list[Found]:
        """Paths of a map that by now say they are another device."""
        paths = _paths(self._block(found.node)) if found.is_map else []
        looks = [self.look(str(self._dev / path.name)) for path in paths]
        return [look for look in looks if look and conflict(look.identity, found.identity)]

    def is_far(self, path: str) -> bool:
        """Is it a file of a network file system? Who touches one may wait for ever."""
        return self._far.hold(path)

    def look(self, path: str) -> Found | None:
        """What is at ``path`` now; None: nothing, or no block device."""
        if self.is_far(path):
            return None
        try:
            real = os.path.realpath(path, strict=True)
            number = self._number(Path(real))
        except OSError:
            return None
        if number is None:
            return None
        facts = self._facts(number)
        node = self._node(number) or real
        return Found(
            node=node,
            identity=self._identity(number, node),
            size_bytes=int(text(facts, "size") or 0) * SECTOR_BYTES,
            read_only=text(facts, "ro") == "1",
            scsi=self._is_scsi(facts),
            paths=len(working := self._working(facts)),
            ways=frozenset(way for path in working if (way := self._way(path))),
            is_map=_is_map(facts),
        )

    def stable_name(self, found: Found, *, is_settled: bool = True) -> str | None:
        """A name of udev's that goes on meaning this device, whatever the kernel calls it.

        udev makes the names of a device one by one: until it has settled a lesser one says nothing,
        for a better one may come."""
        by_id = self._dev / "disk" / "by-id"
        for prefix in (*STABLE_NAMES, *MAKERS_NAMES) if is_settled else STABLE_NAMES:
            for link in sorted(by_id.glob(f"{prefix}*")):
                if os.path.realpath(link) == found.node:
                    return str(link)
                if is_settled and self._is_sibling(link, found):
                    return str(link)
        return None

    def _is_sibling(self, link: Path, found: Found) -> bool:
        """Another path of the same LUN, without multipath: udev gives the name to one of them."""
        numbers = [found.identity[name] for name in ("wwn", "eui64") if name in found.identity]
        if not any(link.name.endswith(number) for number in numbers):
            return False
        meant = self.look(str(link))
        return meant is not None and meant.identity == found.identity

    def ask_again(self, found: Found) -> None:
        """Make the kernel read identity and size anew: it caches them for as long as the device
        is there, and a LUN may have been given to another volume since (CVE-2023-2088)."""
        facts = self._block(found.node)
        for path in (facts, *entries(facts / "slaves")):
            try:
                (path / "device" / "rescan").write_text("1")
            except OSError:  # not SCSI; or a dead path, which then says nothing new
                continue

    def holders(self, node: str) -> tuple[str, ...]:
        """Block devices that are built on this one: their kernel names."""
        return tuple(entry.name for entry in entries(self._block(node) / "holders"))

    def built_on(self, identity: Mapping[str, str]) -> list[str]:
        """As host_use.built_on."""
        return built_on({Path(node).name for node in self.all_of(identity)}, self._sys)

    def use_by_host(self, node: str) -> str | None:
        """As host_use: what this host itself does with the device."""
        return use_by_host(node, self._proc, self._sys)

    def controllers(self, nqn: str) -> list[Controller]:
        """Of this NVMe subsystem, live or not."""
        return controllers(self._sys, nqn)

    def namespace(self, shown: Path) -> Found | None:
        """What a controller shows: nvme0c1n2 is its path of nvme0n2 (kernel: nvme multipath)."""
        return self.look(str(self._dev / re.sub(r"c\d+n", "n", shown.name)))

    def iscsi_ways(self, identity: Mapping[str, str]) -> set[tuple[str, str, int]]:
        """(portal, IQN, LUN) of each path of the device, dead ones too, as iscsiadm writes them."""
        found = set()
        for node in self.all_of(identity):
            place = self._block(node).resolve()
            session = re.search(r"/session(\d+)/.*:(\d+)/block/", str(place))
            if session is not None:
                portal, iqn = portal_and_iqn(self._sys / "class", session[1])
                found.add((_bracketed(portal), iqn, int(session[2])))
        return found

    def iscsi_portals(self, iqn: str) -> set[str]:
        """Of the sessions with this target that are there, as iscsiadm writes them."""
        there = sessions(self._sys / "class").values()
        return {_bracketed(portal) for portal, target in there if target == iqn}

    def empty_sessions(self, ways: Collection[tuple[str, str]]) -> dict[str, tuple[str, str]]:
        """{number: (portal, IQN)} of the iSCSI sessions among these that show nothing; portals as
        iscsiadm writes them."""
        there = empty_sessions(self._sys / "class").items()
        return {
            no: way for no, (portal, iqn) in there if (way := (_bracketed(portal), iqn)) in ways
        }

    def fc_ports(self) -> dict[str, set[str] | None]:
        """As fabric.ports_seen, of this host; empty: it has no Fibre Channel HBA."""
        return ports_seen(self._sys / "class")

    def shows(self, found: Mapping[str, str], node: str, identity: Mapping[str, str]) -> bool:
        """Does the device ``node``, which says ``found`` of itself, show all of this identity?

        A name that is all of it may be a link: it must lead to the device now."""
        if identity.items() <= found.items():
            return True
        name = identity.get("path", "")
        return "path" in found and bool(name and self.names(name) & self.names(node))

    # sysfs

    def _facts(self, number: str) -> Path:
        return Path(f"{self._sys}/dev/block/{number}")

    def _block(self, node: str) -> Path:
        return self._sys / "class" / "block" / Path(node).name

    def _is_it(self, number: str, node: str, identity: Mapping[str, str]) -> bool:
        """Has it all of the identity? A map has lost the serial with its paths: its WWN is all."""
        found = self._identity(number, node)
        if self.shows(found, node, identity):
            return True
        has_the_wwn = "wwn" in found and found["wwn"] == identity.get("wwn")
        return has_the_wwn and _is_empty_map(self._facts(number))

    def _rank(self, node: str) -> int:
        """Among the devices of one identity: what I/O should go by is first."""
        if self.is_empty_map(node):
            return 2
        return 0 if Path(node).name.startswith("dm-") else 1

    def _numbers(self) -> Iterator[str]:
        for entry in entries(self._sys / "class" / "block"):
            number = text(entry, "dev")
            if number and not (entry / "partition").exists():
                yield number

    def _node(self, number: str) -> str | None:
        """From the kernel, since /dev/mapper/x may be a node of its own."""
        for line in text(self._facts(number), "uevent").splitlines():
            if line.startswith("DEVNAME="):
                return str(self._dev / line.removeprefix("DEVNAME="))
        return None

    def _aliases(self, number: str) -> Iterator[str]:
        """What the device is besides its number: a LUN has one for each path, and the map's."""
        facts = self._facts(number)
        wwid = self._wwid(facts)
        if _GLOBAL.match(wwid):
            yield f"wwid {plain_identity(wwid)}"
        backing = self._backing_file(facts)
        if backing and text(facts, "loop/offset") in ("", "0"):
            yield from self.names(backing)

    def _identity(self, number: str, node: str) -> dict[str, str]:
        facts = self._facts(number)
        wwid = self._wwid(facts)
        numbers = {
            "nguid": text(facts, "nguid"),
            "eui64": text(facts, "eui"),
            "uuid": text(facts, "uuid"),
        }
        if not any(_is_number(value) for value in numbers.values()) and _GLOBAL.match(wwid):
            numbers["wwn"] = wwid
        identity = {
            name: plain_identity(value) for name, value in numbers.items() if _is_number(value)
        }
        serial = self._serial(facts)
        if serial:
            identity["serial"] = serial
        mapped = text(facts, "dm/uuid")
        if not identity and mapped:
            identity["uuid"] = mapped  # as LVM writes it, where case counts
        return identity or {"path": self._described(facts, node)}

    def _described(self, facts: Path, node: str) -> str:
        backing = self._backing_file(facts)
        return f"{node}{BACKED}{backing})" if backing else node

    def _backing_file(self, facts: Path) -> str:
        return text(facts, "loop/backing_file")

    def _wwid(self, facts: Path) -> str:
        """As sysfs writes it, also for a multipath map, where 3 stands for NAA and 2 for EUI-64."""
        kind, _, mapped = text(facts, "dm/uuid").partition("-")
        if kind != "mpath":
            return text(facts, "device/wwid") or text(facts, "wwid")
        prefix = {"3": "naa.", "2": "eui."}.get(mapped[:1])
        return f"{prefix}{mapped[1:]}" if prefix else mapped

    def _serial(self, facts: Path) -> str:
        """SCSI's unit serial number, virtio's serial. Not NVMe's: it is the controller's, which
        all its namespaces share. A multipath map's is that of its paths; what else is built on a
        device is not that device."""
        for path in _paths(facts)[:1] if _is_map(facts) else [facts]:
            page = content(path, "device/vpd_pg80")
            if page:
                return page[4:].split(b"\0")[0].decode("ascii", "replace").strip()
        return text(facts, "serial")

    def _is_scsi(self, facts: Path) -> bool:
        """Multipath hands SCSI commands on to a path; other maps do not."""
        paths = _paths(facts) if _is_map(facts) else [facts]
        return bool(paths) and all(text(path, "device/scsi_level") for path in paths)

    def _working(self, facts: Path) -> list[Path]:
        """Paths that work now: of a multipath map, or of an NVMe subsystem's head device."""
        if _is_map(facts):
            return [path for path in _paths(facts) if text(path, "device/state") == "running"]
        by_controllers = working_paths(facts.resolve())
        return [facts] if by_controllers is None else by_controllers

    def _way(self, path: Path) -> str | None:
        """The portal of an NVMe controller, or of the iSCSI session of a SCSI device."""
        if way := portal_of(path):
            return way
        session = re.search(r"/session(\d+)/", str(path.resolve()))
        return session and " ".join(portal_and_iqn(self._sys / "class", session[1]))


def _bracketed(portal: str) -> str:
    address, _, port = portal.rpartition(":")
    return f"[{address}]:{port}" if ":" in address else portal


def _is_map(facts: Path) -> bool:
    return text(facts, "dm/uuid").startswith("mpath-")


def _paths(facts: Path) -> list[Path]:
    """Of a multipath map, working or not."""
    return entries(facts / "slaves")


def _is_empty_map(facts: Path) -> bool:
    return _is_map(facts) and not _paths(facts)


def _is_number(value: str) -> bool:
    """Zeros are how a namespace says that it has none."""
    return bool(plain_identity(value).strip("0"))
