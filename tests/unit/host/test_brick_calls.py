"""What os-brick is asked for each protocol, and what its answer becomes: golden calls.

``pytest --rewrite-golden`` writes the files from what is now.
"""

import copy
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from oslo_concurrency import lockutils
from oslo_concurrency.processutils import ProcessExecutionError
from oslo_config import cfg

from agent.errors import AgentError, Busy
from agent.host.block_devices import BlockDevices
from agent.host.brick import BrickConnectors
from agent.host.brick_library import prepare_os_brick
from agent.host.far_files import FarFiles
from agent.model.attachment import Attachment
from agent.model.connection import MOUNTED_PROTOCOLS, UNFIT
from agent.model.device import Device
from tests.samples import attachment
from tests.unit.host.device_tree import DeviceTree

GOLDEN = Path(__file__).parent / "golden" / "brick"

WWN = "60014051f2d74ac5b7e49d1a2f3c8e90"
OTHER_WWN = "6001405bbbbbbbbbbbbbbbbbbbbbbbbb"
UUID = "5b1f8a3e-2c47-4d0a-9e61-7f0c2b9d1a34"
NQN = "nqn.2014-08.org.example:subsystem-1"
IQN = "iqn.2010-10.org.openstack:volume-457b1507"


@dataclass
class Recorder:
    """os-brick as the adapter sees it: writes down what it is asked, answers ``info``.

    Treats the properties that it is given as os-brick does: takes some out, adds others."""

    info: Mapping[str, Any] = field(default_factory=dict)
    on_connect: Callable[[Any], None] = lambda execute: None
    on_disconnect: Callable[[], None] = lambda: None
    on_extend: Callable[[], None] = lambda: None
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    has_multipath: bool = True
    on_remove: Callable[[str], None] = lambda name: None

    def factory(self, protocol: str, **options: Any) -> "Recorder":
        self.execute = options.pop("execute")
        self.calls.append(("factory", protocol, options))
        return self

    def connect_volume(self, properties: dict[str, Any]) -> dict[str, Any]:
        self._note("connect_volume", properties)
        try:
            self.on_connect(self.execute)
        except Exception:
            self._cleanup_connection()
            raise
        return dict(self.info)

    def _discover_iscsi_portals(self, properties: dict[str, Any]) -> list[tuple[Any, ...]]:
        raise AssertionError("nobody is to be asked here")

    def _cleanup_connection(self) -> None:
        raise AssertionError("what guests may use was taken away")

    def disconnect_volume(self, properties: dict[str, Any], info: dict[str, Any] | None) -> None:
        self._note("disconnect_volume", properties, info)
        self.on_disconnect()

    def extend_volume(self, properties: dict[str, Any]) -> int:
        self._note("extend_volume", properties)
        self.on_extend()
        return 0  # of one path, whichever was looked at last

    def remove(self, names: Sequence[str], execute: Any) -> None:
        self.calls.append(("remove", list(names)))
        for name in names:
            self.on_remove(name)

    def supports_multipath(self) -> bool:
        return self.has_multipath

    def _note(self, call: str, properties: dict[str, Any], *others: Any) -> None:
        self.calls.append((call, copy.deepcopy(properties), *others))
        properties.clear()
        properties["device_path"] = "/dev/of-os-brick"

    def of(self, call: str) -> tuple[Any, ...]:
        (found,) = [noted for noted in self.calls if noted[0] == call]
        return found


@dataclass
class Bench:
    tree: DeviceTree
    brick: Recorder
    mounts: Path

    def connectors(self, **different: Any) -> BrickConnectors:
        return BrickConnectors(**self.options(**different))

    def remove_everything(self) -> None:
        """What a disconnect that works leaves."""
        for node in sorted(self.tree.dev.iterdir()):
            if node.is_file() and not node.is_symlink():
                self.tree.remove(node.name)

    def options(self, **different: Any) -> dict[str, Any]:
        return {
            "host": "hypervisor-1",
            "my_ip": "192.0.2.10",
            "use_multipath": False,
            "enforce_multipath": True,
            "device_scan_attempts": 2,
            "nfs_mount_point_base": str(self.mounts),
            "nfs_mount_options": "",
            "local_allowed_paths": (str(self.tree.dev),),
            "factory": self.brick.factory,
            "devices": self.tree.devices,
            "settle": lambda: None,
            "pause": lambda seconds: None,
            "remove": self.brick.remove,
            "which": lambda tool: f"/sbin/{tool}",
            "execute": lambda *command, **how: ("", ""),
            **different,
        }


