"""The facts that are read from libvirt's XML."""

from agent.guest.domain_xml import Note, metadata_xml, parse_domain
from agent.model.mark import METADATA_NAMESPACE


def test_iothreads_are_those_listed_and_the_lowest_others_up_to_the_count() -> None:
    def ids(inside: str) -> set[int]:
        return set(parse_domain(f"<domain>{inside}</domain>").iothread_ids)

    assert ids("") == set()
    assert ids("<iothreads>2</iothreads>") == {1, 2}
    listed = "<iothreadids><iothread id='1'/><iothread id='7'/></iothreadids>"
    assert ids(f"<iothreads>3</iothreads>{listed}") == {1, 2, 7}
    assert ids(listed) == {1, 7}


def test_libvirt_s_own_aliases_identify_nothing() -> None:
    facts = parse_domain(
        "<domain><devices><disk><target dev='vda'/><alias name='virtio-disk0'/></disk>"
        "</devices></domain>"
    )
    assert facts.disk_by_alias("virtio-disk0") is None


def test_boot_orders_tell_who_has_them() -> None:
    facts = parse_domain(
        "<domain><os><boot dev='hd'/></os><devices>"
        "<disk><target dev='vda'/><boot order='2'/><alias name='ua-a'/></disk>"
        "<disk><target dev='vdb'/><boot order='2'/></disk>"
        "<interface><boot order='1'/></interface></devices></domain>"
    )
    assert facts.boot_orders == {2: {"ua-a", "disk vdb"}, 1: {"interface"}}
    assert facts.boots_by_kind
    assert not parse_domain("<domain/>").boots_by_kind


def test_notes_come_back_as_they_were_written() -> None:
    notes = {"ua-a": Note("a", "volume-1", 3), "ua-b": Note("b", "volume-2", None)}
    inner = (
        metadata_xml(notes)
        .replace("<attachments>", f"<laa:attachments xmlns:laa='{METADATA_NAMESPACE}'>")
        .replace("</attachments>", "</laa:attachments>")
    )
    assert parse_domain(f"<domain><metadata>{inner}</metadata></domain>").notes == notes


def test_a_note_that_somebody_spoiled_hides_nothing() -> None:
    facts = parse_domain(
        f"<domain><metadata><laa:attachments xmlns:laa='{METADATA_NAMESPACE}'><!-- by hand -->"
        "<disk alias='ua-a' attachment='a' volume='volume-1' generation='three'/>"
        "</laa:attachments></metadata><devices><disk><target dev='vda'/><alias name='ua-a'/>"
        "</disk></devices></domain>"
    )
    assert facts.disk_by_alias("ua-a") is not None
    assert facts.notes == {"ua-a": Note("a", "volume-1", None)}


def test_a_network_source_is_named_by_protocol_and_name() -> None:
    facts = parse_domain(
        "<domain><devices><disk type='network'><source protocol='rbd' name='pool/image'/>"
        "<target dev='vda'/></disk></devices></domain>"
    )
    assert facts.disks[0].source == "rbd:pool/image"
