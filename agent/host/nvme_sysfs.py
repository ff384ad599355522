"""NVMe over fabrics, by the kernel's word.

/sys/class/nvme-fabrics/ctl/nvme1/              a controller: one connection, by one portal
├── subsysnqn, state, address                   traddr=192.0.2.20,trsvcid=4420
└── nvme0c1n2/                                  its path of the namespace nvme0n2
/sys/devices/virtual/nvme-subsystem/nvme-subsys0/
├── nvme1 -> …                                  the subsystem's controllers
└── nvme0n2                                     a namespace, whatever leads to it (native multipath)
"""

from dataclasses import dataclass
from pathlib import Path

from agent.host.sysfs import entries, text


@dataclass(frozen=True)
class Controller:
    """``name`` as nvme1; ``way``: its portal; ``namespaces``: where in sysfs what it shows is."""

    name: str
    way: str | None
    is_live: bool
    namespaces: tuple[Path, ...]


def controllers(sys: Path, nqn: str) -> list[Controller]:
    """Of this subsystem, live or not."""
    return [
        Controller(path.name, portal_of(path), _is_live(path), tuple(sorted(path.glob("nvme*n*"))))
        for path in entries(sys / "class" / "nvme-fabrics" / "ctl")
        if text(path, "subsysnqn") == nqn
    ]


def portal_of(controller: Path) -> str | None:
    """None: it is no controller, or none of fabrics."""
    address = dict(part.partition("=")[::2] for part in text(controller, "address").split(","))
    return f"{address['traddr']}:{address.get('trsvcid', '')}" if "traddr" in address else None


def working_paths(namespace: Path) -> list[Path] | None:
    """The live controllers that show it; None: it is no namespace of a subsystem. A way that the
    array has closed for now (ANA) counts, as a SCSI path on standby does."""
    if not namespace.parent.name.startswith("nvme-subsys"):
        return None
    subsystem, _, number = namespace.name.removeprefix("nvme").partition("n")
    return [
        controller
        for controller in entries(namespace.parent)
        if _is_live(controller) and any(controller.glob(f"nvme{subsystem}c*n{number}"))
    ]


def _is_live(controller: Path) -> bool:
    return text(controller, "state") == "live"
