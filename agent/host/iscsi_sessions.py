"""The iSCSI sessions of this host, by the kernel's word.

/sys/class/
├── iscsi_session/session7/
│   ├── targetname                    iqn.2010-10.org.openstack:volume-1
│   └── device/target3:0:0/3:0:0:1/block/sdb        what it shows
└── iscsi_connection/connection7:0/
    └── persistent_address            192.0.2.20; persistent_port 3260

A portal has no brackets here; iscsiadm(8) writes them around an IPv6 address.
"""

from pathlib import Path

from agent.host.sysfs import entries, text


def portal_and_iqn(classes: Path, number: str) -> tuple[str, str]:
    connection = classes / "iscsi_connection" / f"connection{number}:0"
    portal = ":".join(text(connection, f"persistent_{part}") for part in ("address", "port"))
    return portal, text(_session(classes, number), "targetname")


def sessions(classes: Path) -> dict[str, tuple[str, str]]:
    """{number: (portal, IQN)}"""
    numbers = [entry.name.removeprefix("session") for entry in entries(classes / "iscsi_session")]
    return {number: portal_and_iqn(classes, number) for number in numbers}


def empty_sessions(classes: Path) -> dict[str, tuple[str, str]]:
    """As sessions, of those without a block device: by that os-brick logs out of a target, too."""
    return {
        number: way
        for number, way in sessions(classes).items()
        if not any((_session(classes, number) / "device").glob("target*/*:*:*:*/block/*"))
    }


def _session(classes: Path, number: str) -> Path:
    return classes / "iscsi_session" / f"session{number}"
