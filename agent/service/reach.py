"""Whether this host could reach a request's volumes at all; asked before anything is kept."""

from contextlib import suppress

from agent.errors import Invalid
from agent.journal.store import Journal
from agent.model.contract import Command
from agent.model.request import ExtendRequest
from agent.ports import Host


def refuse_unreachable(host: Host, journal: Journal, request: Command) -> None:
    """What this host cannot connect it cannot disconnect either; what is attached here already
    is taken off by all means.

    Raises as Connectors.check."""
    for attachment in request.connects:
        host.connectors.check(attachment.connection)
    if isinstance(request, ExtendRequest) and request.connection is not None:
        volume_id = request.volume_id
        for held in journal.read(lambda book: book.attachments(volume_id=volume_id)):
            host.connectors.check(held.attachment.reached_by(request.connection).connection)
    along = request.sent_along
    fences = journal.read(lambda book: [book.fence(one.attachment_id) for one in along])
    for attachment, fence in zip(along, fences, strict=True):
        if fence is None:
            with suppress(Invalid):
                host.connectors.check(attachment.connection)
