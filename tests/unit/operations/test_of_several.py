"""attach_batch, connect_instance and disconnect_instance, from the request to the answer."""

from typing import Any

import pytest
from lxml import etree

from tests.unit.operations.asking import ask, refused
from tests.unit.saga.stories import ONE, SHARED, TWO, away, device_stays, guest_is
from tests.unit.saga.stories_of_several import BOTH, boots, connected_for, refuses_second
from tests.world.story import (
    VOLUMES,
    Ask,
    attach,
    attach_batch,
    attached,
    attachment,
    connect_instance,
    detach,
    disconnect_instance,
    request_id,
)
from tests.world.world import World


class TestRequest:
    @pytest.mark.parametrize(
        ("second", "wrong"),
        [
            (attachment(1, volume=2), "attachment_id att-1 is there twice"),
            (attachment(2, volume=1), "volume_id"),
            (attachment(2, volume=2, instance=2), "of several instances"),
            (attachment(2, volume=2, disk={"target_dev": "vdb", "boot_order": 2}), "target_dev"),
            (attachment(2, volume=2, disk={"target_dev": "vdc", "boot_order": 1}), "boot_order"),
        ],
    )
    def test_what_would_collide_in_one_instance(
        self, world: World, second: dict[str, Any], wrong: str
    ) -> None:
        first = attachment(1, disk={"target_dev": "vdb", "boot_order": 1})
        code, detail = refused(world, attach_batch(1, first, second))
        assert code == "invalid"
        assert wrong in detail

    def test_a_batch_of_nothing(self, world: World) -> None:
        assert refused(world, attach_batch(1))[0] == "invalid"

    def test_attachments_of_another_instance(self, world: World) -> None:
        code, detail = refused(world, connect_instance(1, attachment(1, instance=2)))
        assert (code, "another instance_id" in detail) == ("invalid", True)

    def test_one_that_is_named_twice(self, world: World) -> None:
        attached(world)
        assert refused(world, disconnect_instance(1, 1, 1))[0] == "invalid"

    def test_all_is_a_word_or_nothing(self, world: World) -> None:
        request = dict(disconnect_instance(1).request)
        request["attachments"] = "every"
        assert refused(world, Ask("disconnect_instance", request))[0] == "invalid"
        del request["attachments"]
        assert ask(world, Ask("disconnect_instance", request))["result"] == []


class TestAdmission:
    """One refusal refuses all."""

    def test_a_sharing_conflict_of_one(self, world: World) -> None:
        world.domains.add(TWO)
        attached(world, 7, instance=2, volume=2)
        assert refused(world, attach_batch(1, *BOTH))[0] == "sharing-conflict"
        assert refused(world, connect_instance(1, *BOTH))[0] == "sharing-conflict"
        assert {device.volume_id for device in world.storage.devices.values()} == {VOLUMES[1]}

    def test_a_stale_generation_of_one(self, world: World) -> None:
        ask(world, attach(1, 2, volume=2, generation=5))
        ask(world, detach(2, 2, generation=5))
        both = (attachment(1, generation=1), attachment(2, volume=2, generation=5))
        assert refused(world, attach_batch(3, *both))[0] == "stale"
        assert refused(world, connect_instance(4, *both))[0] == "stale"

    def test_a_batch_that_waits_counts_for_each(self, world: World) -> None:
        world.domains.add(TWO)
        away(world)
        attach_batch(1, *BOTH).send(world)
        world.run()
        assert refused(world, attach(2, 7, instance=2, volume=2))[0] == "sharing-conflict"
        assert refused(world, detach(3, 2))[0] == "busy"

    def test_while_one_of_them_is_parked_all_is_busy(self, world: World) -> None:
        attached(world, 2, volume=2)
        guest_is("stubborn")(world)
        detach(1, 2)(world)
        world.run()
        assert refused(world, attach_batch(2, *BOTH))[0] == "busy"

    def test_a_disconnect_fences_what_it_names_and_all_fences_the_newest(
        self, world: World
    ) -> None:
        for number in (1, 2):
            whole = attachment(number, volume=number, generation=4)
            ask(world, connect_instance(number, whole))
        refs = [{"attachment_id": "att-1", "generation": 3}]
        assert refused(world, disconnect_instance(3, attachments=refs))[0] == "stale"
        ask(world, disconnect_instance(3))
        for number in (1, 2):
            again = attachment(number, volume=number, generation=4)
            assert refused(world, connect_instance(3 + number, again))[0] == "stale"


