"""plan: what a request would do, and its XML, without doing it. Reads; changes nothing."""

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from agent.admission.admit import Admission, Policy
from agent.errors import AgentError
from agent.guest.disk_xml import disk_xml
from agent.guest.placement import Place, choose_places, name_targets
from agent.journal.book import Book
from agent.journal.record import Record
from agent.journal.store import Journal
from agent.model.attachment import Attachment
from agent.model.contract import noun_of
from agent.model.device import Device
from agent.model.outcome import Problem
from agent.model.request import AttachBatchRequest, AttachRequest, ConnectInstanceRequest, digest
from agent.operations import plan_of
from agent.operations.attach_batch import plug_order
from agent.ports import Host
from agent.saga.plan import Scene
from agent.service.reach import refuse_unreachable
from agent.steps.guest_checks import find_guest

LATER_KNOWN = "/dev/disk/by-id/known-after-connect"


def preview(
    verb: str, payload: dict[str, Any], host: Host, journal: Journal, policy: Policy
) -> dict[str, Any]:
    """{verb, steps, commit, disk_xml, controller_xml, disks, refusal}. ``refusal`` tells why it
    would not be taken or not succeed, as far as that shows before storage is touched. ``disks``
    is [{attachment_id, disk_xml, controller_xml}]; of a single one the XML is beside it as well.

    Raises Invalid where the request cannot be read, Unsupported for a verb to come."""
    request = noun_of(verb).parse(payload)
    answer: dict[str, Any] = {
        "verb": verb,
        "steps": [],
        "commit": None,
        "disk_xml": None,
        "controller_xml": None,
        "disks": [],
        "refusal": None,
    }
    try:
        refuse_unreachable(host, journal, request)
        now, known = host.clock.now(), digest(payload)

        def draft(book: Book) -> Record:
            judge = Admission(book, policy, now)
            judge.replay(request.request_id, verb, known)
            return judge.draft(verb, request, known)

        plan = plan_of(journal.read(draft))
        answer.update(steps=list(plan.names), commit=plan.commit.name)
        for step in takewhile(lambda step: step.only_looks, plan.steps):
            step.apply(Scene(host, request.request_id, {}))
        if isinstance(request, AttachRequest | AttachBatchRequest):
            answer["disks"] = _disks(plug_order(request.connects), host)
        if isinstance(request, ConnectInstanceRequest):
            answer["disks"] = _disks_to_define(request.attachments)
        if isinstance(request, AttachRequest):
            for disk in answer["disks"]:
                answer.update(disk_xml=disk["disk_xml"], controller_xml=disk["controller_xml"])
    except AgentError as error:
        answer["refusal"] = Problem.of(error).model_dump()
    return answer


def _disks(attachments: Sequence[Attachment], host: Host) -> list[dict[str, str | None]]:
    """What the guest has not yet."""
    guest = find_guest(host, attachments[0].instance_id)
    missing = [one for one in attachments if guest.disk(one.alias) is None]
    places = choose_places([one.disk for one in missing], guest.live, guest.inactive)
    return [
        {
            "attachment_id": attachment.attachment_id,
            "disk_xml": disk_xml(attachment, device_to_come(attachment), place),
            "controller_xml": place.controller_xml,
        }
        for attachment, place in zip(missing, places, strict=True)
    ]


def _disks_to_define(attachments: Sequence[Attachment]) -> list[dict[str, str | None]]:
    """For a domain that the caller defines."""
    targets = name_targets([attachment.disk for attachment in attachments])
    return [
        {
            "attachment_id": attachment.attachment_id,
            "disk_xml": disk_xml(attachment, device_to_come(attachment), Place(target_dev, {})),
            "controller_xml": None,
        }
        for attachment, target_dev in zip(attachments, targets, strict=True)
    ]


def device_to_come(attachment: Attachment) -> Device:
    source = attachment.connection.known_source or LATER_KNOWN
    return Device(path=source, identity={}, size_bytes=attachment.size_bytes or 0)
