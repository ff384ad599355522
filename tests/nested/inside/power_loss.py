"""Before a power loss, while the host boots, and after it: run in the hypervisor, a step each.

``python -m tests.nested.inside.power_loss before|storage|after``

Two guests start by themselves. One has a volume over iSCSI on two paths, one over NVMe and a file
over NFS, the other a volume of an array that answers nothing while the host boots. The storage is
this machine's own: a unit makes it anew before anything of the host asks for it.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from oslo_config import cfg

from agent.bus.client import AgentClient, Unreachable
from tests.functional.orchestrator import Orchestrator, Wish
from tests.lab.patience import PATIENCE, wait_until
from tests.nested.inside.agent import CONFIGURATION, Agent
from tests.nested.inside.guests import empty_guest
from tests.nested.inside.iscsi import PORTAL, SECOND_PORTAL, Backing, Firewall, Target
from tests.nested.inside.leftovers import assert_clean, run
from tests.nested.inside.nfs import Export, VolumeFile
from tests.nested.inside.nvme import Namespace, Subsystem
from tests.nested.inside.stored import PLACE as VOLUMES

PLACE = Path("/srv/lab/power-loss.json")
SILENT_PORTAL = "127.0.0.3:3260"
ISCSI, NVME, SILENT, FILE = (f"e{number}000000-0000-4000-8000-000000000000" for number in range(4))
RECONNECT = "attachment-agent-reconnect.service"
DROP_IN = Path(f"/etc/systemd/system/{RECONNECT}.d/time.conf")
OPERATION_SECONDS = 600
BACK_SECONDS = 900
"""After a boot on a machine that is busy with others; the agent's back-off is in it."""
SLACK = 4
"""A volume may take so many times as long to come back as it took to come."""

STORAGE_UNIT = """
[Unit]
Wants=nfs-server.service
After=sys-kernel-config.mount systemd-modules-load.service nfs-server.service
Before=attachment-agent-reconnect.service
[Service]
Type=oneshot
WorkingDirectory=/srv/tests
ExecStart=/opt/tests/bin/python -m tests.nested.inside.power_loss storage
[Install]
WantedBy=multi-user.target
"""


def storage() -> dict[str, dict[str, Any]]:
    """{volume: connection_info}, of the same volumes each time."""
    for volume_id in (ISCSI, NVME, SILENT):
        (VOLUMES / volume_id).unlink(missing_ok=True)
    target = Target("power", portals=[PORTAL, SECOND_PORTAL])
    target.map(3, Backing(ISCSI))
    silent = Target("power-silent", portals=[SILENT_PORTAL])
    silent.map(0, Backing(SILENT))
    subsystem = Subsystem("power")
    subsystem.map(1, Namespace(NVME, nguid=NVME))
    file = VolumeFile(Export("power"), volume_id=FILE)
    return {
        FILE: file.connection_info(),
        ISCSI: target.connection_info(3, multipath=True),
        SILENT: silent.connection_info(0, multipath=True),
        NVME: subsystem.connection_info(1),
    }


def storage_at_boot() -> None:
    storage()
    Firewall().drop(SILENT_PORTAL)


