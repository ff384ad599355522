"""What an operation begins with on an attachment that has ended: all that is left is its fence."""

from typing import Any

from agent.errors import Stale
from agent.journal.book import Book
from agent.journal.record import Part
from agent.model.mark import user_alias


def known_of_ended(book: Book, part: Part) -> dict[str, Any]:
    """Nothing of an attachment that is in place, or was never seen."""
    ended = book.fence(part.attachment_id)
    if ended is None or book.attachment(part.attachment_id) is not None:
        return {}
    if part.attachment is not None:
        return _inherited(book, part) if part.role == "leaves" else {}
    if ended.volume_id is not None:
        lane = book.presence(ended.volume_id).lane
        return {"source": ended.source, "lane": lane, **_inherited(book, part)}
    unknown = (
        "an older agent ended this attachment, and its volume is not known any more: send the "
        "whole attachment to have it disconnected"
    )
    return {"warnings": [unknown], **_inherited(book, part)}


def _inherited(book: Book, ended: Part) -> dict[str, Any]:
    """Its disk may have become another attachment's, which still is found by its alias."""
    own = user_alias(ended.attachment_id)
    return {"alias": ""} if any(row.attachment.alias == own for row in book.attachments()) else {}


def refuse_older(book: Book, attachment_id: str, given: int | None) -> None:
    """Raises Stale: a newer generation of the attachment was seen here."""
    fence = book.fence(attachment_id)
    newest = None if fence is None else fence.newest
    if newest is None:
        return
    if given is None:
        raise Stale(
            f"attachment {attachment_id} has been used with generation {newest}: from then on "
            "every request needs one"
        )
    if given < newest:
        raise Stale(f"generation {given} of attachment {attachment_id} is older than {newest}")
