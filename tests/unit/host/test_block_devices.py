"""What a device says of itself, and which names mean one device."""

from pathlib import Path

import pytest

from agent.model.device import same_identity
from tests.unit.host.device_tree import DeviceTree

WWN = "60014051f2d74ac5b7e49d1a2f3c8e90"
OTHER_WWN = "6001405aaaaaaaaaaaaaaaaaaaaaaaaa"
UUID = "5b1f8a3e-2c47-4d0a-9e61-7f0c2b9d1a34"


@pytest.fixture
def tree(tmp_path: Path) -> DeviceTree:
    return DeviceTree(tmp_path.resolve())


def identity(tree: DeviceTree, path: str) -> dict[str, str]:
    found = tree.devices.look(path)
    assert found is not None
    return dict(found.identity)


def test_a_lun_says_its_wwn_and_serial(tree: DeviceTree) -> None:
    sdb = tree.scsi("sdb", "8:16", WWN, serial="volume-1")
    assert identity(tree, sdb) == {"wwn": WWN, "serial": "volume-1"}


def test_a_map_says_what_its_paths_say(tree: DeviceTree) -> None:
    sdb = tree.scsi("sdb", "8:16", WWN, serial="volume-1")
    tree.scsi("sdc", "8:32", WWN, serial="volume-1")
    dm = tree.multipath("dm-3", "253:3", WWN, ("sdb", "sdc"))
    assert identity(tree, dm) == identity(tree, sdb)


@pytest.mark.parametrize(
    ("written", "wwn"),
    [
        (f"3{WWN}", WWN),
        ("20025385b71b00c5a", "0025385b71b00c5a"),
        ("eui.0025385b71b00c5a", "0025385b71b00c5a"),
    ],
)
def test_a_map_without_paths_is_known_by_its_own_name(
    tree: DeviceTree, written: str, wwn: str
) -> None:
    dm = tree.add("dm-4", "253:4", {"dm/uuid": f"mpath-{written}"})
    assert identity(tree, dm) == {"wwn": wwn}


def test_a_namespace_is_not_known_by_its_controllers_serial(tree: DeviceTree) -> None:
    head = tree.nvme("nvme0n1", "259:1", uuid=UUID, controllers={"nvme0": "live"})
    assert identity(tree, head) == {"uuid": UUID.replace("-", "")}


def test_numbers_are_compared_in_any_spelling(tree: DeviceTree) -> None:
    sdb = tree.scsi("sdb", "8:16", WWN)
    for spelling in (f"0x{WWN}", f"naa.{WWN}", f"3{WWN}", WWN.upper()):
        assert same_identity({"wwn": spelling}, identity(tree, sdb)) == []


def test_a_logical_volume_is_known_by_the_uuid_that_lvm_gave_it(tree: DeviceTree) -> None:
    tree.scsi("sda", "8:0", WWN, serial="ZA1234")
    lv = tree.add("dm-7", "253:7", {"dm/uuid": "LVM-aBcDeFgH", "dm/name": "vg-lv"}, slaves=("sda",))
    assert identity(tree, lv) == {"uuid": "LVM-aBcDeFgH"}


def test_logical_volumes_on_one_disk_are_neither_it_nor_each_other(tree: DeviceTree) -> None:
    sda = tree.scsi("sda", "8:0", WWN, serial="ZA1234")
    one, other = (
        tree.add(name, number, {"dm/uuid": f"LVM-{name}"}, slaves=("sda",))
        for name, number in (("dm-7", "253:7"), ("dm-8", "253:8"))
    )
    assert [tree.devices.all_of(identity(tree, node)) for node in (sda, one, other)] == [
        [sda],
        [one],
        [other],
    ]


def test_a_loop_device_is_known_by_what_is_behind_it(tree: DeviceTree, tmp_path: Path) -> None:
    loop = tree.loop("loop7", "7:7", tmp_path / "one")
    before = identity(tree, loop)
    tree.remove("loop7")
    assert identity(tree, tree.loop("loop7", "7:7", tmp_path / "two")) != before


def test_size_and_read_only_are_the_kernels_word(tree: DeviceTree) -> None:
    path = tree.add("sdd", "8:48", {"ro": "1"}, mib=7)
    found = tree.devices.look(path)
    assert found is not None
    assert (found.size_bytes, found.read_only) == (7 * 1024 * 1024, True)


def test_a_lun_and_a_map_of_luns_take_scsi_commands(tree: DeviceTree, tmp_path: Path) -> None:
    tree.scsi("sdb", "8:16", WWN)
    tree.scsi("sdc", "8:32", WWN)
    tree.multipath("dm-0", "253:0", WWN, slaves=("sdb", "sdc"))
    tree.add("dm-1", "253:1", {"dm/uuid": "LVM-abc"}, slaves=("sdb",))
    tree.add("loop0", "7:0", {"loop/backing_file": str(tmp_path / "image")})
    found = {
        name: tree.devices.look(str(tree.dev / name)) for name in ("sdb", "dm-0", "dm-1", "loop0")
    }
    assert [look and look.scsi for look in found.values()] == [True, True, False, False]


