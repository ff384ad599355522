"""A domain as it runs and as it is defined: a disk may be in one of them, in both, or in none."""

from dataclasses import dataclass
from typing import Any

from agent.guest.domain_xml import DiskFacts, DomainFacts, parse_domain
from agent.ports import DomainXml


@dataclass(frozen=True)
class Halves:
    """One domain's disks, as it runs and as it is defined."""

    look: DomainXml
    live: DomainFacts | None
    inactive: DomainFacts | None

    def alias_of(self, attachment_id: str, alias: str) -> str:
        """What the attachment's disk is found by: ``alias``, unless a note in the domain says it
        otherwise. After a swap the alias is that of an attachment that has ended, whoever asks for
        that one must not get the disk; and the note outlives our journal.

        Empty, which no disk has, where ``alias`` is, or is another attachment's by now."""
        if not alias:
            return alias
        notes = {**(self.inactive.notes if self.inactive else {})}
        notes |= self.live.notes if self.live else {}
        for noted, note in notes.items():
            if note.attachment_id == attachment_id:
                return noted
        return alias if alias not in notes else ""

    def disk(self, alias: str) -> DiskFacts | None:
        """The disk in the half that the guest sees, else in the other."""
        return self.live_disk(alias) or self.defined_disk(alias)

    def first_disk(self, alias: str) -> DiskFacts | None:
        """In the half that a change begins with: the running guest, else the definition."""
        return self.live_disk(alias) if self.look.active else self.defined_disk(alias)

    def shown(self, alias: str) -> dict[str, Any] | None:
        """The disk as answers tell it, with what libvirt shows as its alias; None: it has none."""
        live, defined = self.live_disk(alias), self.defined_disk(alias)
        disk = live or defined
        if disk is None:
            return None
        return {
            "target_dev": disk.target_dev,
            "alias": disk.libvirt_alias,
            "serial": disk.serial,
            "address": disk.address,
            "live": live is not None,
            "persistent": defined is not None,
        }

    def live_disk(self, alias: str) -> DiskFacts | None:
        return None if self.live is None else self.live.disk_by_alias(alias)

    def defined_disk(self, alias: str) -> DiskFacts | None:
        return None if self.inactive is None else self.inactive.disk_by_alias(alias)


def halves(look: DomainXml) -> Halves:
    return Halves(
        look,
        None if look.live_xml is None else parse_domain(look.live_xml),
        None if look.inactive_xml is None else parse_domain(look.inactive_xml),
    )


def live_disk(look: DomainXml | None, alias: str) -> DiskFacts | None:
    """Of the running guest, where there is one that has it."""
    return None if look is None else halves(look).live_disk(alias)
