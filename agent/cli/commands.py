"""What each command does: asks, shows, and says how it ended."""

from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from agent.bus.client import Unreachable
from agent.cli import views
from agent.cli.follow import follow
from agent.cli.imports import entries_of
from agent.cli.offline import audit_here
from agent.cli.requests import (
    attach_request,
    batch_request,
    cancel_migration_request,
    detach_request,
    disconnect_request,
    extend_request,
    iotune_request,
    read_document,
    swap_request,
)
from agent.cli.session import Session
from agent.cli.trouble import Exit, not_found
from agent.errors import Invalid
from agent.journal.book import Book
from agent.model.outcome import Answer
from agent.model.request import AttachmentFilters, ListOperations, OperationRef
from agent.service.queries import attachments, operations, quarantine

Row = dict[str, Any]
Lister = Callable[..., list[Row]]

ENTRIES_AT_ONCE = 16
"""Of an import, in one question: each is looked at while the caller waits for the answer."""

ALONE = {
    "attach": attach_request,
    "cancel_migration": cancel_migration_request,
    "extend": extend_request,
}
OF_AN_ATTACHMENT = {
    "detach": detach_request,
    "disconnect_instance": disconnect_request,
    "set_iotune": iotune_request,
    "swap": swap_request,
}
"""By verb: how its request is made; of the others it is a list of attachments."""

FILTERS = ("attachment_id", "instance_id", "volume_id")


def run(session: Session, args: Namespace) -> Exit:
    """Raises Trouble, Refused, Unreachable, KeyboardInterrupt."""
    name: str = args.command
    if name not in COMMANDS:
        name = f"{args.command} {args.action or 'list'}"
    return COMMANDS[name](session, args)


# looking


def list_attachments(session: Session, args: Namespace) -> Exit:
    filters = _given(args, FILTERS)
    rows = session.read(
        lambda client: client.list_attachments(**filters),
        lambda book: attachments(book, AttachmentFilters.parse(filters)),
    )
    empty = "no attachment matches" if filters else "nothing is attached"
    return _shown(
        session, {"attachments": rows}, lambda: views.attachments(session.screen, rows, empty)
    )


def list_operations(session: Session, args: Namespace) -> Exit:
    filters = _given(args, (*FILTERS, "state", "verb"))
    empty = "no operation matches" if filters else "no operation is kept"
    if not args.all and args.state is None:
        empty = "no open operation matches" if filters else "no operation is open"
        filters["open"] = True
    rows = session.read(
        lambda client: client.list_operations(limit=args.limit, **filters),
        lambda book: _of_book(book)(limit=args.limit, **filters),
    )
    return _shown(
        session, {"operations": rows}, lambda: views.operations(session.screen, rows, empty)
    )


def show(session: Session, args: Namespace) -> Exit:
    found = session.read(
        lambda client: _find(
            session.host, args.id, client.list_attachments, client.list_operations
        ),
        lambda book: _find(
            session.host,
            args.id,
            lambda **filters: attachments(book, AttachmentFilters.parse(filters)),
            _of_book(book),
        ),
    )
    return _shown(session, found, lambda: views.found(session.screen, found))


def audit(session: Session, args: Namespace) -> Exit:
    found = session.read(
        lambda client: client.audit(),
        lambda book: audit_here(session.settings, session.screen, book),
    )
    _shown(session, found, lambda: views.audit(session.screen, found))
    return Exit.FINDINGS if found["findings"] else Exit.OK


def locks(session: Session, args: Namespace) -> Exit:
    rows = session.agent().list_locks()
    return _shown(session, {"locks": rows}, lambda: views.locks(session.screen, rows))


def describe(session: Session, args: Namespace) -> Exit:
    found = session.agent().describe()
    return _shown(session, found, lambda: views.facts(session.screen, session.host, found))


def connector(session: Session, args: Namespace) -> Exit:
    found = session.agent().get_connector(args.instance_id)
    return _shown(
        session, {"connector": found}, lambda: views.facts(session.screen, session.host, found)
    )


