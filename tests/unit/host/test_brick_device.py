"""What os-brick's answer becomes: its paths, and what was at the address in an earlier life."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from oslo_concurrency.processutils import ProcessExecutionError

from agent.errors import AgentError
from agent.model.attachment import Attachment
from agent.model.device import Device
from tests.samples import attachment
from tests.unit.host.test_brick_calls import (
    CASES,
    IQN,
    ISCSI,
    MULTIPATH,
    NQN,
    UUID,
    WWN,
    Bench,
    Case,
    multipath,
    scsi,
    wire,
)
from tests.unit.host.test_brick_calls import bench as bench  # the fixture


class TestPaths:
    """Counted against the portals of the request."""

    def sessions(self, bench: Bench, *ips: str) -> None:
        """sdb, sdc … came by sessions with these portals; one map is on them."""
        names = [f"sd{letter}" for letter in "bcdefg"[: len(ips)]]
        for number, (name, ip) in enumerate(zip(names, ips, strict=True), start=1):
            bench.tree.session(number, f"{ip}", IQN)
            bench.tree.scsi(name, f"8:{number * 16}", WWN, session=number, lun=1)
        path = bench.tree.multipath("dm-3", "253:3", WWN, names)
        bench.brick.info = {"type": "block", "scsi_wwn": f"3{WWN}", "path": path}

    def device(self, bench: Bench, **options: Any) -> Device:
        asked = attachment(**wire(bench, MULTIPATH))
        return bench.connectors(use_multipath=True, **options).connect(asked)

    def test_all_are_there(self, bench: Bench) -> None:
        self.sessions(bench, "192.0.2.1", "192.0.2.2")
        device = self.device(bench)
        assert (device.paths_found, device.paths_expected) == (2, 2)
        assert device.degraded is None

    def test_the_missing_one_is_named(self, bench: Bench) -> None:
        self.sessions(bench, "192.0.2.2")
        device = self.device(bench)
        assert device.degraded == f"degraded 1/2: no path by 192.0.2.1:3260 {IQN}"

    def test_one_by_a_portal_that_was_not_given_does_not_count(self, bench: Bench) -> None:
        self.sessions(bench, "192.0.2.2", "192.0.2.9")
        assert self.device(bench).paths_found == 1

    def test_the_last_one_is_waited_for(self, bench: Bench) -> None:
        """os-brick answers when there is a map; multipathd adds to it a moment later."""
        self.sessions(bench, "192.0.2.2")
        bench.tree.session(2, "192.0.2.1", IQN)

        def pause(seconds: float) -> None:
            if "sdc" not in [path.name for path in bench.tree.dev.iterdir()]:
                bench.tree.scsi("sdc", "8:32", WWN, session=2, lun=1)
                bench.tree.add_path("dm-3", "sdc")

        assert self.device(bench, pause=pause).degraded is None

    def test_one_by_a_portal_that_let_nobody_in_is_not_waited_for(self, bench: Bench) -> None:
        self.sessions(bench, "192.0.2.2")
        pauses: list[float] = []

        def fail(execute: Any) -> None:
            with pytest.raises(ProcessExecutionError):
                execute("iscsiadm", "-m", "node", "-p", "192.0.2.1:3260", "--login")

        def machine(*command: str, **how: Any) -> tuple[str, str]:
            if "--login" in command:
                raise ProcessExecutionError(exit_code=8)
            return "", ""

        bench.brick.on_connect = fail
        device = self.device(bench, pause=pauses.append, execute=machine)
        assert (device.paths_found, pauses) == (1, [])

    def test_looked_at_again_it_may_be_complete(self, bench: Bench) -> None:
        self.sessions(bench, "192.0.2.2")
        device = self.device(bench)
        bench.tree.session(2, "192.0.2.1", IQN)
        bench.tree.scsi("sdc", "8:32", WWN, session=2, lun=1)
        bench.tree.add_path("dm-3", "sdc")
        asked = attachment(**wire(bench, MULTIPATH))
        again = bench.connectors(use_multipath=True).look_again(asked, device)
        assert again is not None
        assert again.degraded is None
        bench.tree.remove("dm-3")
        bench.tree.remove("sdb")
        bench.tree.remove("sdc")
        assert bench.connectors(use_multipath=True).look_again(asked, device) is None

    def full_mesh(self, bench: Bench, names: Sequence[str]) -> Attachment:
        """Two HBAs on two fabrics, two ports of the array on each; of the volume these paths."""
        for number, name in enumerate(names, start=1):
            bench.tree.scsi(name, f"8:{number * 16}", WWN)
        path = bench.tree.multipath("dm-3", "253:3", WWN, names)
        bench.brick.info = {"type": "block", "scsi_wwn": f"3{WWN}", "path": path}
        ours, theirs = ("2100001B32A0", "2100001b32a1"), ("50a0", "50a1", "50b0", "50b1")
        bench.tree.fc_host(1, ours[0].lower(), [*theirs[:2], "50ff"])
        bench.tree.fc_host(10, ours[1], theirs[2:])
        mesh = {port: [theirs[0].upper(), *theirs[1:]] for port in ours}
        data = {"target_wwn": theirs, "target_lun": 3, "initiator_target_map": mesh}
        case = Case("", multipath, "fibre_channel", data)
        return attachment(**wire(bench, case, require_all_paths=True))

    def test_of_fibre_channel_those_that_the_fabrics_let_be(self, bench: Bench) -> None:
        """Without a zone manager the request names every port with every other."""
        asked = self.full_mesh(bench, ("sdb", "sdc", "sdd", "sde"))
        pauses: list[float] = []
        device = bench.connectors(use_multipath=True, pause=pauses.append).connect(asked)
        assert (device.paths_found, device.paths_expected, pauses) == (4, 4, [])

    def test_of_fibre_channel_all_by_a_port_that_is_down_are_missing(self, bench: Bench) -> None:
        asked = self.full_mesh(bench, ("sdb", "sdc"))
        (bench.tree.sys / "class/fc_host/host10/port_state").write_text("Linkdown\n")
        with pytest.raises(AgentError, match="2 of 6 paths"):
            bench.connectors(use_multipath=True).connect(asked)

    def test_of_fibre_channel_one_that_is_lost_is_missing(self, bench: Bench) -> None:
        asked = self.full_mesh(bench, ("sdb", "sdc", "sdd"))
        with pytest.raises(AgentError, match="3 of 4 paths"):
            bench.connectors(use_multipath=True).connect(asked)

    def test_what_an_older_agent_expected_is_not_missed(self, bench: Bench) -> None:
        asked = self.full_mesh(bench, ("sdb", "sdc", "sdd", "sde"))
        connectors = bench.connectors(use_multipath=True)
        device = connectors.connect(asked).model_copy(update={"paths_expected": 8})
        again = connectors.look_again(asked, device)
        assert again is not None
        assert again.degraded is None

    def test_no_map_where_multipath_is_enforced(self, bench: Bench) -> None:
        scsi(bench)
        with pytest.raises(AgentError, match="multipathd made no map") as refused:
            self.device(bench)
        assert refused.value.code == "not-all-paths"
        assert self.device(bench, enforce_multipath=False).paths_found == 1

    def test_nvme_paths_are_those_of_its_portals(self, bench: Bench) -> None:
        case = next(case for case in CASES if case.name == "nvmeof")
        states = {"nvme0": "live", "nvme1": "connecting", "nvme2": "live"}
        path = bench.tree.nvme("nvme0n1", "259:1", uuid=UUID, controllers=states)
        for controller, ip in (("nvme0", "20"), ("nvme1", "21"), ("nvme2", "99")):
            bench.tree.nvme_address(controller, f"192.0.2.{ip}", 4420)
        bench.brick.info = {"type": "block", "path": path}
        device = bench.connectors(use_multipath=True).connect(attachment(**wire(bench, case)))
        assert device.degraded == "degraded 1/2: no path by 192.0.2.21:4420"

    def both_live(self, bench: Bench) -> tuple[Attachment, Path]:
        """And where the second one's path of the volume is."""
        case = next(case for case in CASES if case.name == "nvmeof")
        states = {"nvme0": "live", "nvme1": "live"}
        path = bench.tree.nvme("nvme0n1", "259:1", uuid=UUID, controllers=states)
        for controller, ip in (("nvme0", "20"), ("nvme1", "21")):
            bench.tree.nvme_address(controller, f"192.0.2.{ip}", 4420)
            bench.tree.fabric_controller(controller, NQN, f"192.0.2.{ip}:4420")
        bench.brick.info = {"type": "block", "path": path}
        subsystem = bench.tree.sys / "devices/virtual/nvme-subsystem/nvme-subsys0"
        return attachment(**wire(bench, case)), subsystem / "nvme1/nvme0c1n1"

    def test_an_nvme_controller_that_has_yet_to_show_the_volume_is_waited_for(
        self, bench: Bench
    ) -> None:
        """It reads the list of namespaces on its own; who looks meanwhile takes it for empty."""
        asked, second = self.both_live(bench)
        second.rmdir()

        def pause(seconds: float) -> None:
            second.mkdir(exist_ok=True)

        device = bench.connectors(use_multipath=True, pause=pause).connect(asked)
        assert (device.paths_found, device.paths_expected) == (2, 2)


