"""What libvirt tells of domains by their XML, also where a QEMU hangs."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

import libvirt

from agent.host.libvirt_refusals import is_no_such_domain, is_no_such_half
from agent.ports import DomainLook, DomainState, DomainXml

VirDomain = Any
"""A libvirt.virDomain."""

HANGS_MILLISECONDS: Final = 2000
"""What a monitor command takes that a QEMU does not answer; usual ones take a few."""

_STANDING: Final = frozenset(
    (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PMSUSPENDED, libvirt.VIR_DOMAIN_CRASHED)
)


class LastLooks:
    """Of running domains, for as long as they do not answer.

    While a command to a QEMU is not answered libvirt 11.3 holds back the XML of its domain for 30
    seconds (9.0 does not), and every attach and detach on the host asks for that of all. Of a
    domain whose command hangs already the look before is told instead. Nothing is plugged into it
    meanwhile, and what it has let go since counts as used. One that it got between the look and the
    command from somebody else is not known: whoever disconnects asks the kernel, too (openers)."""

    def __init__(self) -> None:
        self._begun = 0
        self._known: Mapping[tuple[str, int], DomainXml] = {}

    def forget(self, instance_id: str) -> None:
        """It was changed: only another look tells of that."""
        self._known = {key: xml for key, xml in self._known.items() if key[0] != instance_id}

    def of_all(
        self, states: Collection[tuple[VirDomain, Mapping[str, Any]]], transient: frozenset[str]
    ) -> list[DomainLook]:
        """A domain that comes or goes meanwhile may be missing."""
        self._begun += 1
        number, known = self._begun, self._known
        found = dict(self._xml_of_all(states, transient))
        if number == self._begun and known is self._known:  # else it is older than what is known
            self._known = {key: xml for key, (xml, _) in found.items()}
        return [look_of(xml, state) for xml, state in found.values()]

    def _xml_of_all(
        self, states: Collection[tuple[VirDomain, Mapping[str, Any]]], transient: frozenset[str]
    ) -> Iterator[tuple[tuple[str, int], tuple[DomainXml, int]]]:
        for domain, state in states:
            key = domain.UUIDString(), domain.ID()
            try:
                xml = self._known.get(key) if _hangs(domain) else None
                xml = xml or read(domain, is_persistent=key[0] not in transient)
            except libvirt.libvirtError as error:
                if not is_no_such_domain(error.get_error_code()):
                    raise
            else:
                yield key, (xml, state["state.state"])


def read(domain: VirDomain, *, is_persistent: bool) -> DomainXml:
    return DomainXml(
        instance_id=domain.UUIDString(),
        name=domain.name(),
        live_xml=live_xml(domain),
        inactive_xml=domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE) if is_persistent else None,
    )


def look_of(xml: DomainXml, running: int) -> DomainLook:
    """``running``: its state, where it runs at all, which the XML tells."""
    standing: DomainState = "paused" if running in _STANDING else "running"
    return DomainLook(**vars(xml), state=standing if xml.active else "shutoff")


def live_xml(domain: VirDomain) -> str | None:
    """None unless it runs, told by the same answer: only what runs has an id."""
    xml: str = domain.XMLDesc(0)
    return xml if " id=" in xml[: xml.index(">")] else None


def unanswered_milliseconds(domain: VirDomain) -> int:
    """For how long a command to its QEMU has not been answered; 0: there is none."""
    try:
        state, _details, since_milliseconds = domain.controlInfo()
    except libvirt.libvirtError as error:
        if is_no_such_half(error.get_error_code(), str(error)):
            return 0  # it has stopped
        raise
    return since_milliseconds if state == libvirt.VIR_DOMAIN_CONTROL_OCCUPIED else 0


def _hangs(domain: VirDomain) -> bool:
    is_running = domain.ID() >= 0
    return is_running and unanswered_milliseconds(domain) >= HANGS_MILLISECONDS