def before() -> None:
    run("systemctl", "start", "multipathd.service")
    if "use_multipath" not in CONFIGURATION.read_text():
        Agent().configure(use_multipath="true")
    Path("/etc/systemd/system/lab-storage.service").write_text(STORAGE_UNIT)
    run("systemctl", "enable", "lab-storage.service")
    infos, asking = storage(), orchestrator()
    healthy, unlucky = empty_guest(), empty_guest()
    wishes = []
    begun = time.monotonic()
    for number, (guest, volume_id) in enumerate(
        ((healthy, ISCSI), (healthy, NVME), (healthy, FILE), (unlucky, SILENT))
    ):
        guest.domain.setAutostart(True)
        wanted = {
            "attachment_id": f"power-{number}",  # they come back in this order
            "instance_id": guest.uuid,
            "volume_id": volume_id,
            "connection_info": infos[volume_id],
            "disk": {"bus": "scsi"},
        }
        attached = asking.finish(asking.client.attach(wanted), seconds=OPERATION_SECONDS)
        assert attached.state == "done", attached
        wishes.append(wanted)
    seconds = max(60, SLACK * (time.monotonic() - begun) / len(wishes))
    total_seconds = max(300, (len(wishes) + 1) * seconds)
    with CONFIGURATION.open("a") as file:
        file.write(f"[reconnect]\nvolume_seconds = {seconds:.0f}\n")
        file.write(f"total_seconds = {total_seconds:.0f}\n")
    DROP_IN.parent.mkdir(parents=True, exist_ok=True)
    DROP_IN.write_text(f"[Service]\nTimeoutStartSec={total_seconds + 30:.0f}\n")
    PLACE.write_text(json.dumps(wishes))
    run("sync")


def after() -> None:
    asking = orchestrator()
    wishes: list[Wish] = json.loads(PLACE.read_text())
    healthy, unlucky = wishes[0]["instance_id"], wishes[3]["instance_id"]
    check_boot()
    check_report()
    assert run("virsh", "domstate", healthy).strip() == "running"
    assert run("virsh", "domstate", unlucky).strip() == "shut off"
    found = asking.client.audit()["findings"]
    assert [(row["kind"], row["attachment_id"]) for row in found] == [
        ("device-missing", wishes[3]["attachment_id"])
    ], found
    run("nft", "delete", "table", "ip", "lab")
    wait_until(
        lambda: asking.client.audit()["findings"] == [],
        "the silent array's volume is back",
        seconds=BACK_SECONDS,
        pause_seconds=2,
    )
    run("virsh", "start", unlucky)
    for wanted in wishes:
        detached = asking.finish(asking.ask_to_detach(wanted), seconds=OPERATION_SECONDS)
        assert (detached.result or {}).get("disconnected") is True, detached
    asking.assert_idle()
    assert_clean()


def check_boot() -> None:
    """Reconnected, within its time, before libvirt and the agent began."""
    begun, ended = moments(RECONNECT, "ExecMainStart", "ExecMainExit")
    for unit in ("libvirtd", "attachment-agent"):
        [start] = moments(unit, "ExecMainStart")
        assert ended <= start, f"{unit} began before the volumes were back"
    [storage_ended] = moments("lab-storage", "ExecMainExit")
    assert storage_ended <= begun, "the test's storage was late"


def check_report() -> None:
    status = run("systemctl", "show", "--value", "-p", "ExecMainStatus", RECONNECT).strip()
    said = run("journalctl", "--no-pager", "--boot", "-o", "cat", "-u", RECONNECT)
    assert status == "1", said
    for volume_id in (ISCSI, NVME, FILE):
        assert f"back: volume {volume_id}" in said, said
    assert f"NOT BACK: volume {SILENT}" in said, said
    assert "1 of 4 volumes are not back" in said, said


def moments(unit: str, *names: str) -> list[int]:
    """Microseconds since the boot; none of them is 0: it has happened."""
    found = [
        int(run("systemctl", "show", "--value", "-p", f"{name}TimestampMonotonic", unit))
        for name in names
    ]
    assert all(found), f"{unit}: {dict(zip(names, found, strict=True))}"
    return found


def orchestrator() -> Orchestrator:
    """As soon as the agent answers."""
    cfg.CONF([], project="attachment-agent")
    url = "rabbit://guest:guest@127.0.0.1//"
    client = AgentClient(cfg.CONF, "hypervisor", url=url, timeout_seconds=60 * PATIENCE)

    def answers() -> bool:
        try:
            client.ping()
        except Unreachable:
            return False
        return True

    wait_until(answers, "the agent answers", seconds=BACK_SECONDS, pause_seconds=1)
    return Orchestrator(client)


if __name__ == "__main__":
    {"before": before, "storage": storage_at_boot, "after": after}[sys.argv[1]]()
