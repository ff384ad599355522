"""What is told of a domain whose QEMU hangs, and for how long."""

from dataclasses import dataclass, field

import libvirt

from agent.host.libvirt_looks import HANGS_MILLISECONDS, LastLooks
from agent.ports import DomainLook


@dataclass
class Domain:
    """A libvirt.virDomain; ``asked`` counts how often it was asked for its XML."""

    content: str = "before"
    unanswered_milliseconds: int = 0
    number: int = 1
    asked: int = 0
    looks: LastLooks = field(default_factory=LastLooks)

    def UUIDString(self) -> str:
        return "instance-1"

    def name(self) -> str:
        return "guest-1"

    def ID(self) -> int:
        return self.number

    def controlInfo(self) -> tuple[int, int, int]:
        if self.number < 0:
            raise libvirt.libvirtError("asked of one that does not run")
        occupied = libvirt.VIR_DOMAIN_CONTROL_OCCUPIED
        is_occupied = self.unanswered_milliseconds > 0
        return occupied if is_occupied else 0, 0, self.unanswered_milliseconds

    def XMLDesc(self, flags: int) -> str:
        self.asked += 1
        which = "" if flags or self.number < 0 else f" id='{self.number}'"
        return f"<domain{which}>{self.content}</domain>"

    def look(self) -> DomainLook:
        state = {"state.state": libvirt.VIR_DOMAIN_RUNNING}
        [found] = self.looks.of_all([(self, state)], frozenset())
        return found

    def hang(self) -> None:
        self.unanswered_milliseconds, self.asked = HANGS_MILLISECONDS, 0


def test_one_that_hangs_is_as_it_was_and_is_not_asked() -> None:
    domain = Domain()
    before = domain.look()
    domain.hang()
    assert [domain.look(), domain.look()] == [before, before]
    assert domain.asked == 0


def test_one_that_is_only_busy_is_asked() -> None:
    domain = Domain()
    domain.look()
    domain.unanswered_milliseconds = HANGS_MILLISECONDS - 1
    domain.content = "after"
    assert "after" in (domain.look().live_xml or "")


def test_one_that_answers_again_is_asked() -> None:
    domain = Domain()
    domain.look()
    domain.hang()
    domain.look()
    domain.unanswered_milliseconds, domain.content = 0, "after"
    assert "after" in (domain.look().live_xml or "")


def test_one_that_was_never_seen_or_has_started_anew_is_asked() -> None:
    domain = Domain()
    domain.hang()
    domain.look()
    assert domain.asked > 0
    domain.hang()
    domain.number += 1
    domain.look()
    assert domain.asked > 0


def test_one_that_was_changed_since_is_asked() -> None:
    domain = Domain()
    domain.look()
    domain.looks.forget("instance-1")
    domain.hang()
    domain.look()
    assert domain.asked > 0


def test_a_change_during_a_look_makes_it_worthless() -> None:
    class Changing(Domain):
        def XMLDesc(self, flags: int) -> str:
            self.looks.forget("instance-1")
            return super().XMLDesc(flags)

    domain = Changing()
    domain.look()
    domain.hang()
    domain.look()
    assert domain.asked > 0


def test_a_look_that_began_earlier_is_not_kept_over_a_later_one() -> None:
    domain = Domain()
    later = Domain(content="later", looks=domain.looks)

    class Slow(Domain):
        def name(self) -> str:
            later.look()
            return super().name()

    Slow(looks=domain.looks).look()
    domain.hang()
    assert "later" in (domain.look().live_xml or "")


def test_one_that_does_not_run_is_asked_for_its_xml_alone() -> None:
    assert Domain(number=-1).look().state == "shutoff"