@contextmanager
def locking_in(directory: Path) -> Iterator[None]:
    """os-brick and oslo.concurrency of this process, for one test."""
    prepare_os_brick(cfg.CONF)
    lockutils.set_defaults(str(directory))
    cfg.CONF.set_override("lock_path", str(directory), "os_brick")
    try:
        yield
    finally:
        cfg.CONF.clear_default("lock_path", "oslo_concurrency")
        cfg.CONF.clear_override("lock_path", "os_brick")


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    root = tmp_path.resolve()
    tree = DeviceTree(root)
    (tree.sys / "class" / "fc_host" / "host1").mkdir(parents=True)
    with locking_in(root / "locks"):
        yield Bench(tree, Recorder(), root / "mounts")


def scsi(bench: Bench) -> None:
    """One path; udev has named it."""
    by_id = (f"wwn-0x{WWN}", f"scsi-3{WWN}")
    path = bench.tree.scsi("sdb", "8:16", WWN, serial="457b1507", by_id=by_id)
    bench.brick.info = {"type": "block", "scsi_wwn": f"3{WWN}", "path": path}


def multipath(bench: Bench) -> None:
    for name, number in (("sdb", "8:16"), ("sdc", "8:32")):
        bench.tree.scsi(name, number, WWN, serial="457b1507")
    path = bench.tree.multipath("dm-3", "253:3", WWN, ("sdb", "sdc"))
    bench.brick.info = {
        "type": "block",
        "scsi_wwn": f"3{WWN}",
        "path": path,
        "multipath_id": f"3{WWN}",
    }


def nvme(bench: Bench) -> None:
    controllers = {"nvme0": "live", "nvme1": "live"}
    path = bench.tree.nvme("nvme0n1", "259:1", uuid=UUID, controllers=controllers)
    bench.brick.info = {"type": "block", "path": path}


def loop(bench: Bench) -> None:
    path = bench.tree.loop("loop7", "7:7", Path("/srv/volume-1"))
    bench.brick.info = {"type": "local", "path": path}


def image(bench: Bench) -> None:
    export = bench.mounts / "b5eb23c7a5fc91adee43dbafbfde9a6a"
    export.mkdir(parents=True)
    (export / "volume-75e4a9f1").write_bytes(bytes(4096))
    bench.brick.info = {"path": str(export / "volume-75e4a9f1")}


def vendor(bench: Bench) -> None:
    bench.tree.add("sdx", "65:112", {})
    bench.brick.info = {"type": "block", "path": bench.tree.link("storpool/v1", "sdx")}


def nothing(bench: Bench) -> None:
    """os-brick is not asked."""


@dataclass(frozen=True)
class Case:
    name: str
    there: Callable[[Bench], None]
    protocol: str
    data: Mapping[str, Any]
    options: Mapping[str, Any] = field(default_factory=dict)


CHAP = {"auth_method": "CHAP", "auth_username": "user", "auth_password": "pass-1"}
ONE_PATH = {"target_portal": "192.0.2.1:3260", "target_iqn": IQN, "target_lun": 1}
TWO_PATHS = {
    **ONE_PATH,
    "target_portals": ["192.0.2.1:3260", "192.0.2.2:3260"],
    "target_iqns": [IQN, IQN],
    "target_luns": [1, 1],
}
FABRIC = {
    "target_wwn": ["5006016041e0c8d1", "5006016841e0c8d1"],
    "target_lun": 3,
    "initiator_target_map": {"2100001b32a0": ["5006016041e0c8d1", "5006016841e0c8d1"]},
}
PORTALS = [["192.0.2.20", 4420, "tcp"], ["192.0.2.21", 4420, "RoCEv2"]]

