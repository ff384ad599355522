"""Who may share a volume: how many may write, and whose reservations count."""

from typing import Any

import pytest

from tests.unit.admission.test_admit import accepted, refused, sent
from tests.unit.saga.stories import ONE, RESERVING, SHARED, TWO, lose_journal
from tests.unit.saga.stories_of_networks import PASSWORD, fabric, own, two_own
from tests.world.story import INSTANCES, attach, attached, detach, request_id
from tests.world.world import World

THREE = INSTANCES[2]


@pytest.fixture
def crowd(world: World) -> World:
    world.domains.add(TWO)
    world.domains.add(THREE)
    return world


def detail(world: World, ask: Any) -> str:
    return str(sent(world, ask)["error"]["detail"])


class TestSectors:
    def test_two_sizes_of_them_on_one_volume_are_refused(self, crowd: World) -> None:
        accepted(crowd, attach(1, 1, **SHARED))
        other = attach(2, 2, instance=2, disk={"block_size": {"logical": 4096}}, **SHARED)
        assert refused(crowd, other) == "sharing-conflict"
        assert "sectors of 512 bytes" in detail(crowd, other)

    def test_the_same_said_in_two_ways_is_the_same(self, crowd: World) -> None:
        accepted(crowd, attach(1, 1, **SHARED))
        same = {"block_size": {"logical": 512, "physical": 4096}}
        accepted(crowd, attach(2, 2, instance=2, disk=same, **SHARED))


class TestWriters:
    def test_one_more_than_the_limit_is_refused_and_names_them(self, crowd: World) -> None:
        accepted(crowd, attach(1, 1, max_writers=2, **SHARED))
        accepted(crowd, attach(2, 2, instance=2, max_writers=2, **SHARED))
        third = attach(3, 3, instance=3, max_writers=2, **SHARED)
        assert refused(crowd, third) == "sharing-conflict"
        assert "att-1, att-2, att-3" in detail(crowd, third)

    @pytest.mark.parametrize(("first", "second"), [(1, None), (None, 1), (1, 3), (3, 1)])
    def test_the_smallest_limit_holds_for_all(
        self, crowd: World, first: int | None, second: int | None
    ) -> None:
        accepted(crowd, attach(1, 1, max_writers=first, **SHARED))
        assert (
            refused(crowd, attach(2, 2, instance=2, max_writers=second, **SHARED))
            == "sharing-conflict"
        )

    def test_a_reader_does_not_count(self, crowd: World) -> None:
        accepted(crowd, attach(1, 1, max_writers=1, **SHARED))
        accepted(crowd, attach(2, 2, instance=2, access_mode="ro", max_writers=1, **SHARED))
        assert (
            refused(crowd, attach(3, 3, instance=3, max_writers=1, **SHARED)) == "sharing-conflict"
        )

    def test_a_writer_that_has_left_counts_no_more(self, crowd: World) -> None:
        accepted(crowd, attach(1, 1, max_writers=1, **SHARED))
        accepted(crowd, detach(2, 1))
        accepted(crowd, attach(3, 2, instance=2, max_writers=1, **SHARED))

    def test_an_attach_that_is_sent_again_is_no_second_writer(self, crowd: World) -> None:
        accepted(crowd, attach(1, 1, max_writers=1, **SHARED))
        accepted(crowd, attach(2, 1, max_writers=1, **SHARED))

    def test_the_disk_of_somebody_else_counts(self, crowd: World) -> None:
        attached(crowd, 2, instance=2, **SHARED)
        lose_journal(crowd)
        accepted(crowd, attach(1, 1, max_writers=1, **SHARED))
        undone = crowd.record(request_id(1))
        assert undone.state == "undone"
        assert undone.cause is not None
        assert undone.cause.code == "sharing-conflict"
        assert "guest-2" in undone.cause.detail
        accepted(crowd, attach(3, 1, max_writers=1, access_mode="ro", **SHARED))
        assert crowd.record(request_id(3)).state == "done"