class TestBatch:
    def test_the_rows_and_the_notifications_name_each(self, world: World) -> None:
        ask(world, attach_batch(1, *BOTH))
        (row,) = world.agent.query("list_operations", {"filters": {"attachment_id": "att-2"}})[
            "operations"
        ]
        assert (row["attachment_id"], row["volume_id"], row["instance_id"]) == (None, None, ONE)
        assert row["attachment_ids"] == ["att-1", "att-2"]
        assert row["volume_ids"] == VOLUMES[:2]
        for letter in world.letters():
            assert letter["attachment_ids"] == ["att-1", "att-2"]
            assert (letter["instance_ids"], letter["volume_ids"]) == ([ONE], VOLUMES[:2])
        plugs = [step for step in row["steps"] if step["name"] == "plug-disk"]
        assert [step["attachment_id"] for step in plugs] == ["att-1", "att-2"]

    def test_nothing_is_plugged_before_all_is_connected(self, world: World) -> None:
        ask(world, attach_batch(1, *BOTH))
        calls = [name for name in world.instants.passed if name in ("after connect", "after plug")]
        assert calls == ["after connect"] * 2 + ["after plug"] * 2

    def test_a_warning_says_whose_it_is(self, world: World) -> None:
        cached = {**SHARED, "disk": {"cache": "writeback"}}
        answer = ask(world, attach_batch(1, attachment(1, **cached), attachment(2, volume=2)))
        assert answer["warnings"] == [
            "attachment att-1: cache: forced to none, because the volume is shared"
        ]

    def test_undone_it_waits_for_the_guest_to_give_back_what_it_took(self, world: World) -> None:
        guest_is("stubborn")(world)
        refuses_second(world)
        answer = ask(world, attach_batch(1, *BOTH))
        assert (answer["state"], answer["waiting_for"]) == ("waiting", "the guest to release vda")
        world.domains.reset(ONE)
        world.run()
        assert world.record(request_id(1)).state == "undone"
        assert world.storage.devices == {}

    def test_a_plan_of_it_shows_each_disk_in_its_own_place(self, world: World) -> None:
        """And a second controller where the first disks fill the last port."""
        several = [attachment(1), attachment(2, volume=2, disk={"bus": "scsi"})]
        found = world.agent.query(
            "plan", {"verb": "attach_batch", "request": dict(attach_batch(1, *several).request)}
        )
        assert found["refusal"] is None
        assert [disk["attachment_id"] for disk in found["disks"]] == ["att-1", "att-2"]
        targets = [
            etree.fromstring(disk["disk_xml"]).find("target").get("dev") for disk in found["disks"]
        ]
        assert targets == ["vda", "sda"]


class TestInstance:
    def test_the_xml_names_the_device_and_boots_in_order(self, world: World) -> None:
        root = attachment(1, disk={"boot_order": 1}, **SHARED)
        data = attachment(2, volume=2, disk={"target_dev": "vda"})
        first, second = ask(world, connect_instance(1, root, data))["result"]
        disk = etree.fromstring(first["disk_xml"])
        assert disk.find("boot").get("order") == "1"
        assert disk.find("source").get("dev") == first["device"]["path"]
        assert disk.find("alias").get("name") == "ua-att-1"
        assert disk.find("shareable") is not None
        assert disk.find("address") is None
        assert (first["disk"]["target_dev"], second["disk"]["target_dev"]) == ("vdb", "vda")

    def test_no_guest_is_asked_or_changed(self, world: World) -> None:
        world.domains.add(ONE)
        before = world.domains.outline()
        ask(world, connect_instance(1, attachment(1)))
        ask(world, disconnect_instance(2))
        assert world.domains.outline() == before

    def test_what_runs_is_refused_by_the_name_of_its_disk(self, world: World) -> None:
        connected_for(world)
        boots(world)
        answer = ask(world, disconnect_instance(1))
        assert (answer["state"], answer["error"]["code"]) == ("undone", "busy")
        assert "the instance runs with the volume as vda" in answer["error"]["detail"]
        assert "nothing was touched" in answer["error"]["detail"]

    def test_a_volume_under_another_name_is_still_what_the_guest_runs_with(
        self, world: World
    ) -> None:
        """The caller has defined the domain from XML of his own."""
        connected_for(world)
        boots(world)
        guest = world.domains.guests[ONE]
        guest.live = (guest.live or "").replace("ua-att-1", "ua-other")
        answer = ask(world, disconnect_instance(1))
        assert (answer["state"], answer["error"]["code"]) == ("undone", "busy")

    def test_an_attachment_that_has_ended_is_looked_for_by_its_alias(self, world: World) -> None:
        """Somebody has plugged it again without us: the running guest is not asked for it."""
        connected_for(world)
        boots(world)
        guest = world.domains.guests[ONE]
        live, inactive = guest.live, guest.inactive
        ask(world, detach(1))
        guest.live, guest.inactive = live, inactive
        asked = guest.asked
        answer = ask(world, disconnect_instance(2, 1))
        assert (answer["state"], answer["error"]["code"]) == ("undone", "busy")
        assert guest.asked == asked

    def test_all_promises_are_withdrawn_before_the_first_is_disconnected(
        self, world: World
    ) -> None:
        connected_for(world)
        connected_for(world, 2, volume=2)
        device_stays(world)
        assert ask(world, disconnect_instance(1))["state"] == "unsettled"
        rows = world.journal.read(lambda book: book.attachments())
        assert [row.promised for row in rows] == [False, False]

    def test_what_waits_for_its_domain_is_no_finding(self, world: World) -> None:
        connected_for(world)
        assert world.agent.query("audit", {})["findings"] == []
        boots(world)
        assert world.agent.query("audit", {})["findings"] == []

    def test_of_another_instance_nothing_is_disconnected(self, world: World) -> None:
        connected_for(world)
        assert refused(world, disconnect_instance(1, 1, instance=2))[0] == "invalid"
        assert ask(world, disconnect_instance(2, instance=2))["result"] == []
        assert len(world.storage.devices) == 1

    def test_a_host_that_comes_back_disconnects_by_its_own_journal(self, world: World) -> None:
        """Evacuated meanwhile: the caller knows no ids of this host, the journal does."""
        connected_for(world)
        world.die()
        world.domains.undefine(ONE)
        world.start()
        (row,) = ask(world, disconnect_instance(1))["result"]
        assert (row["attachment_id"], row["disconnected"]) == ("att-1", True)
        assert row["instance_present"] is False
