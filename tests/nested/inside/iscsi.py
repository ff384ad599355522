"""iSCSI targets of LIO, on this machine's own loopback, by configfs.

Documentation/target/ of the kernel; the tree is what targetcli writes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.nested.inside.leftovers import run
from tests.nested.inside.stored import StoredVolume

CORE = Path("/sys/kernel/config/target/core")
FABRIC = Path("/sys/kernel/config/target/iscsi")

RESERVATIONS = Path("/var/target/pr")
"""Where LIO keeps those that are to outlive a power loss, as a guest's are (APTPL)."""

PORTAL = "127.0.0.1:3260"
SECOND_PORTAL = "127.0.0.2:3260"


@dataclass
class Backing(StoredVolume):
    """What a target shows as a LUN; ``wwn`` is what the device will say of itself."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.core = self._show("fileio_0")
        self._late: Path | None = None

    @property
    def wwn(self) -> str:
        """NAA 6, LIO's company id, and the first digits of the serial."""
        return f"6001405{self.volume_id.replace('-', '')[:25]}"

    def late_node(self) -> Path:
        """The same volume by another node of the array, which learns of a new size by itself."""
        self._late = self._show("fileio_1")
        return self._late

    def grow(self, size_mib: int) -> None:
        super().grow(size_mib)
        self._tell_size(self.core)

    def late_node_learns(self) -> None:
        assert self._late is not None
        self._tell_size(self._late)

    def close(self) -> None:
        self.core.rmdir()
        if self._late is not None:
            self._late.rmdir()
        super().close()

    def _show(self, adapter: str) -> Path:
        core = CORE / adapter / self.volume_id
        core.mkdir(parents=True)
        (core / "control").write_text(f"fd_dev_name={self.file}")
        self._tell_size(core)
        (core / "wwn/vpd_unit_serial").write_text(self.volume_id)
        RESERVATIONS.mkdir(parents=True, exist_ok=True)
        (core / "enable").write_text("1")
        return core

    def _tell_size(self, core: Path) -> None:
        (core / "control").write_text(f"fd_dev_size={self.size_bytes}")


class Target:
    """One target. ``portals`` are where it listens; ``chap`` (user, password) is asked for."""

    def __init__(
        self, name: str, *, portals: Sequence[str] = (PORTAL,), chap: tuple[str, str] | None = None
    ) -> None:
        self.iqn = f"iqn.2026-01.org.example:{name}"
        self.portals = list(portals)
        self.chap = chap
        self.luns: dict[int, Backing] = {}
        self._group = FABRIC / self.iqn / "tpgt_1"
        self._group.mkdir(parents=True)
        settings = {
            "generate_node_acls": 1,
            "demo_mode_write_protect": 0,
            "cache_dynamic_acls": 1,
            "authentication": int(chap is not None),
        }
        for attribute, value in settings.items():
            (self._group / "attrib" / attribute).write_text(str(value))
        if chap is not None:
            (self._group / "auth/userid").write_text(chap[0])
            (self._group / "auth/password").write_text(chap[1])
        for portal in portals:
            (self._group / "np" / portal).mkdir()
        self.enable(True)

    def enable(self, on: bool) -> None:
        (self._group / "enable").write_text(str(int(on)))

    def protect(self) -> None:
        """Who logs in from now on may only read."""
        (self._group / "attrib/demo_mode_write_protect").write_text("1")

    def map(self, lun: int, backing: Backing, node: Path | None = None) -> None:
        """Show it; also in place of another, as an array does that gives a number again.

        ``node``: of the array, ``backing.core`` unless it is given."""
        place = self._group / "lun" / f"lun_{lun}"
        place.mkdir()
        (place / backing.volume_id).symlink_to(node or backing.core)
        self.luns[lun] = backing

    def unmap(self, lun: int) -> None:
        backing = self.luns.pop(lun)
        place = self._group / "lun" / f"lun_{lun}"
        (place / backing.volume_id).unlink()
        place.rmdir()

    def connection_info(self, lun: int, *, multipath: bool = False, **more: Any) -> dict[str, Any]:
        """As the wire has it; the lists are what the volume service gives for several portals."""
        data: dict[str, Any] = {
            "target_discovered": False,
            "target_portal": self.portals[0],
            "target_iqn": self.iqn,
            "target_lun": lun,
            "access_mode": "rw",
        }
        if multipath:
            data["target_portals"] = self.portals
            data["target_iqns"] = [self.iqn] * len(self.portals)
            data["target_luns"] = [lun] * len(self.portals)
        if self.chap is not None:
            data["auth_method"] = "CHAP"
            data["auth_username"], data["auth_password"] = self.chap
        return {"driver_volume_type": "iscsi", "data": {**data, **more}}

    def close(self) -> None:
        """Everybody must have logged out."""
        self.enable(False)
        for lun in list(self.luns):
            self.unmap(lun)
        for portal in (self._group / "np").iterdir():
            portal.rmdir()
        for acl in (self._group / "acls").iterdir():
            acl.rmdir()
        self._group.rmdir()
        self._group.parent.rmdir()


def log_out_of_everything() -> None:
    """After a test that failed."""
    run("iscsiadm", "-m", "node", "-u", check=False)
    run("iscsiadm", "-m", "node", "-o", "delete", check=False)
    run("multipath", "-F", check=False)


class Firewall:
    """Traffic to a portal vanishes (``drop``) or is refused at once (``reject``)."""

    def __init__(self) -> None:
        run("nft", "add", "table", "ip", "lab")
        run("nft", "add", "chain", "ip", "lab", "out", "{ type filter hook output priority 0 ; }")

    def drop(self, portal: str) -> None:
        self._rule(portal, "drop")

    def reject(self, portal: str) -> None:
        self._rule(portal, "reject with tcp reset")

    def _rule(self, portal: str, verdict: str) -> None:
        address, port = portal.split(":")
        rule = f"ip daddr {address} tcp dport {port} {verdict}"
        run("nft", "add", "rule", "ip", "lab", "out", *rule.split())

    def open(self) -> None:
        run("nft", "flush", "chain", "ip", "lab", "out")

    def close(self) -> None:
        run("nft", "delete", "table", "ip", "lab")


class SlowPortal:
    """Packets to this portal's address take so much longer, those to other addresses do not."""

    def __init__(self, portal: str, milliseconds: int) -> None:
        self._address = portal.split(":")[0]
        self._milliseconds = milliseconds

    def __enter__(self) -> Self:
        tc = ("tc", "qdisc", "add", "dev", "lo")
        run(*tc, "root", "handle", "1:", "prio", "priomap", *["1"] * 16)
        run(*tc, "parent", "1:1", "handle", "10:", "netem", "delay", f"{self._milliseconds}ms")
        match = ("u32", "match", "ip", "dst", f"{self._address}/32", "flowid", "1:1")
        run("tc", "filter", "add", "dev", "lo", "parent", "1:", "protocol", "ip", *match)
        return self

    def __exit__(self, *_: object) -> None:
        run("tc", "qdisc", "del", "dev", "lo", "root")