def instance(session: Session, args: Namespace) -> Exit:
    found = session.agent().get_instance(args.instance_id)
    _shown(session, found, lambda: views.instance(session.screen, found))
    return Exit.OK if found["present"] else Exit.FAILED


def list_quarantine(session: Session, args: Namespace) -> Exit:
    rows = session.read(lambda client: client.list_quarantine(), quarantine)
    return _shown(session, {"quarantine": rows}, lambda: views.quarantine(session.screen, rows))


# changing


def by_name(session: Session, args: Namespace) -> Exit:
    """A verb by its own name."""
    verb = args.command.replace("-", "_")
    return _carry_out(session, verb, _request(session, verb, args), args.wait_seconds)


def plan(session: Session, args: Namespace) -> Exit:
    verb = args.verb.replace("-", "_")
    found = session.agent().plan(verb, _request(session, verb, args))
    _shown(session, found, lambda: views.plan(session.screen, found))
    return Exit.OK if found["refusal"] is None else Exit.FAILED


def wait(session: Session, args: Namespace) -> Exit:
    answer = session.agent().wait(args.operation_id, 0.0)
    return _stay(session, answer, args.wait_seconds, wanted="done", unwaited=Exit.WAITING)


def cancel(session: Session, args: Namespace) -> Exit:
    """A wish, taken up unless the operation reaches the guest first: stay until it shows."""
    answer = session.agent().cancel_operation(args.operation_id)
    return _stay(session, answer, args.wait_seconds, wanted="cancelled")


def abandon(session: Session, args: Namespace) -> Exit:
    answer = session.agent().abandon_operation(args.operation_id)
    return _shown(session, answer.wire(), lambda: views.outcome(session.screen, answer))


def release(session: Session, args: Namespace) -> Exit:
    answer = session.agent().release_quarantine(args.volume_id)
    if not answer["released"]:
        raise not_found(
            f"volume {args.volume_id} is not quarantined on {session.host}: "
            "'attachctl quarantine list --wide' shows what is"
        )
    text = f"volume {args.volume_id} may be used again on {session.host}"
    return _shown(session, answer, lambda: session.screen.text(text))


def import_attachments(session: Session, args: Namespace) -> Exit:
    entries = entries_of(read_document(args.file), args.file)
    rows: list[Row] = []
    for begin in range(0, len(entries), ENTRIES_AT_ONCE):
        some = entries[begin : begin + ENTRIES_AT_ONCE]
        rows += session.agent().import_attachments(some, dry_run=not args.apply)["entries"]
    answer = {"dry_run": not args.apply, "entries": rows}
    _shown(session, answer, lambda: views.imported(session.screen, answer))
    return Exit.FAILED if any(row["error"] for row in rows) else Exit.OK


COMMANDS: Mapping[str, Callable[[Session, Namespace], Exit]] = {
    "list": list_attachments,
    "show": show,
    "audit": audit,
    "locks": locks,
    "describe": describe,
    "connector": connector,
    "instance": instance,
    "attach": by_name,
    "detach": by_name,
    "attach-batch": by_name,
    "connect-instance": by_name,
    "disconnect-instance": by_name,
    "extend": by_name,
    "set-iotune": by_name,
    "swap": by_name,
    "prepare-migration": by_name,
    "migrate": by_name,
    "cancel-migration": by_name,
    "plan": plan,
    "operations list": list_operations,
    "operations wait": wait,
    "operations cancel": cancel,
    "operations abandon": abandon,
    "import": import_attachments,
    "quarantine list": list_quarantine,
    "quarantine release": release,
}


def _shown(session: Session, value: Row, view: Callable[[], None]) -> Exit:
    """As JSON, with where it comes from; or for people."""
    if session.screen.as_json:
        session.screen.json({"host": session.host, "source": session.source, **value})
    else:
        view()
    return Exit.OK


def _given(args: Namespace, names: Sequence[str]) -> Row:
    return {name: value for name in names if (value := getattr(args, name)) is not None}


def _of_book(book: Book) -> Lister:
    """As the client's list_operations."""

    def listed(*, limit: int | None = None, before: str | None = None, **filters: Any) -> list[Row]:
        asked = ListOperations.parse({"filters": filters, "limit": limit, "before": before})
        return operations(lambda question: question(book), asked)

    return listed


