"""A disk that was another attachment's once: found by its stored alias, and by nobody else."""

from agent.guest.domain_xml import Note, metadata_xml, parse_domain
from agent.journal.book import Book
from agent.journal.record import Held
from tests.unit.operations.asking import ask, refused
from tests.unit.saga.stories import ONE, lose_journal
from tests.world.story import (
    VOLUMES,
    attach,
    attached,
    attachment,
    detach,
    disconnect_instance,
    set_iotune,
)
from tests.world.world import World


def inherit(world: World, *, is_noted: bool = True) -> None:
    """What was att-1 is att-2 from now on."""
    attached(world, 1)

    def change(book: Book) -> None:
        held = book.attachment("att-1")
        assert held is not None
        heir = held.attachment.model_copy(update={"attachment_id": "att-2"})
        book.drop("att-1")
        disk = {**held.disk, "alias": "ua-att-1"}
        book.keep(Held(heir.found_as(held.attachment), held.operation_id, held.device, disk))
        book.raise_fence("att-2", newest=None, detached=None, now=0.0, volume_id=VOLUMES[0])

    world.journal.write(change)
    if is_noted:
        note = Note("att-2", VOLUMES[0], None)
        world.domains.note(ONE, metadata_xml({"ua-att-1": note}))


def disks(world: World) -> list[list[str | None]]:
    guest = world.domains.guests[ONE]
    halves = (guest.live, guest.inactive)
    return [[disk.alias for disk in parse_domain(xml).disks] if xml else [] for xml in halves]


HAS = [["ua-att-1"], ["ua-att-1"]]


def test_it_survives_the_agent(world: World) -> None:
    inherit(world)
    world.die()
    world.start()
    (held,) = world.journal.read(lambda book: book.attachments())
    assert (held.attachment.alias, held.attachment.serial) == ("ua-att-1", VOLUMES[0])


def test_behind_its_detach_it_is_not_attached_as_what_it_was(world: World) -> None:
    inherit(world)
    detach(1, 2)(world)
    code, _ = refused(world, attach(2, 2))
    assert code == "busy"
    world.run()
    assert ask(world, attach(3, 2))["state"] == "done"
    assert disks(world) == [["ua-att-2"], ["ua-att-2"]]


def test_its_attachment_is_detached(world: World) -> None:
    inherit(world)
    assert ask(world, detach(1, 2))["result"]["disconnected"] is True
    assert disks(world) == [[], []]
    assert parse_domain(world.domains.guests[ONE].live or "").notes == {}


def test_its_limits_change(world: World) -> None:
    inherit(world)
    assert ask(world, set_iotune(1, {"total_iops_sec": 9}, 2))["state"] == "done"


def test_its_attachment_is_attached_already(world: World) -> None:
    inherit(world)
    answer = ask(world, attach(1, 2))
    assert (answer["state"], answer["result"]["disk"]["alias"]) == ("done", "ua-att-1")
    assert disks(world) == HAS


def test_who_ended_does_not_take_it_away(world: World) -> None:
    """Neither where the journal tells nor where only the note does."""
    inherit(world, is_noted=False)
    assert ask(world, detach(1, 1))["result"]["disconnected"] is False
    assert disks(world) == HAS
    world.domains.destroy(ONE)
    assert ask(world, disconnect_instance(2, 1))["state"] == "done"
    assert disks(world)[1] == ["ua-att-1"]


def test_nor_with_the_whole_of_what_it_was(world: World) -> None:
    """A domain that was defined anew since has no note of ours."""
    inherit(world, is_noted=False)
    again = detach(1, 1, attachment=attachment(1))
    assert ask(world, again)["result"]["disconnected"] is False
    assert disks(world) == HAS


def test_the_note_tells_whose_it_is_when_the_journal_is_lost(world: World) -> None:
    inherit(world)
    lose_journal(world)
    other = detach(1, 1, attachment=attachment(1, volume=2))
    assert ask(world, other)["state"] == "done"
    assert disks(world) == HAS
    assert ask(world, detach(2, 2, attachment=attachment(2)))["result"]["disconnected"] is True
    assert disks(world) == [[], []]