CASES = [
    Case("iscsi", scsi, "iscsi", {**ONE_PATH, **CHAP, "encrypted": False, "vendor": {"a": [1]}}),
    Case("iscsi-multipath", multipath, "iscsi", TWO_PATHS, {"use_multipath": True}),
    Case(
        "iscsi-multipath-not-enforced",
        multipath,
        "iscsi",
        {**TWO_PATHS, "enforce_multipath": False},
        {"use_multipath": True, "enforce_multipath": False},
    ),
    Case("iser", scsi, "iser", ONE_PATH),
    Case("fibre-channel", multipath, "fibre_channel", FABRIC, {"use_multipath": True}),
    Case(
        "nvmeof",
        nvme,
        "nvmeof",
        {"target_nqn": NQN, "vol_uuid": UUID, "portals": PORTALS, "ns_id": 10},
    ),
    Case(
        "nvmeof-old-format",
        nvme,
        "nvmeof",
        {
            "nqn": NQN,
            "target_portal": "192.0.2.20",
            "target_port": 4420,
            "transport_type": "tcp",
            "ns_id": 10,
        },
    ),
    Case(
        "nfs",
        image,
        "nfs",
        {
            "export": "192.0.2.40:/vols",
            "name": "volume-75e4a9f1",
            "format": "raw",
            "options": None,
            "mount_point_base": "/var/lib/cinder/mnt",
        },
        {"nfs_mount_options": "vers=4.2"},
    ),
    Case(
        "rbd",
        nothing,
        "rbd",
        {"name": "volumes/volume-8b9b", "hosts": ["192.0.2.31"], "ports": ["6789"]},
    ),
    Case("local", loop, "local", {"device_path": "DEV/loop7"}),
    Case("quobyte", image, "quobyte", {"export": "192.0.2.40:/vols", "name": "volume-75e4a9f1"}),
    Case("storpool", vendor, "storpool", {"volume": "v1", "client_id": 7, "access_mode": "rw"}),
]


def wire(bench: Bench, case: Case, **different: Any) -> dict[str, Any]:
    data = dict(case.data)
    if "device_path" in data:
        data["device_path"] = data["device_path"].replace("DEV", str(bench.tree.dev))
    return {"connection_info": {"driver_volume_type": case.protocol, "data": data}, **different}


def call_and_device(bench: Bench, case: Case) -> dict[str, Any]:
    case.there(bench)
    asked = attachment(**wire(bench, case), size_bytes=64 * 1024 * 1024)
    device = bench.connectors(**case.options).connect(asked)
    root = str(bench.mounts.parent)
    calls = [call for call in bench.brick.calls if call[0] in ("factory", "connect_volume")]
    text = json.dumps({"calls": calls, "device": device.reveal()}, indent=1, sort_keys=True)
    found: dict[str, Any] = json.loads(text.replace(root, "ROOT"))
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_call_and_the_device(case: Case, bench: Bench, request: pytest.FixtureRequest) -> None:
    found = call_and_device(bench, case)
    file = GOLDEN / f"{case.name}.json"
    if request.config.getoption("--rewrite-golden"):
        file.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    assert found == json.loads(file.read_text())


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.name != "rbd"], ids=lambda case: case.name
)
def test_os_brick_may_do_what_it_likes_with_what_it_is_given(case: Case, bench: Bench) -> None:
    case.there(bench)
    asked = attachment(**wire(bench, case))
    before = asked.reveal()
    bench.connectors(**case.options).connect(asked)
    assert asked.reveal() == before


def test_an_encrypted_volume_is_decrypted_by_qemu_not_by_os_brick(bench: Bench) -> None:
    scsi(bench)
    case = Case("", scsi, "iscsi", {**ONE_PATH, "encrypted": True})
    key = {"format": "luks", "secret_file": "/etc/secrets/volume"}
    device = bench.connectors().connect(attachment(**wire(bench, case, encryption=key)))
    assert bench.brick.of("connect_volume")[1]["encrypted"] is False
    assert device.path == str(bench.tree.dev / "disk/by-id" / f"wwn-0x{WWN}")


ISCSI = Case("", scsi, "iscsi", {**ONE_PATH, **CHAP})
MULTIPATH = next(case for case in CASES if case.name == "iscsi-multipath")


def connected(bench: Bench, case: Case = ISCSI, **options: Any) -> tuple[Attachment, Device]:
    case.there(bench)
    asked = attachment(**wire(bench, case))
    device = bench.connectors(**{**case.options, **options}).connect(asked)
    bench.brick.calls.clear()
    return asked, device


