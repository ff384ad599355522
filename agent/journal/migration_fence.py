"""A migration has a fence, as an attachment has: once it is cancelled on this host, or over, what
was sent before and comes late does nothing. Pure over the journal's rows."""

from agent.errors import Stale, TooLate
from agent.journal.book import Book

_CANCELLED, _ARRIVED = 0, 1
"""As the newest generation of a migration's fence: it is raised, and never lowered."""


def cancelled(book: Book, migration_id: str, now: float) -> None:
    """Durably: what is sent of it later is stale."""
    book.raise_fence(_fence(migration_id), newest=_CANCELLED, detached=None, now=now)


def arrived(book: Book, migration_id: str, now: float) -> None:
    """Durably: the instance is on the other host by it; nobody can cancel it any more."""
    book.raise_fence(_fence(migration_id), newest=_ARRIVED, detached=None, now=now)


def refuse_cancelled(book: Book, migration_id: str) -> None:
    fence = book.fence(_fence(migration_id))
    if fence is not None:
        how = "is over" if fence.newest == _ARRIVED else "was cancelled"
        raise Stale(
            f"migration {migration_id} {how} on this host; nothing was done: begin another one"
        )


def refuse_arrived(book: Book, migration_id: str) -> None:
    fence = book.fence(_fence(migration_id))
    if fence is not None and fence.newest == _ARRIVED:
        raise TooLate(
            f"the instance has moved by migration {migration_id}; nothing was touched: migrate it "
            "back"
        )


def _fence(migration_id: str) -> str:
    """No attachment's id: those have no colon."""
    return f"migration:{migration_id}"
