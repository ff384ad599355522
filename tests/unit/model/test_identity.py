"""Is the device the one that was asked for?  One spelling for all ways to write an identity."""

import pytest

from agent.model.device import Device, plain_identity, same_device, same_identity

NGUID = "0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("0x5000C500A1B2C3D4", "5000c500a1b2c3d4"),
        ("naa.5000c500a1b2c3d4", "35000c500a1b2c3d4"),
        ("naa.600140512345678900000000deadbeef", "3600140512345678900000000deadbeef"),
        ("eui.0123456789abcdef", "20123456789abcdef"),
        ("01234567-89ab-cdef-0123-456789abcdef", NGUID),
        ("uuid.01234567-89ab-cdef-0123-456789abcdef", NGUID),
        (" 50:00:C5:00:A1:B2:C3:D4 ", "5000c500a1b2c3d4"),
    ],
)
def test_spellings_of_one_identity(one: str, other: str) -> None:
    assert plain_identity(one) == plain_identity(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("5000c500a1b2c3d4", "5000c500a1b2c3d5"), ("serial-12", "serial-1"), ("32", "2")],
)
def test_other_identities(one: str, other: str) -> None:
    assert plain_identity(one) != plain_identity(other)


class TestSameIdentity:
    def test_the_one_that_was_asked_for(self) -> None:
        assert same_identity({"wwn": "0x50"}, {"wwn": "naa.50", "serial": "s"}) == []

    def test_nothing_was_asked_for(self) -> None:
        assert same_identity({}, {"wwn": "50"}) == []

    def test_another_one(self) -> None:
        (wrong,) = same_identity({"wwn": "50"}, {"wwn": "51"})
        assert wrong == "wwn is 51, expected 50"

    def test_every_name_must_be_right(self) -> None:
        wrong = same_identity({"wwn": "50", "serial": "a"}, {"wwn": "50", "serial": "b"})
        assert wrong == ["serial is b, expected a"]

    def test_a_name_that_it_does_not_show(self) -> None:
        (wrong,) = same_identity({"serial": "a"}, {"wwn": "50"})
        assert wrong == "the device shows no serial (expected a); it shows wwn 50"

    def test_an_nguid_that_is_shown_as_wwn(self) -> None:
        assert same_identity({"nguid": NGUID}, {"wwn": f"eui.{NGUID}"}) == []
        assert same_identity({"nguid": NGUID}, {"wwn": "eui.0123456789abcdef"}) != []

    def test_a_serial_is_no_number(self) -> None:
        """Another vendor's device may have this wwn as its serial."""
        assert same_identity({"serial": "5000"}, {"wwn": "5000"}) != []
        assert same_identity({"wwn": "5000"}, {"serial": "5000"}) != []

    @pytest.mark.parametrize("nobody", ["", "0", "0x0000000000000000", "eui.00000000"])
    def test_what_names_no_device_proves_nothing(self, nobody: str) -> None:
        """Cheap targets show zeros: two of them would be "the same"."""
        (wrong,) = same_identity({"wwn": nobody}, {"wwn": nobody})
        assert "names no device" in wrong


class TestSameDevice:
    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ({"wwn": "50", "serial": "a"}, {"wwn": "50", "serial": "b"}),
            ({"wwn": "50", "serial": "a"}, {"serial": "a"}),
            ({"nguid": NGUID}, {"nguid": NGUID, "uuid": "1"}),
            ({"path": "/dev/loop7"}, {"path": "/dev/loop7"}),
        ],
    )
    def test_by_the_strongest_name_that_both_give(
        self, one: dict[str, str], other: dict[str, str]
    ) -> None:
        assert same_device(one, other)
        assert same_device(other, one)

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ({"wwn": "50", "serial": "a"}, {"wwn": "51", "serial": "a"}),
            ({"wwn": "50"}, {"serial": "50"}),
            ({}, {}),
        ],
    )
    def test_a_serial_of_the_array_does_not_make_two_luns_one(
        self, one: dict[str, str], other: dict[str, str]
    ) -> None:
        assert not same_device(one, other)
        assert not same_device(other, one)


class TestOfADeviceThatSaysNothingOfItself:
    LINK = "/dev/storpool-byid/a1b2"

    def device(self, path: str, kernel: str, info: str) -> Device:
        row = {"path": path, "identity": {"path": kernel}, "size_bytes": 1}
        return Device.model_validate({**row, "device_info": {"type": "block", "path": info}})

    def test_an_older_agent_has_written_its_name_in_the_kernel(self) -> None:
        row = self.device(self.LINK, "/dev/sp-3", self.LINK)
        assert row.identity == {"path": self.LINK}

    def test_a_name_that_is_not_its_makers_proves_nothing(self) -> None:
        """Two disks of one model may share it."""
        row = self.device("/dev/disk/by-id/scsi-SMAKER_MODEL", "/dev/sdb", "/dev/sdb")
        assert row.identity == {"path": "/dev/sdb"}

    def test_a_file_behind_it_is_more_than_a_name(self) -> None:
        loop = "/dev/loop7 (/srv/volume-1)"
        assert self.device("/dev/mine", loop, "/dev/mine").identity == {"path": loop}