def anothers_at_the_address(bench: Bench, **different: Any) -> None:
    """The array has given the LUN away."""
    bench.tree.scsi("sdb", "8:16", OTHER_WWN, **different)
    bench.tree.link(f"disk/by-path/ip-192.0.2.1:3260-iscsi-{IQN}-lun-1", "sdb")
    bench.tree.link("disk/by-path/pci-0000:05:00.0-fc-0x5006016041e0c8d1-lun-3", "sdb")


def test_the_kernel_asks_a_lun_again_who_it_is(bench: Bench) -> None:
    """It caches the answer, and the LUN may have been another volume's."""
    connected(bench)
    assert (bench.tree.sys / "class/block/sdb/device/rescan").read_text() == "1"


@contextmanager
def qemu_of_nobody(device: Path, directory: Path) -> Iterator[int]:
    """A process that is called so and has the device open; its id."""
    qemu = shutil.copy(shutil.which("cat") or "", directory / "qemu-of-nobody")
    with (
        device.open("rb") as node,
        subprocess.Popen(
            [qemu],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            pass_fds=[node.fileno()],
        ) as process,
    ):
        assert process.stdin
        assert process.stdout
        process.stdin.write(b"runs")
        assert process.stdout.read(4) == b"runs", "it has its name by now"
        try:
            yield process.pid
        finally:
            process.communicate()


def lose_paths(bench: Bench) -> None:
    """The fabric was away for longer than the kernel waits: the map alone is left."""
    for name in ("sdb", "sdc"):
        bench.tree.remove(name)