class TestEarlierLife:
    """A device at the volume's address, before it is connected: CVE-2023-2088."""

    OTHER = "6001405bbbbbbbbbbbbbbbbbbbbbbbbb"
    LINK = f"disk/by-path/ip-192.0.2.1:3260-iscsi-{IQN}-lun-1"

    def connect(self, bench: Bench, case: Case = ISCSI, **options: Any) -> Device:
        return bench.connectors(**options).connect(attachment(**wire(bench, case)))

    def test_that_was_another_volume_is_doubted(self, bench: Bench) -> None:
        """The kernel reads its identity anew: by then it looks like the right one."""
        bench.brick.info = {"path": bench.tree.scsi("sdb", "8:16", self.OTHER)}
        bench.tree.link(self.LINK, "sdb")

        def ask_again(execute: Any) -> None:
            bench.tree.remove("sdb")
            bench.tree.scsi("sdb", "8:16", WWN, by_id=(f"wwn-0x{WWN}",))

        bench.brick.on_connect = ask_again
        device = self.connect(bench)
        assert device.identity["wwn"] == WWN
        assert device.doubts == (
            f"{bench.tree.dev}/sdb was at its address before, as wwn {self.OTHER}",
        )

    def test_that_is_the_volume_is_adopted(self, bench: Bench) -> None:
        scsi(bench)
        bench.tree.link(self.LINK, "sdb")
        assert self.connect(bench).doubts == ()

    def test_a_path_of_the_map_that_is_another_volume_by_now(self, bench: Bench) -> None:
        multipath(bench)
        wwid = bench.tree.sys / "class/block/sdc/device/wwid"
        wwid.write_text(f"naa.{self.OTHER}")
        (doubt,) = self.connect(bench, MULTIPATH, use_multipath=True).doubts
        assert doubt.startswith(f"its path {bench.tree.dev}/sdc is wwn {self.OTHER}")

    def test_an_address_that_is_not_in_the_map(self, bench: Bench) -> None:
        multipath(bench)
        bench.tree.scsi("sdq", "65:0", self.OTHER)
        bench.tree.link(self.LINK.replace("2.1:", "2.2:"), "sdq")
        (was, _) = self.connect(bench, MULTIPATH, use_multipath=True).doubts
        assert was.startswith(f"{bench.tree.dev}/sdq was at its address before")

    def test_what_is_there_is_found_without_connecting(self, bench: Bench) -> None:
        asked = attachment(**wire(bench, ISCSI))
        assert bench.connectors().find(asked.connection) is None
        scsi(bench)
        bench.tree.link(self.LINK, "sdb")
        found = bench.connectors().find(asked.connection)
        assert found is not None
        assert found.identity["wwn"] == WWN
        assert found.device_info["path"] == f"{bench.tree.dev}/sdb"

    @pytest.mark.parametrize(
        ("protocol", "data", "name"),
        [
            ("iscsi", {"addressing_mode": "SAM3-flat"}, "0x4001000000000000"),
            ("iscsi", {"addressing_mode": "SAM2"}, "1"),
            ("iscsi", {"addressing_mode": "SAM2", "target_lun": 256}, "0x4100000000000000"),
            ("fibre-channel", {"target_wwn": "5006016041E0C8D1", "target_lun": 1}, "1"),
            (
                "fibre-channel",
                {
                    "target_wwn": ["5006016841e0c8d1", "5006016041e0c8d1"],
                    "target_lun": None,
                    "target_luns": [7, 1],
                },
                "1",
            ),
        ],
    )
    def test_it_is_looked_for_as_the_kernel_and_udev_write_it(
        self, bench: Bench, protocol: str, data: dict[str, Any], name: str
    ) -> None:
        case = next(case for case in CASES if case.name == protocol)
        scsi(bench)
        at = {
            "iscsi": f"ip-192.0.2.1:3260-iscsi-{IQN}",
            "fibre-channel": "pci-0000:05:00.0-fc-0x5006016041e0c8d1",
        }
        bench.tree.link(f"disk/by-path/{at[protocol]}-lun-{name}", "sdb")
        asked = attachment(**wire(bench, replace(case, data={**case.data, **data})))
        assert bench.connectors().find(asked.connection) is not None

    def test_its_paths_are_counted_whoever_brought_it(self, bench: Bench) -> None:
        multipath(bench)
        bench.tree.link(self.LINK, "sdb")
        asked = attachment(**wire(bench, MULTIPATH))
        connectors = bench.connectors(use_multipath=True)
        found = connectors.find(asked.connection)
        assert found is not None
        counted = connectors.look_again(asked, found)
        assert counted is not None
        assert (counted.paths_found, counted.paths_expected) == (2, 2)
        assert counted.path == found.path