class TestReservations:
    def test_a_second_guest_would_be_the_same_initiator(self, crowd: World) -> None:
        accepted(crowd, attach(1, 1, **RESERVING))
        second = attach(2, 2, instance=2, **RESERVING)
        assert refused(crowd, second) == "sharing-conflict"
        assert f"instance {ONE} (attachment att-1) makes reservations" in detail(crowd, second)
        accepted(crowd, detach(3, 1))
        accepted(crowd, second)

    def test_one_guest_may_reserve_two_volumes(self, crowd: World) -> None:
        accepted(crowd, attach(1, 1, **RESERVING))
        accepted(crowd, attach(2, 2, volume=2, **RESERVING))

    def test_who_does_not_reserve_may_share(self, crowd: World) -> None:
        accepted(crowd, attach(1, 1, **RESERVING))
        accepted(crowd, attach(2, 2, instance=2, **SHARED))
        assert crowd.record(request_id(2)).state == "done"

    def test_the_reservations_of_somebody_elses_disk_count(self, crowd: World) -> None:
        attached(crowd, 2, instance=2, **RESERVING)
        lose_journal(crowd)
        accepted(crowd, attach(1, 1, **RESERVING))
        cause = crowd.record(request_id(1)).cause
        assert cause is not None
        assert (cause.code, "guest-2" in cause.detail) == ("sharing-conflict", True)
        accepted(crowd, attach(3, 1, **SHARED))
        assert crowd.record(request_id(3)).state == "done"

    def test_a_disk_without_reservations_is_another_disk(self, crowd: World) -> None:
        attached(crowd, 1, **SHARED, disk={"bus": "scsi", "type": "lun"})
        accepted(crowd, attach(1, 1, **RESERVING))
        cause = crowd.record(request_id(1)).cause
        assert cause is not None
        assert "reservations is False, not True" in cause.detail


class TestInitiators:
    """Who reaches the volume by the host's initiator, and who by one of his own."""

    @pytest.mark.parametrize("is_own", [(True, False), (False, True)], ids=["own-first", "last"])
    def test_on_one_host_all_guests_of_a_volume_say_the_same(
        self, crowd: World, is_own: tuple[bool, bool]
    ) -> None:
        fabric()(crowd)
        first, second = (own() if one else SHARED for one in is_own)
        accepted(crowd, attach(1, 1, **first))
        refusal = attach(2, 2, **{**second, "instance": 2})
        assert refused(crowd, refusal) == "sharing-conflict"
        assert "all guests of a volume on one host say the same" in detail(crowd, refusal)

    @pytest.mark.parametrize("is_own", [(True, False), (False, True)], ids=["own-first", "last"])
    def test_the_disk_of_somebody_else_counts(
        self, crowd: World, is_own: tuple[bool, bool]
    ) -> None:
        fabric()(crowd)
        first, second = (own() if one else SHARED for one in is_own)
        attached(crowd, 1, **first)
        lose_journal(crowd)
        accepted(crowd, attach(2, 2, **{**second, "instance": 2}))
        cause = crowd.record(request_id(2)).cause
        assert cause is not None
        assert (cause.code, "guest-1" in cause.detail) == ("sharing-conflict", True)

    def test_a_detach_that_is_repeated_says_that_the_guests_own_way_is_gone(
        self, crowd: World
    ) -> None:
        """The other guest has the volume still, by a mapping of its own."""
        two_own(crowd)
        for request in (1, 2):
            accepted(crowd, detach(request, 1))
            result = crowd.record(request_id(request)).result
            assert result is not None
            assert result["disconnected"] is True

    def test_a_password_belongs_to_one_guest(self, crowd: World) -> None:
        two_own(crowd)
        assert sorted(crowd.secrets.values.values()) == [
            f"{PASSWORD} {number}".encode() for number in (1, 2)
        ]