class TestDisconnect:
    def test_os_brick_gets_its_own_answer_with_the_path_of_today(self, bench: Bench) -> None:
        """By the path it decides whether to flush."""
        asked, device = connected(bench)
        bench.tree.remove("sdb")
        today = bench.tree.scsi("sdq", "65:0", WWN, serial="457b1507")
        bench.brick.on_disconnect = lambda: bench.tree.remove("sdq")
        bench.connectors().disconnect(asked, device)
        info = bench.brick.of("disconnect_volume")[2]
        assert info == {"type": "block", "scsi_wwn": f"3{WWN}", "path": today}

    def test_a_device_that_is_gone_is_not_looked_for_under_its_old_name(self, bench: Bench) -> None:
        asked, device = connected(bench)
        bench.tree.remove("sdb")
        bench.connectors().disconnect(asked, device)
        assert "path" not in bench.brick.of("disconnect_volume")[2]

    def test_the_path_is_written_as_os_brick_wrote_it_while_it_is_true(self, bench: Bench) -> None:
        """It takes a path for a multipath map's by how it is written."""
        case = next(case for case in CASES if case.name == "fibre-channel")
        asked, device = connected(bench, case)
        link = str(bench.tree.dev / "disk/by-id" / f"dm-uuid-mpath-3{WWN}")
        written = device.model_copy(update={"device_info": {"type": "block", "path": link}})

        def disconnect() -> None:
            for name in ("dm-3", "sdb", "sdc"):
                bench.tree.remove(name)

        bench.brick.on_disconnect = disconnect
        bench.connectors().disconnect(asked, written)
        assert bench.brick.of("disconnect_volume")[2]["path"] == link

    def test_what_was_never_connected_has_no_device_info(self, bench: Bench) -> None:
        asked, _ = connected(bench)
        bench.brick.calls.clear()
        bench.connectors().disconnect(asked, None)
        assert bench.brick.of("disconnect_volume")[2] is None

    @pytest.mark.parametrize("name", ["iscsi", "fibre-channel"])
    def test_a_lun_that_was_given_to_another_volume_is_left_alone(
        self, bench: Bench, name: str
    ) -> None:
        case = next(case for case in CASES if case.name == name)
        asked, device = connected(bench, case)
        for node in ("sdb", "sdc", "dm-3")[: 3 if case.options else 1]:
            bench.tree.remove(node)
        anothers_at_the_address(bench)
        bench.connectors(**case.options).disconnect(asked, device)
        assert all(call[0] == "factory" for call in bench.brick.calls)

    def test_also_where_ours_is_here_by_another_number_since(self, bench: Bench) -> None:
        """As after a reboot: somebody came with the new number, and whoever came with the old one
        is the last to go."""
        asked, device = connected(bench)
        bench.tree.remove("sdb")
        bench.tree.scsi("sdc", "8:32", WWN, serial=device.identity["serial"])
        anothers_at_the_address(bench)
        bench.brick.on_remove = bench.tree.remove
        bench.connectors().disconnect(asked, device)
        assert [call for call in bench.brick.calls if call[0] != "factory"] == [("remove", ["sdc"])]

    def test_also_by_a_portal_that_the_request_does_not_name(self, bench: Bench) -> None:
        """os-brick is told of it: there is a session with the target by it."""
        bench.tree.session(2, "192.0.2.2", IQN)
        asked = attachment(**wire(bench, CASES[0]))
        device = Device(path="/dev/dm-3", identity={"wwn": WWN}, size_bytes=1, device_info={})
        bench.tree.scsi("sdb", "8:16", OTHER_WWN, session=2, lun=1)
        bench.tree.link(f"disk/by-path/ip-192.0.2.2:3260-iscsi-{IQN}-lun-1", "sdb")
        bench.connectors(use_multipath=True).disconnect(asked, device)
        assert all(call[0] == "factory" for call in bench.brick.calls)

    def test_also_where_the_array_gives_all_of_them_one_serial(self, bench: Bench) -> None:
        asked, device = connected(bench)
        bench.tree.remove("sdb")
        anothers_at_the_address(bench, serial=device.identity["serial"])
        bench.connectors().disconnect(asked, device)
        assert all(call[0] == "factory" for call in bench.brick.calls)

    @pytest.mark.parametrize("name", ["iscsi", "iscsi-multipath"])
    def test_a_device_that_a_qemu_has_open_stays(
        self, bench: Bench, tmp_path: Path, name: str
    ) -> None:
        """libvirt may have lost track of its guest, and that have a path of what is a map now."""
        case = next(case for case in CASES if case.name == name)
        asked, device = connected(bench, case)
        with qemu_of_nobody(bench.tree.dev / "sdb", tmp_path) as process_id:
            with pytest.raises(AgentError, match=f"process {process_id}"):
                bench.connectors(**case.options).disconnect(asked, device)
            assert bench.brick.calls == []
        bench.brick.on_disconnect = bench.remove_everything
        bench.connectors(**case.options).disconnect(asked, device)

    def test_a_device_that_stays_is_an_error_that_names_it(self, bench: Bench) -> None:
        asked, device = connected(bench)
        with pytest.raises(AgentError, match=r"/dev/sdb is still on this host") as refused:
            bench.connectors().disconnect(asked, device)
        assert ("remove", ["sdb"]) in bench.brick.calls
        assert refused.value.code == "connect-failed"
        assert refused.value.retriable

    def test_paths_that_came_late_go_too(self, bench: Bench) -> None:
        """os-brick has removed the map and the path that it saw; multipathd made another map."""
        asked, device = connected(bench, MULTIPATH, use_multipath=True)

        def come_late() -> None:
            for name in ("dm-3", "sdb", "sdc"):
                bench.tree.remove(name)
            bench.tree.scsi("sdq", "65:0", WWN, serial="457b1507")
            bench.tree.multipath("dm-4", "253:4", WWN, ("sdq",))

        def remove(name: str) -> None:
            bench.tree.remove("dm-4")
            bench.tree.remove(name)

        bench.brick.on_disconnect, bench.brick.on_remove = come_late, remove
        bench.connectors(use_multipath=True).disconnect(asked, device)
        assert ("remove", ["sdq"]) in bench.brick.calls
        assert not bench.connectors().present(device)

    def test_a_name_that_was_given_away_meanwhile_is_not_removed(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """os-brick's lock is waited for between the look and the removal."""
        asked, device = connected(bench)
        connectors = bench.connectors()
        hold = connectors._locks.hold

        def held(lane: Any) -> Any:
            if bench.brick.of("disconnect_volume"):
                bench.tree.remove("sdb")
                bench.tree.scsi("sdb", "8:16", OTHER_WWN)
            return hold(lane)

        bench.brick.on_disconnect = lambda: monkeypatch.setattr(connectors._locks, "hold", held)
        connectors.disconnect(asked, device)
        assert all(call[0] != "remove" for call in bench.brick.calls)

    def test_what_came_to_the_address_while_the_lock_was_waited_for_stays(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked, device = connected(bench)
        bench.tree.remove("sdb")
        connectors = bench.connectors()
        call = connectors._locks.call

        def late(*arguments: Any, **how: Any) -> Any:
            anothers_at_the_address(bench)
            return call(*arguments, **how)

        monkeypatch.setattr(connectors._locks, "call", late)
        with pytest.raises(Busy, match="has changed while os-brick's lock was waited for"):
            connectors.disconnect(asked, device)
        assert [made[0] for made in bench.brick.calls] == ["factory"]

    def test_of_one_portal_that_was_named_all_that_it_led_to_is_left(self, bench: Bench) -> None:
        """And nothing else that was ever discovered there: it may be others' LUNs."""
        other = "iqn.2010-10.org.openstack:other"
        for number, ip, iqn in (
            (1, "192.0.2.1", IQN),
            (2, "2001:db8::2", IQN),
            (3, "192.0.2.1", other),
        ):
            bench.tree.session(number, ip, iqn)
        asked = attachment(**wire(bench, CASES[0]))
        device = Device(path="/dev/dm-3", identity={"wwn": WWN}, size_bytes=1, device_info={})
        bench.tree.scsi("sdb", "8:16", WWN, session=1, lun=1)
        bench.tree.scsi("sdc", "8:32", WWN[::-1], session=3, lun=1)
        bench.brick.on_disconnect = lambda: bench.tree.remove("sdb")
        bench.connectors(use_multipath=True).disconnect(asked, device)
        _call, properties, _info = bench.brick.of("disconnect_volume")
        assert properties["target_portals"] == ["192.0.2.1:3260", "[2001:db8::2]:3260"]
        assert properties["target_iqns"] == [IQN, IQN]
        assert properties["target_luns"] == [1, 1]

    def test_ways_are_told_by_the_requests_own_lun(self, bench: Bench) -> None:
        """os-brick makes the kernel's of it, by the addressing mode."""
        bench.tree.session(1, "192.0.2.1", IQN)
        bench.tree.session(2, "192.0.2.2", IQN)
        case = replace(CASES[0], data={**ONE_PATH, "addressing_mode": "SAM3-flat"})
        asked = attachment(**wire(bench, case))
        bench.tree.scsi("sdb", "8:16", WWN, session=1, lun=16385)
        device = Device(path="/dev/sdb", identity={"wwn": WWN}, size_bytes=1, device_info={})
        bench.brick.on_disconnect = lambda: bench.tree.remove("sdb")
        bench.connectors(use_multipath=True).disconnect(asked, device)
        assert bench.brick.of("disconnect_volume")[1]["target_luns"] == [1, 1]

    def test_a_map_that_outlived_its_paths_goes_too(self, bench: Bench) -> None:
        asked, device = connected(bench, MULTIPATH, use_multipath=True)
        run: list[tuple[str, ...]] = []

        def execute(*command: str, **how: Any) -> tuple[str, str]:
            run.append(command)
            bench.tree.remove("dm-3")
            return "", ""

        lose_paths(bench)
        bench.connectors(use_multipath=True, execute=execute).disconnect(asked, device)
        assert run == [("multipath", "-f", "mpatha")]
        assert "path" not in bench.brick.of("disconnect_volume")[2], "no I/O goes by it"
        assert not bench.connectors().present(device)

    def test_with_the_maps_that_kpartx_made_of_its_partitions(self, bench: Bench) -> None:
        """``multipath -f`` takes them along."""
        asked, device = connected(bench, MULTIPATH, use_multipath=True)
        lose_paths(bench)
        bench.tree.add("dm-4", "253:4", {"dm/uuid": f"part1-mpath-3{WWN}"}, slaves=("dm-3",))

        def execute(*command: str, **how: Any) -> tuple[str, str]:
            bench.tree.remove("dm-3")
            return "", ""

        bench.connectors(use_multipath=True, execute=execute).disconnect(asked, device)
        assert not bench.connectors().present(device)

    @pytest.mark.parametrize("slave", ["dm-4", "sdb"])
    def test_unless_something_is_built_on_a_partitions_map(self, bench: Bench, slave: str) -> None:
        """Or on the one path: os-brick takes that for a map, and removes the device beneath it."""
        case = MULTIPATH if slave == "dm-4" else ISCSI
        asked, device = connected(bench, case, **case.options)
        if slave == "dm-4":
            part = {"dm/uuid": f"part1-mpath-3{WWN}"}
            bench.tree.add("dm-4", "253:4", part, slaves=("dm-3",))
        bench.tree.add("dm-9", "253:9", {"dm/uuid": "LVM-x"}, slaves=(slave,))
        with pytest.raises(AgentError, match="is held by dm-9 on this host"):
            bench.connectors(**case.options).disconnect(asked, device)
        assert bench.brick.calls == []

    def test_what_is_on_a_partition_of_a_path_does_not_keep_it(self, bench: Bench) -> None:
        """os-brick does not see it, either; a group that the host has found there loses it."""
        asked, device = connected(bench)
        partition = bench.tree.sys / "class/block/sdb/sdb1"
        (partition / "holders/dm-9").mkdir(parents=True)
        (partition / "partition").write_text("1\n")
        bench.brick.on_disconnect = lambda: bench.tree.remove("sdb")
        bench.connectors().disconnect(asked, device)
        assert bench.brick.of("disconnect_volume")

    def test_a_map_without_paths_that_is_open_is_not_gone(self, bench: Bench) -> None:
        asked, device = connected(bench, MULTIPATH, use_multipath=True)

        def execute(*command: str, **how: Any) -> tuple[str, str]:
            raise ProcessExecutionError(stderr="mpatha: map in use", exit_code=1, cmd="multipath")

        lose_paths(bench)
        with pytest.raises(AgentError, match="map in use") as refused:
            bench.connectors(use_multipath=True, execute=execute).disconnect(asked, device)
        assert refused.value.retriable

    def test_a_map_without_paths_on_which_something_is_built_stays(self, bench: Bench) -> None:
        asked, device = connected(bench, MULTIPATH, use_multipath=True)
        lose_paths(bench)
        bench.tree.add("dm-9", "253:9", {"dm/uuid": "LVM-x"}, slaves=("dm-3",))
        with pytest.raises(AgentError, match="dm-3 is held by dm-9 on this host"):
            bench.connectors(use_multipath=True).disconnect(asked, device)

    def test_beside_a_map_without_paths_anothers_lun_is_left_alone(self, bench: Bench) -> None:
        """The map proves nothing of what is at the address."""
        asked, device = connected(bench, MULTIPATH, use_multipath=True)
        lose_paths(bench)
        anothers_at_the_address(bench, serial="457b1507")

        def execute(*command: str, **how: Any) -> tuple[str, str]:
            bench.tree.remove("dm-3")
            return "", ""

        bench.connectors(use_multipath=True, execute=execute).disconnect(asked, device)
        assert all(call[0] == "factory" for call in bench.brick.calls)

    def test_what_something_is_built_on_is_not_removed(self, bench: Bench) -> None:
        asked, device = connected(bench)
        bench.tree.add("dm-9", "253:9", {"dm/uuid": "LVM-x"}, slaves=("sdb",))
        with pytest.raises(AgentError, match="held by dm-9"):
            bench.connectors().disconnect(asked, device)
        assert not [call for call in bench.brick.calls if call[0] == "remove"]

    def test_who_holds_it_is_named(self, bench: Bench) -> None:
        asked, device = connected(bench)
        bench.tree.add("dm-9", "253:9", {"dm/uuid": "LVM-x"}, slaves=("sdb",))
        with pytest.raises(AgentError, match="held by dm-9"):
            bench.connectors().disconnect(asked, device)

    def test_a_namespace_stays_until_it_is_unmapped(self, bench: Bench) -> None:
        case = next(case for case in CASES if case.name == "nvmeof")
        asked, device = connected(bench, case)
        assert bench.connectors().disconnect(asked, device).awaiting_unmap
        bench.brick.on_disconnect = lambda: bench.tree.remove("nvme0n1")
        assert not bench.connectors().disconnect(asked, device).awaiting_unmap

    @pytest.mark.parametrize("name", ["local", "rbd"])
    def test_what_we_did_not_make_is_not_unmade(self, bench: Bench, name: str) -> None:
        asked, device = connected(bench, next(case for case in CASES if case.name == name))
        bench.connectors().disconnect(asked, device)
        assert bench.brick.calls == []
        assert bench.connectors().present(device)


class TestPresent:
    def test_under_another_name_too(self, bench: Bench) -> None:
        _, device = connected(bench)
        assert bench.connectors().present(device)
        bench.tree.remove("sdb")
        assert not bench.connectors().present(device)
        bench.tree.scsi("sdq", "65:0", WWN, serial="457b1507")
        assert bench.connectors().present(device)

    def test_not_in_place_while_its_map_is_missing(self, bench: Bench) -> None:
        """open-iscsi logs in at boot, and multipathd is late: guests could not start with it."""
        _, device = connected(bench, MULTIPATH, use_multipath=True)
        assert bench.connectors().in_place(device)
        bench.tree.remove("dm-3")
        assert bench.connectors().present(device)
        assert not bench.connectors().in_place(device)

    def test_not_as_another_volume(self, bench: Bench) -> None:
        _, device = connected(bench)
        bench.tree.remove("sdb")
        other = bench.tree.scsi("sdb", "8:16", OTHER_WWN)
        bench.tree.link(f"disk/by-id/wwn-0x{WWN}", Path(other).name)
        assert not bench.connectors().present(device)

    def test_not_where_its_export_is_not_mounted(self, bench: Bench) -> None:
        """The kernel's table tells: its server is not asked, it may be away."""
        _, device = connected(bench, next(case for case in CASES if case.name == "nfs"))
        assert not bench.connectors().present(device)


def test_a_file_below_a_mount_is_named_without_asking_its_server(bench: Bench) -> None:
    """A stat would tell more names, and hang where the server is away."""
    image(bench)
    source = bench.brick.info["path"]
    assert bench.connectors().names(source) == {source}
    assert bench.connectors(nfs_mount_point_base="/elsewhere").names(source) > {source}


class TestFilesOfVendors:
    def test_a_file_of_this_host_must_be_allowed(self, bench: Bench, tmp_path: Path) -> None:
        """gpfs hands any path to the guest."""
        file = tmp_path.resolve() / "volume-1"
        file.write_bytes(bytes(4096))
        bench.brick.info = {"type": "gpfs", "path": str(file)}
        asked = attachment(
            connection_info={"driver_volume_type": "gpfs", "data": {"device_path": str(file)}}
        )
        with pytest.raises(AgentError, match="below none of"):
            bench.connectors().connect(asked)
        device = bench.connectors(local_allowed_paths=(str(file.parent),)).connect(asked)
        assert (device.path, device.size_bytes) == (str(file), 4096)
        assert asked.connection.source_type == "file"

    def test_one_is_in_place_while_its_file_system_is_mounted(
        self, bench: Bench, tmp_path: Path
    ) -> None:
        table = tmp_path / "mountinfo"
        table.write_text(f"40 25 0:53 / {tmp_path}/gpfs rw master:7 - gpfs gpfs0 rw\n")
        path = f"{tmp_path}/gpfs/volume-1"
        device = Device(path=path, identity={"path": path}, size_bytes=1)
        connectors = bench.connectors(devices=BlockDevices(far=FarFiles(table)))
        assert connectors.in_place(device)
        table.write_text("")
        assert not connectors.in_place(device)

    @pytest.mark.parametrize("protocol", ["nfs", *sorted({*MOUNTED_PROTOCOLS} - {*UNFIT})])
    @pytest.mark.parametrize("name", ["../../etc/shadow", "a/b", "..", ""])
    def test_no_name_leads_out_of_an_export(self, protocol: str, name: str) -> None:
        data = {"export": "192.0.2.40:/vols", "name": name}
        with pytest.raises(AgentError, match="plain file name"):
            attachment(connection_info={"driver_volume_type": protocol, "data": data})


def test_the_initiator_is_asked_each_time(bench: Bench) -> None:
    """os-brick leaves out an HBA that is not online yet, and a tool that is not there."""
    asked: list[dict[str, Any]] = []

    def initiator(**options: Any) -> dict[str, Any]:
        asked.append(options)
        return {"wwpns": [f"2100001b32a{number}" for number in range(len(asked))]}

    connectors = bench.connectors(initiator=initiator)
    assert [len(connectors.properties()["wwpns"]) for _ in range(2)] == [1, 2]
    assert asked[0] == {
        "my_ip": "192.0.2.10",
        "multipath": False,
        "enforce_multipath": True,
        "host": "hypervisor-1",
    }
