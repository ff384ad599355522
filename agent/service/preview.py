"""plan: what a request would do, and its XML, without doing it. Reads; changes nothing."""

from itertools import takewhile
from typing import Any

from agent.errors import AgentError
from agent.guest.disk_xml import disk_xml
from agent.guest.placement import choose_place
from agent.journal.book import Book
from agent.journal.record import Record
from agent.journal.store import Journal
from agent.model.attachment import Attachment
from agent.model.contract import noun_of
from agent.model.device import Device
from agent.model.outcome import Problem
from agent.model.request import AttachRequest, digest
from agent.operations import plan_of
from agent.operations.admit import Admission, Policy
from agent.ports import Host
from agent.saga.plan import Scene
from agent.steps.guest_checks import find_guest

LATER_KNOWN = "/dev/disk/by-id/known-after-connect"


def preview(
    verb: str, payload: dict[str, Any], host: Host, journal: Journal, policy: Policy
) -> dict[str, Any]:
    """{verb, steps, commit, disk_xml, controller_xml, refusal}. ``refusal`` tells why it would
    not be taken or not succeed, as far as that shows before storage is touched.

    Raises Invalid where the request cannot be read, Unsupported for a verb to come."""
    request = noun_of(verb).parse(payload)
    answer: dict[str, Any] = {
        "verb": verb,
        "steps": [],
        "commit": None,
        "disk_xml": None,
        "controller_xml": None,
        "refusal": None,
    }
    try:
        for attachment in request.connects:
            host.connectors.check(attachment.connection)
        now, known = host.clock.now(), digest(payload)

        def draft(book: Book) -> Record:
            judge = Admission(book, policy, now)
            judge.replay(request.request_id, verb, known)
            return judge.draft(verb, request, known)

        plan = plan_of(journal.read(draft))
        answer.update(steps=list(plan.names), commit=plan.commit.name)
        for step in takewhile(lambda step: step.only_looks, plan.steps):
            step.apply(Scene(host, request.request_id, {}))
        if isinstance(request, AttachRequest):
            answer.update(_xml(request.attachment, host))
    except AgentError as error:
        answer["refusal"] = Problem.of(error).model_dump()
    return answer


def _xml(attachment: Attachment, host: Host) -> dict[str, str | None]:
    guest = find_guest(host, attachment.instance_id)
    if guest.disk(attachment.alias) is not None:
        return {}
    place = choose_place(attachment.disk, guest.live, guest.inactive)
    source = attachment.connection.known_source or LATER_KNOWN
    device = Device(path=source, identity={}, size_bytes=attachment.size_bytes or 0)
    return {
        "disk_xml": disk_xml(attachment, device, place),
        "controller_xml": place.controller_xml,
    }
