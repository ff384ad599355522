"""What calls an agent: makes requests, waits for their end, and looks at what is left behind."""

import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import libvirt

from agent.bus.client import AgentClient, Refused
from agent.guest.domain_xml import parse_domain
from agent.guest.xml import XmlElement, parse
from agent.model.outcome import Answer
from tests.lab.guest import Guest
from tests.lab.loop_volume import LoopVolume
from tests.lab.patience import PATIENCE, wait_until

OPERATION_SECONDS = 60.0 * PATIENCE

Wish = dict[str, Any]
"""An attachment as the wire has it."""


def wish(guest: Guest, volume: LoopVolume, *, disk: Mapping[str, Any] = {}, **other: Any) -> Wish:
    return {
        "attachment_id": str(uuid.uuid4()),
        "instance_id": guest.uuid,
        "volume_id": volume.volume_id,
        "connection_info": volume.connection_info(),
        "size_bytes": volume.size_bytes,
        "disk": dict(disk),
        **other,
    }


def alias_of(wanted: Wish) -> str:
    return f"ua-{wanted['attachment_id']}"


class Orchestrator:
    """``client`` is for what is not worth a word of its own."""

    def __init__(self, client: AgentClient) -> None:
        self.client = client

    def finish(self, accepted: Answer, *, seconds: float = OPERATION_SECONDS) -> Answer:
        """Its end, a refusal included."""
        if accepted.closed or accepted.operation_id is None:
            return accepted
        answer = self.client.wait(accepted.operation_id, seconds)
        assert answer.closed, f"{answer.verb} is {answer.state}, waiting for {answer.waiting_for}"
        return answer

    def attach(self, wanted: Wish, **envelope: Any) -> Answer:
        return self.finish(self.client.attach(wanted, **envelope))

    def attached(self, wanted: Wish, **envelope: Any) -> dict[str, Any]:
        """The result of an attach that must succeed."""
        return _result(self.attach(wanted, **envelope))

    def swap(self, wanted: Wish, new: Wish, **envelope: Any) -> Answer:
        """``wanted`` is in place."""
        return self.finish(self.client.swap(wanted["attachment_id"], new, **envelope))

    def ask_to_detach(self, wanted: Wish, **envelope: Any) -> Answer:
        """Accepted; the guest may take its time."""
        accepted = self.client.detach(wanted["attachment_id"], wanted["instance_id"], **envelope)
        assert accepted.state != "refused", accepted
        return accepted

    def detach(self, wanted: Wish, **envelope: Any) -> Answer:
        return self.finish(
            self.client.detach(wanted["attachment_id"], wanted["instance_id"], **envelope)
        )

    def detached(self, wanted: Wish, **envelope: Any) -> dict[str, Any]:
        """The result of a detach that must succeed."""
        return _result(self.detach(wanted, **envelope))

    def extended(self, volume_id: str, size_bytes: int) -> dict[str, dict[str, Any]]:
        """{attachment: its row}, of an extend that must succeed."""
        answer = self.finish(self.client.extend(volume_id, size_bytes))
        assert answer.state == "done", answer
        assert isinstance(answer.result, list)
        return {row["attachment_id"]: row for row in answer.result}

    def wait_for_state(self, accepted: Answer, state: str, *, seconds: float = 20) -> Answer:
        """As soon as it is so; it fails where the operation has ended otherwise."""
        operation_id = accepted.operation_id
        assert operation_id is not None, accepted

        def look() -> Answer | None:
            answer = self.client.get_operation(operation_id)
            assert answer.state == state or not answer.closed, answer
            return answer if answer.state == state else None

        return wait_until(look, f"{accepted.verb} is {state}", seconds=seconds)

    def assert_idle(self) -> None:
        """The journal has nothing open and nothing attached, and what there is fits together."""
        assert self.client.list_operations(open=True) == []
        assert self.client.list_attachments() == []
        assert self.client.list_quarantine() == []
        # Who looks at all there is takes an export's for a moment.
        wait_until(lambda: self.client.list_locks() == [], "no lock is held", seconds=30)
        assert self.client.audit()["findings"] == []

    def leave_nothing(self) -> None:
        """After a test that failed, so that the next one tells of itself."""
        still_open = [row["operation_id"] for row in self.client.list_operations(open=True)]
        for operation_id in still_open:
            with suppress(Refused):  # too late: it goes on
                self.client.cancel_operation(operation_id)
        for operation_id in still_open:
            self.client.wait(operation_id, OPERATION_SECONDS)
        for row in self.client.list_attachments():
            accepted = self.client.detach(
                row["attachment_id"], row["instance_id"], generation=row["generation"]
            )
            if accepted.operation_id is not None and not accepted.closed:
                self.client.wait(accepted.operation_id, OPERATION_SECONDS)
        for row in self.client.list_quarantine():
            self.client.release_quarantine(row["volume_id"])


def _result(answer: Answer) -> dict[str, Any]:
    assert answer.state == "done", answer
    assert answer.result is not None
    return answer.result


def step_states(answer: Answer) -> dict[str, str]:
    return {step.name: step.state for step in answer.steps}


def assert_no_disk(guests: Iterable[Guest]) -> None:
    """No disk of ours in either half, nor a word of one in the metadata."""
    for guest in guests:
        for xml in halves(guest):
            facts = parse_domain(xml)
            assert [disk.alias for disk in facts.disks if disk.alias] == [], guest.name
            assert facts.notes == {}, guest.name


def halves(guest: Guest) -> list[str]:
    """The domain's XML: of the running guest, and of the definition, where there are such."""
    if not guest.exists():
        return []
    domain = guest.domain
    return [
        *([domain.XMLDesc(0)] if domain.isActive() else []),
        *([domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)] if domain.isPersistent() else []),
    ]


def disks_of(guest: Guest, wanted: Wish) -> list[XmlElement]:
    """The attachment's <disk> in each half that has it, the running guest's first."""
    found = (
        parse(xml).find(f"devices/disk/alias[@name='{alias_of(wanted)}']/..")
        for xml in halves(guest)
    )
    return [disk for disk in found if disk is not None]