def test_paths_that_fail_do_not_count(tree: DeviceTree) -> None:
    tree.scsi("sdb", "8:16", WWN)
    tree.scsi("sdc", "8:32", WWN, state="offline")
    dm = tree.devices.look(tree.multipath("dm-3", "253:3", WWN, ("sdb", "sdc")))
    head = tree.devices.look(
        tree.nvme(
            "nvme0n1", "259:1", uuid=UUID, controllers={"nvme0": "live", "nvme1": "connecting"}
        )
    )
    assert dm is not None
    assert head is not None
    assert (dm.paths, head.paths) == (1, 1)


def test_what_is_no_block_device_is_not_found(tree: DeviceTree, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("not a node of any kind")
    assert tree.devices.look(str(plain)) is None
    assert tree.devices.look("/nowhere/at/all") is None


class TestNames:
    """Two sources are one device iff their names meet."""

    def meet(self, tree: DeviceTree, one: str, other: str) -> bool:
        return bool(tree.devices.names(one) & tree.devices.names(other))

    def test_a_link_and_its_node_are_one(self, tree: DeviceTree) -> None:
        sdb = tree.scsi("sdb", "8:16", WWN, by_id=(f"wwn-0x{WWN}",))
        assert self.meet(tree, sdb, str(tree.dev / "disk/by-id" / f"wwn-0x{WWN}"))

    def test_a_map_and_each_of_its_paths_are_one(self, tree: DeviceTree) -> None:
        sdb = tree.scsi("sdb", "8:16", WWN)
        dm = tree.multipath("dm-3", "253:3", WWN, ("sdb",))
        assert self.meet(tree, sdb, dm)

    def test_two_nodes_of_one_number_are_one(self, tree: DeviceTree) -> None:
        lv = tree.add("dm-7", "253:7", {"dm/uuid": "LVM-aBcD"})
        mapper = tree.dev / "mapper" / "vg-lv"
        mapper.parent.mkdir()
        mapper.write_text("253:7")
        assert self.meet(tree, lv, str(mapper))

    def test_two_luns_are_two(self, tree: DeviceTree) -> None:
        sdb, sdc = tree.scsi("sdb", "8:16", WWN), tree.scsi("sdc", "8:32", OTHER_WWN)
        assert not self.meet(tree, sdb, sdc)

    def test_a_loop_device_and_its_file_are_one(self, tree: DeviceTree, tmp_path: Path) -> None:
        file = tmp_path / "volume"
        file.write_text("the contents of a volume")
        loop = tree.loop("loop7", "7:7", file)
        assert self.meet(tree, loop, str(file))

    def test_hard_links_are_one_file(self, tree: DeviceTree, tmp_path: Path) -> None:
        one, other = tmp_path / "one", tmp_path / "other"
        one.write_text("the contents of a volume")
        other.hardlink_to(one)
        assert self.meet(tree, str(one), str(other))

    def test_a_link_that_means_another_device_now_is_that_device(self, tree: DeviceTree) -> None:
        sdb, sdc = tree.scsi("sdb", "8:16", WWN), tree.scsi("sdc", "8:32", OTHER_WWN)
        link = tree.link("disk/by-id/some-name", "sdb")
        assert self.meet(tree, link, sdb)
        tree.link("disk/by-id/some-name", "sdc")
        assert self.meet(tree, link, sdc)
        assert not self.meet(tree, link, sdb)

    @pytest.mark.parametrize("source", ["/dev/disk/by-id/gone", "rbd:pool/image", ""])
    def test_what_is_not_here_has_its_own_name(self, tree: DeviceTree, source: str) -> None:
        assert tree.devices.names(source) == {source}

    def test_a_maker_s_text_does_not_make_two_disks_one(self, tree: DeviceTree) -> None:
        text = {"device/wwid": "t10.ATA     VBOX HARDDISK"}
        one, other = tree.add("sdb", "8:16", text), tree.add("sdc", "8:32", text)
        assert not self.meet(tree, one, other)


class TestFind:
    def test_it_is_found_under_todays_name(self, tree: DeviceTree) -> None:
        known = identity(tree, tree.scsi("sdb", "8:16", WWN, serial="volume-1"))
        tree.remove("sdb")
        assert tree.devices.find(known) is None
        tree.scsi("sdb", "8:16", OTHER_WWN)
        today = tree.scsi("sdq", "65:0", WWN, serial="volume-1")
        assert tree.devices.find(known) == today

    def test_the_map_is_preferred_to_its_paths(self, tree: DeviceTree) -> None:
        known = identity(tree, tree.scsi("sdb", "8:16", WWN))
        dm = tree.multipath("dm-3", "253:3", WWN, ("sdb",))
        assert tree.devices.find(known) == dm
        assert tree.devices.holders(str(tree.dev / "sdb")) == ("dm-3",)

    def test_a_map_that_outlived_its_paths_is_found(self, tree: DeviceTree) -> None:
        """The serial went with them."""
        tree.scsi("sdb", "8:16", WWN, serial="volume-1")
        dm = tree.multipath("dm-3", "253:3", WWN, ("sdb",))
        tree.multipath("dm-4", "253:4", OTHER_WWN, ())
        known = identity(tree, dm)
        tree.remove("sdb")
        assert tree.devices.find(known) == dm
        assert tree.devices.all_of(known) == [dm]

    def test_a_path_that_came_back_is_preferred_to_a_map_without_any(
        self, tree: DeviceTree
    ) -> None:
        """I/O goes by the path."""
        dm = tree.multipath("dm-3", "253:3", WWN, ())
        sdb = tree.scsi("sdb", "8:16", WWN, serial="volume-1")
        known = identity(tree, sdb)
        assert tree.devices.find(known) == sdb
        assert set(tree.devices.all_of(known)) == {sdb, dm}


class TestStableName:
    def stable(self, tree: DeviceTree, path: str, *, is_settled: bool = True) -> str | None:
        found = tree.devices.look(path)
        assert found is not None
        name = tree.devices.stable_name(found, is_settled=is_settled)
        return None if name is None else Path(name).name

    def test_of_a_map(self, tree: DeviceTree) -> None:
        tree.scsi("sdb", "8:16", WWN, by_id=(f"scsi-3{WWN}",))
        dm = tree.multipath("dm-3", "253:3", WWN, ("sdb",))
        assert self.stable(tree, dm) == f"dm-uuid-mpath-3{WWN}"

    def test_of_a_single_path(self, tree: DeviceTree) -> None:
        sdb = tree.scsi("sdb", "8:16", WWN, by_id=(f"scsi-3{WWN}", f"wwn-0x{WWN}"))
        assert self.stable(tree, sdb) == f"wwn-0x{WWN}"

    def test_that_udev_gave_to_another_path_of_the_same_lun(self, tree: DeviceTree) -> None:
        tree.scsi("sdb", "8:16", WWN, by_id=(f"wwn-0x{WWN}",))
        sdc = tree.scsi("sdc", "8:32", WWN)
        assert self.stable(tree, sdc) == f"wwn-0x{WWN}"

    def test_that_still_means_another_lun_is_not_taken(self, tree: DeviceTree) -> None:
        tree.scsi("sdb", "8:16", OTHER_WWN, by_id=(f"wwn-0x{WWN}",))
        sdc = tree.scsi("sdc", "8:32", WWN)
        assert self.stable(tree, sdc) is None

    def test_of_a_namespace(self, tree: DeviceTree) -> None:
        head = tree.nvme("nvme0n1", "259:1", uuid=UUID, controllers={"nvme0": "live"})
        assert self.stable(tree, head, is_settled=False) == f"nvme-uuid.{UUID}"

    def test_that_the_namespaces_of_a_subsystem_share_is_not_taken(self, tree: DeviceTree) -> None:
        head = tree.add("nvme0n1", "259:1", {"wwid": "nvme.1d1d-ec38-4c69-00000001"})
        tree.link("disk/by-id/nvme-Linux_ec38a41d181e34ece84d", "nvme0n1")
        assert self.stable(tree, head) is None
        tree.link("disk/by-id/nvme-nvme.1d1d-ec38-4c69-00000001", "nvme0n1")
        assert self.stable(tree, head) == "nvme-nvme.1d1d-ec38-4c69-00000001"

    def test_of_a_lesser_kind_is_taken_once_no_better_one_can_come(self, tree: DeviceTree) -> None:
        sdb = tree.scsi("sdb", "8:16", WWN, by_id=("scsi-SLIO-ORG_volume_1",))
        assert self.stable(tree, sdb, is_settled=False) is None
        assert self.stable(tree, sdb) == "scsi-SLIO-ORG_volume_1"


def test_the_kernel_is_told_to_ask_every_path_again(tree: DeviceTree) -> None:
    for name, number in (("sdb", "8:16"), ("sdc", "8:32"), ("sdd", "8:48")):
        tree.scsi(name, number, WWN)
    found = tree.devices.look(tree.multipath("dm-3", "253:3", WWN, ("sdb", "sdc")))
    assert found is not None
    tree.devices.ask_again(found)
    asked = {
        name
        for name in ("sdb", "sdc", "sdd")
        if (tree.sys / "class/block" / name / "device/rescan").read_text() == "1"
    }
    assert asked == {"sdb", "sdc"}