def _now() -> datetime:
    return datetime.now(UTC)


# finding


def _find(host: str, wanted: str, attachments: Lister, operations: Lister) -> Row:
    """{operation}, or {attachment_id, attachment, operations}: by the whole id, or by how it alone
    begins.  Raises Trouble."""
    found = _find_exactly(wanted, attachments, operations)
    if found is not None:
        return found
    ids = {row["attachment_id"] for row in attachments()}
    for row in operations():
        ids |= {row["operation_id"], *row["attachment_ids"]}
    begun = sorted(one for one in ids if one.startswith(wanted))
    if not begun:
        raise not_found(
            f"no attachment or operation on {host} begins with {wanted}: it was never accepted, "
            "or has ended and is no longer kept; 'attachctl list' and 'attachctl operations "
            "--all' show what there is"
        )
    if len(begun) > 1:
        raise not_found(f"{wanted} may mean {', '.join(begun)}: give more of it")
    found = _find_exactly(begun[0], attachments, operations)
    assert found is not None, "it was just listed"
    return found


def _find_exactly(wanted: str, attachments: Lister, operations: Lister) -> Row | None:
    held = attachments(attachment_id=wanted)
    about = operations(attachment_id=wanted)
    if held or about:
        attachment = held[0] if held else None
        return {"attachment_id": wanted, "attachment": attachment, "operations": about}
    named = operations(operation_id=wanted) if _is_uuid(wanted) else []
    return {"operation": named[0]} if named else None


def _is_uuid(wanted: str) -> bool:
    try:
        OperationRef.parse({"operation_id": wanted})
    except Invalid:
        return False
    return True


# staying with an operation


def newest_generation(row: Row) -> int | None:
    """A detach that was undone has raised it; an older agent does not tell."""
    newest: int | None = row.get("newest_generation")
    return row["generation"] if newest is None else newest


def _request(session: Session, verb: str, args: Namespace) -> Row:
    def look_up(attachment_id: str) -> Row | None:
        rows = session.agent().list_attachments(attachment_id=attachment_id)
        return {**rows[0], "generation": newest_generation(rows[0])} if rows else None

    if verb in ALONE:
        return ALONE[verb](args, _now())
    if verb in OF_AN_ATTACHMENT:
        return OF_AN_ATTACHMENT[verb](args, _now(), look_up)
    return batch_request(verb, args, _now())


def _carry_out(session: Session, verb: str, request: Row, wait_seconds: float) -> Exit:
    try:
        answer = session.agent().command(verb, request)
    except (Unreachable, KeyboardInterrupt):
        session.screen.note(
            "note: to see whether the agent has accepted it: attachctl show "
            f"{request['request_id']}"
        )
        raise
    return _stay(session, answer, wait_seconds, wanted="done")


def _stay(
    session: Session,
    answer: Answer,
    wait_seconds: float,
    wanted: str,
    unwaited: Exit = Exit.OK,
) -> Exit:
    """``unwaited``: how it ends at once; what was to be sent, and no more, is done as asked."""
    screen = session.screen
    try:
        answer = follow(session.agent(), answer, wait_seconds, screen)
    except (Unreachable, KeyboardInterrupt):
        _say_how_to_look(session, answer)
        raise
    _shown(session, answer.wire(), lambda: views.outcome(screen, answer))
    if answer.closed:
        return Exit.OK if answer.state == wanted else Exit.FAILED
    _say_how_to_look(session, answer)
    return Exit.WAITING if wait_seconds else unwaited


def _say_how_to_look(session: Session, answer: Answer) -> None:
    note, operation_id = session.screen.note, answer.operation_id
    note(f"note: {answer.verb} {operation_id} goes on")
    note(f"  look at it: attachctl show {operation_id}")
    # A guest that was asked for its disk cannot be told to keep it, nor can what went come back.
    if answer.verb not in ("detach", "disconnect_instance", "cancel_migration"):
        note(f"  undo it: attachctl operations cancel {operation_id}")
