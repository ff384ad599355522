"""A /dev and a /sys of a host that has what a test says: files and links below one directory.

A device node is a file that holds its number; everything else is as the kernel and udev lay it
out.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from agent.host.block_devices import BlockDevices
from agent.host.far_files import FarFiles

SCSI_SERIAL_PAGE = b"\x00\x80\x00"
"""VPD page 0x80 up to its length."""


def number_in(path: Path) -> str | None:
    """What stat is to a real node."""
    text = path.read_text(errors="replace") if path.stat().st_size < 16 else ""
    return text if text.replace(":", "").isdigit() else None


class DeviceTree:
    def __init__(self, root: Path) -> None:
        self.dev = root / "dev"
        self.sys = root / "sys"
        for directory in ("dev/disk/by-id", "sys/class/block", "sys/dev/block"):
            (root / directory).mkdir(parents=True)
        self.mountinfo = root / "mountinfo"
        self.mountinfo.touch()
        self.proc = root / "proc"
        far = FarFiles(self.mountinfo)
        self.devices = BlockDevices(self.dev, self.sys, number_in, far, self.proc)

    def add(
        self,
        name: str,
        number: str,
        attributes: Mapping[str, str | bytes],
        *,
        by_id: Sequence[str] = (),
        slaves: Sequence[str] = (),
        below: str = "class/block",
        mib: int = 64,
    ) -> str:
        """The path of the node. ``attributes``: contents by path below its sysfs directory."""
        facts = self.sys / below / name
        given = {
            "dev": number,
            "uevent": f"DEVNAME={name}\nDEVTYPE=disk\n",
            "size": str(mib * 2048),
            "ro": "0",
        }
        for attribute, content in {**given, **attributes}.items():
            file = facts / attribute
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content if isinstance(content, bytes) else f"{content}\n".encode())
        named = self.sys / "class" / "block" / name
        if not named.exists():
            named.symlink_to(facts)
        (self.sys / "dev" / "block" / number).symlink_to(named)
        for slave in slaves:
            self._relate(name, slave)
        node = self.dev / name
        node.write_text(number)
        for link in by_id:
            self.link(f"disk/by-id/{link}", name)
        return str(node)

    def mount(self, number: str, where: str) -> None:
        """By this host itself."""
        table = self.proc / "self" / "mountinfo"
        table.parent.mkdir(parents=True, exist_ok=True)
        table.write_text(f"30 1 {number} / {where} rw,relatime shared:1 - xfs /dev/x rw\n")

    def _relate(self, name: str, slave: str) -> None:
        block = self.sys / "class" / "block"
        for directory, other in (
            (block / name / "slaves", slave),
            (block / slave / "holders", name),
        ):
            directory.mkdir(exist_ok=True)
            (directory / other).symlink_to(block / other)

    def scsi(
        self,
        name: str,
        number: str,
        wwn: str,
        *,
        serial: str = "",
        state: str = "running",
        by_id: Sequence[str] = (),
        session: int | None = None,
        lun: int = 0,
    ) -> str:
        """``session``: it came by that iSCSI session."""
        page = SCSI_SERIAL_PAGE + bytes([len(serial)]) + serial.encode()
        return self.add(
            name,
            number,
            {
                "device/wwid": f"naa.{wwn}",
                "device/vpd_pg80": page if serial else b"",
                "device/state": state,
                "device/scsi_level": "7",
                "device/rescan": "",
            },
            by_id=by_id,
            below="class/block"
            if session is None
            else f"devices/platform/host3/session{session}/target3:0:0/3:0:0:{lun}/block",
        )

    def session(self, number: int, ip: str, iqn: str) -> None:
        """An iSCSI session and its one connection."""
        for kind, name, attributes in (
            ("iscsi_session", f"session{number}", {"targetname": iqn}),
            (
                "iscsi_connection",
                f"connection{number}:0",
                {"persistent_address": ip, "persistent_port": "3260"},
            ),
        ):
            directory = self.sys / "class" / kind / name
            directory.mkdir(parents=True, exist_ok=True)
            for attribute, content in attributes.items():
                (directory / attribute).write_text(f"{content}\n")
        link = self.sys / "class/iscsi_session" / f"session{number}" / "device"
        link.symlink_to(self.sys / f"devices/platform/host3/session{number}")

    def fc_host(self, number: int, port: str, sees: Sequence[str]) -> None:
        """A port of this host, and those of the storage that it has found."""
        names = {f"fc_host/host{number}": port}
        names |= {f"fc_remote_ports/rport-{number}:0-{at}": seen for at, seen in enumerate(sees)}
        for place, name in names.items():
            directory = self.sys / "class" / place
            directory.mkdir(parents=True, exist_ok=True)
            (directory / "port_name").write_text(f"0x{name}\n")

    def add_path(self, name: str, slave: str) -> None:
        """multipathd puts a path into a map."""
        self._relate(name, slave)

    def multipath(self, name: str, number: str, wwn: str, slaves: Sequence[str]) -> str:
        return self.add(
            name,
            number,
            {"dm/uuid": f"mpath-3{wwn}", "dm/name": "mpatha"},
            by_id=(f"dm-uuid-mpath-3{wwn}", f"wwn-0x{wwn}"),
            slaves=slaves,
        )

    def nvme(
        self,
        name: str,
        number: str,
        *,
        nguid: str = "00000000-0000-0000-0000-000000000000",
        uuid: str,
        controllers: Mapping[str, str],
    ) -> str:
        """A namespace of a subsystem with these controllers ({name: state})."""
        subsystem = "devices/virtual/nvme-subsystem/nvme-subsys0"
        node = self.add(
            name,
            number,
            {"nguid": nguid, "uuid": uuid, "wwid": f"uuid.{uuid}", "device/serial": "shared"},
            by_id=(f"nvme-uuid.{uuid}",),
            below=subsystem,
        )
        for controller, state in controllers.items():
            directory = self.sys / subsystem / controller
            directory.mkdir(exist_ok=True)
            (directory / "state").write_text(f"{state}\n")
            if state == "live":
                self.nvme_path(controller, name)
        return node

    def nvme_path(self, controller: str, name: str, **attributes: str) -> None:
        """The controller shows the namespace: nvme0c1n1 is what nvme1 has of nvme0n1."""
        subsystem, namespace = name.removeprefix("nvme").split("n")
        path = f"nvme{subsystem}c{controller.removeprefix('nvme')}n{namespace}"
        place = self.sys / "devices/virtual/nvme-subsystem/nvme-subsys0" / controller / path
        place.mkdir(exist_ok=True)
        for attribute, content in attributes.items():
            (place / attribute).write_text(f"{content}\n")

    def nvme_address(self, controller: str, ip: str, port: int) -> None:
        directory = self.sys / "devices/virtual/nvme-subsystem/nvme-subsys0" / controller
        (directory / "address").write_text(f"traddr={ip},trsvcid={port},src_addr=192.0.2.7\n")

    def fabric_controller(
        self, name: str, nqn: str, portal: str, shows: Mapping[str, str] = {}
    ) -> None:
        """A controller that nvme(4) made; ``shows``: {path of a namespace: its uuid}, and by the
        path's last number it has its id."""
        directory = self.sys / "class/nvme-fabrics/ctl" / name
        address, port = portal.split(":")
        texts = {"subsysnqn": nqn, "state": "live"}
        texts["address"] = f"traddr={address},trsvcid={port}"
        texts |= {f"{path}/uuid": uuid for path, uuid in shows.items()}
        texts |= {f"{path}/nsid": path.rpartition("n")[2] for path in shows}
        for attribute, content in texts.items():
            (directory / attribute).parent.mkdir(parents=True, exist_ok=True)
            (directory / attribute).write_text(f"{content}\n")

    def loop(self, name: str, number: str, backing_file: Path) -> str:
        return self.add(name, number, {"loop/backing_file": str(backing_file), "loop/offset": "0"})

    def link(self, link: str, name: str) -> str:
        """/dev/<link> means /dev/<name> from now on."""
        path = self.dev / link
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(os.path.relpath(self.dev / name, path.parent))
        return str(path)

    def remove(self, name: str) -> None:
        """The device goes; links of udev's to it go too."""
        number = (self.dev / name).read_text()
        for link in (self.dev / "disk" / "by-id").iterdir():
            if link.resolve() == self.dev / name:
                link.unlink()
        (self.dev / name).unlink()
        (self.sys / "dev" / "block" / number).unlink()
        facts = self.sys / "class" / "block" / name
        for built_on_it in (facts / "holders").glob("*"):
            (built_on_it / "slaves" / name).unlink(missing_ok=True)
        for beneath in (facts / "slaves").glob("*"):
            (beneath / "holders" / name).unlink(missing_ok=True)
        shutil.rmtree(facts.resolve())
        facts.unlink(missing_ok=True)
