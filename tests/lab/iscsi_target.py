"""An iSCSI target without the kernel: tgtd, where the guests' QEMUs run.

It is reached from inside the hypervisor's network alone, so only by QEMU's own initiators.
"""

from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.lab.enclosure import Enclosure, Inside
from tests.lab.patience import LabError, wait_until

PORTAL = "127.0.0.1:3260"

LUN = 1
"""tgtd keeps 0 for itself."""


class IscsiTarget:
    """One target with one volume, who asks everybody for the same password."""

    def __init__(self, enclosure: Enclosure, directory: Path, volume_id: str) -> None:
        self.volume_id = volume_id
        self.iqn = f"iqn.2026-01.org.example:{volume_id}"
        self.chap = ("user", "secret-of-chap")
        self.size_bytes = 64 << 20
        self.file = directory / f"{volume_id}.lun"
        self._socket = directory / "tgtd"
        self._enclosure = enclosure
        self._daemon: Inside | None = None

    def __enter__(self) -> Self:
        with self.file.open("xb") as file:
            file.truncate(self.size_bytes)
        self._enclosure.run(["ip", "link", "set", "lo", "up"])
        self._daemon = self._enclosure.start(
            [*self._own, "tgtd", "--foreground", "--iscsi", f"portal={PORTAL}"]
        )
        wait_until(self._answers, "tgtd answers", seconds=20)
        user, password = self.chap
        self._admin("new", "target", "--targetname", self.iqn)
        self._admin(
            *("new", "logicalunit", "--lun", str(LUN), "--backing-store", str(self.file)),
        )
        serial = f"scsi_sn={self.volume_id}"
        self._admin("update", "logicalunit", "--lun", str(LUN), "--params", serial)
        self._admin("new", "account", "--user", user, "--password", password, target=False)
        self._admin("bind", "account", "--user", user)
        self._admin("bind", "target", "--initiator-address", "ALL")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._daemon is not None:
            self._daemon.kill()
        self.file.unlink()

    def connection_info(self) -> dict[str, Any]:
        user, password = self.chap
        data = {
            "target_portal": PORTAL,
            "target_iqn": self.iqn,
            "target_lun": LUN,
            "auth_method": "CHAP",
            "auth_username": user,
            "auth_password": password,
        }
        return {"driver_volume_type": "iscsi", "data": data}

    def initiators(self) -> set[str]:
        """Who is logged in."""
        shown = self._admin("show", "target", target=False)
        return {line.split()[1] for line in shown.splitlines() if "Initiator: " in line}

    @property
    def _own(self) -> list[str]:
        return ["env", f"TGT_IPC_SOCKET={self._socket}"]

    def _answers(self) -> bool:
        assert self._daemon is not None
        if not self._daemon.is_alive():
            raise LabError("tgtd ended at once")
        try:
            self._admin("show", "target", target=False)
        except LabError:
            return False
        return True

    def _admin(self, operation: str, mode: str, *options: str, target: bool = True) -> str:
        which = ["--tid", "1"] if target else []
        return self._enclosure.run(
            [
                *(*self._own, "tgtadm", "--lld", "iscsi", "--op", operation, "--mode", mode),
                *(*which, *options),
            ]
        )
