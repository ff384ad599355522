"""How each answer looks to people. Rows are those of the wire (docs/wire.rst)."""

from collections.abc import Mapping, Sequence
from typing import Any

from agent.cli.follow import bar, phase
from agent.cli.screen import Screen, flat, plain
from agent.model.outcome import Answer, Progress

Row = Mapping[str, Any]

BY_ID = "/dev/disk/by-id/"

_ANEW = "the same wish, with a new request_id, may succeed later"
RETRIED = {
    "refused": "the same request, sent again later, may succeed",
    "undone": _ANEW,
    "cancelled": _ANEW,
    "expired": _ANEW,
}
"""What may be done about an error that can pass, by the state that it led to. What is open goes on
by itself."""


def attachments(screen: Screen, rows: Sequence[Row], empty: str) -> None:
    attachment, volume, instance = (
        screen.short([row[name] for row in rows])
        for name in ("attachment_id", "volume_id", "instance_id")
    )
    screen.table(
        ("ATTACHMENT", "VOLUME", "INSTANCE", "DISK", "MODE", "DEVICE"),
        [
            (
                attachment(row["attachment_id"]),
                volume(row["volume_id"]),
                instance(row["instance_id"]),
                plain(row["disk"].get("target_dev")),
                _mode(row),
                _device(screen, row),
            )
            for row in rows
        ],
        empty,
        overflow="ellipsis",
    )


def operations(screen: Screen, rows: Sequence[Row], empty: str = "") -> None:
    operation = screen.short([row["operation_id"] for row in rows])
    short = screen.short([one for row in rows for one in row["attachment_ids"]])

    def attachments(ids: Sequence[str]) -> str:
        return short(ids[0]) if len(ids) == 1 else f"{len(ids)} of them"

    screen.table(
        ("OPERATION", "VERB", "STATE", "ATTACHMENT", "AGE", "WAITING FOR, OR WHY IT ENDED"),
        [
            (
                operation(row["operation_id"]),
                row["verb"],
                row["state"],
                attachments(row["attachment_ids"]),
                screen.ago(row["created_at"]),
                _why(row),
            )
            for row in rows
        ],
        empty,
    )


def found(screen: Screen, answer: Row) -> None:
    """What show has found: an operation, or an attachment with its operations."""
    if "operation" in answer:
        _operation(screen, answer["operation"])
        return
    held, about = answer["attachment"], answer["operations"]
    if held is None:
        screen.heading(f"attachment {answer['attachment_id']} is not in place")
        screen.fields(_where(about[-1]))
    else:
        _attachment(screen, held)
    if about:
        screen.text("")
        operations(screen, about)


def outcome(screen: Screen, answer: Answer) -> None:
    """How an operation stands or ended."""
    screen.heading(phase(answer))
    row = answer.wire()
    screen.fields(
        [
            *(() if answer.state == "refused" else [("operation", plain(answer.operation_id))]),
            *_progress(answer.progress),
            *flat(row["result"]),
            *(("warning", warning) for warning in answer.warnings),
            *_retriable(row),
        ]
    )


def audit(screen: Screen, answer: Row) -> None:
    rows = answer["attachments"]
    attachment, volume, instance = (
        screen.short([row[name] for row in rows])
        for name in ("attachment_id", "volume_id", "instance_id")
    )
    screen.table(
        ("ATTACHMENT", "VOLUME", "INSTANCE", "RUNNING", "DEFINED", "DEVICE"),
        [
            (
                attachment(row["attachment_id"]),
                volume(row["volume_id"]),
                instance(row["instance_id"]),
                plain(row["live"]),
                plain(row["persistent"]),
                "present" if row["device_present"] else "missing",
            )
            for row in rows
        ],
        empty="nothing is attached",
    )
    for finding in answer["findings"]:
        screen.text("")
        screen.heading(finding["kind"])
        names = ("attachment_id", "instance_id", "detail", "advice")
        screen.fields([(name.removesuffix("_id"), plain(finding[name])) for name in names])
    if not answer["findings"]:
        screen.note("no findings")


def locks(screen: Screen, rows: Sequence[Row]) -> None:
    for row in rows:
        screen.heading(row["name"])
        screen.fields(
            [
                ("held by", _holder(screen, row)),
                *(
                    ("waiting", f"{waiter['who']}, for {screen.ago(waiter['since'])}")
                    for waiter in row["waiters"]
                ),
            ]
        )
    if not rows:
        screen.note("no lock is held")


def quarantine(screen: Screen, rows: Sequence[Row]) -> None:
    volume = screen.short([row["volume_id"] for row in rows])
    screen.table(
        ("VOLUME", "SINCE", "DEVICE AND REASON"),
        [
            (
                volume(row["volume_id"]),
                screen.ago(row["at"]),
                row["reason"]
                if row["reason"].startswith(row["device"]["path"])
                else f"{row['device']['path']}: {row['reason']}",
            )
            for row in rows
        ],
        empty="nothing is quarantined",
    )


def imported(screen: Screen, answer: Row) -> None:
    rows = answer["entries"]
    attachment, volume, instance = (
        screen.short([row[name] for row in rows])
        for name in ("attachment_id", "volume_id", "instance_id")
    )
    screen.table(
        ("ATTACHMENT", "VOLUME", "INSTANCE", "DISK", "STATE"),
        [
            (
                attachment(row["attachment_id"]),
                volume(row["volume_id"]),
                instance(row["instance_id"]),
                plain(row["disk"] and row["disk"]["target_dev"]),
                row["state"],
            )
            for row in rows
        ],
        empty="the list is empty",
    )
    for row in rows:
        if row["error"]:
            screen.text("")
            screen.heading(f"refused: {plain(row['attachment_id'])}")
            screen.fields([("why", f"{row['error']['code']}: {row['error']['detail']}")])
    if answer["dry_run"]:
        screen.note("nothing was done: --apply imports what is importable")


def facts(screen: Screen, title: str, answer: Row) -> None:
    screen.heading(title)
    screen.fields(list(flat(answer)))


def instance(screen: Screen, answer: Row) -> None:
    if not answer["present"]:
        screen.text(f"libvirt on this host has no domain {answer['instance_id']}")
        return
    screen.heading(f"{answer['name']} ({answer['instance_id']})")
    about = {name: answer[name] for name in ("state", "persistent", "job")}
    screen.fields(list(flat(about)))
    screen.text("")
    attachment = screen.short([disk["attachment_id"] for disk in answer["disks"]])
    screen.table(
        ("DISK", "ATTACHMENT", "RUNNING", "DEFINED", "MODE", "SOURCE"),
        [
            (
                disk["target_dev"],
                attachment(disk["attachment_id"]),
                plain(disk["live"]),
                plain(disk["persistent"]),
                _words("ro" if disk["read_only"] else "rw", "shared" if disk["shareable"] else ""),
                _path(screen, disk["source"]),
            )
            for disk in answer["disks"]
        ],
        empty="it has no disk",
        overflow="ellipsis",
    )


def plan(screen: Screen, answer: Row) -> None:
    refusal = answer["refusal"]
    if refusal is None:
        screen.heading(f"{answer['verb']} would be accepted")
    else:
        screen.heading(f"{answer['verb']} would be refused, or fail")
        screen.fields([("why", f"{refusal['code']}: {refusal['detail']}")])
    for number, step in enumerate(answer["steps"], start=1):
        mark = "  (from here on it only goes forward)" if step == answer["commit"] else ""
        screen.text(f"  {number}. {step}{mark}")
    for disk in answer["disks"]:
        for name in ("controller_xml", "disk_xml"):
            if disk[name]:
                screen.text("")
                screen.text(disk[name])


def _attachment(screen: Screen, row: Row) -> None:
    screen.heading(f"attachment {row['attachment_id']}")
    rest = ("driver_volume_type", "targets", "device", "disk")
    screen.fields(
        [
            *_where(row),
            ("mode", _mode(row)),
            *flat({"generation": row["generation"]}),
            *flat({name: row[name] for name in rest}),
            *([("paths", paths)] if (paths := _paths_missing(row)) else ()),
            *flat({"lease": row.get("lease")}),
            *_io_errors(screen, row),
        ]
    )


def _operation(screen: Screen, row: Row) -> None:
    screen.heading(f"{row['verb']} {row['operation_id']}")
    screen.fields(
        [
            ("state", row["state"]),
            *flat({"waiting for": row["waiting_for"]}),
            *_progress(row["progress"] and _progress_of(row["progress"])),
            *_error(row),
            *(("attachment", attachment_id) for attachment_id in row["attachment_ids"]),
            *(("instance", instance_id) for instance_id in row["instance_ids"]),
            *(("volume", volume_id) for volume_id in row["volume_ids"] or ["-"]),
            ("created", screen.moment(row["created_at"])),
            ("updated", screen.moment(row["updated_at"])),
            *(("step", _step(step, row)) for step in row["steps"]),
            *flat(row["result"], "result"),
            *(("warning", warning) for warning in row["warnings"]),
        ]
    )


def _progress_of(told: Row) -> Progress:
    """A newer agent may tell more than we know."""
    return Progress.model_validate(told, extra="ignore")


def _progress(progress: Progress | None) -> list[tuple[str, str]]:
    return [] if progress is None else [("progress", bar(progress))]


def _step(step: Row, row: Row) -> str:
    is_one_of_several = step["attachment_id"] and len(row["attachment_ids"]) > 1
    whose = f" of {step['attachment_id']}" if is_one_of_several else ""
    return f"{step['name']}{whose}: {step['state']}"


def _where(row: Row) -> list[tuple[str, str]]:
    return [("instance", plain(row["instance_id"])), ("volume", plain(row["volume_id"]))]


def _mode(row: Row) -> str:
    return _words(
        row["access_mode"],
        "shared" if row["multiattach"] else "",
        "" if row["promised"] else "leaving",
    )


def _words(*words: str) -> str:
    return " ".join(word for word in words if word)


def _holder(screen: Screen, row: Row) -> str:
    overdue = ", longer than lock_timeout_seconds" if row.get("overdue") else ""
    since = f", for {screen.ago(row['since'])}" if row["since"] else ""
    return f"{plain(row['holder'])}{since}{overdue}"


def _path(screen: Screen, path: str | None) -> str:
    return plain(path) if screen.wide else plain(path).removeprefix(BY_ID)


def _device(screen: Screen, row: Row) -> str:
    """What is wrong with it comes first: a narrow screen cuts the path."""
    path = _path(screen, row["device"] and row["device"]["path"])
    errors = "i/o errors" if row.get("io_errors") else ""
    return ", ".join(part for part in (_paths_missing(row), errors, path) if part)


def _paths_missing(row: Row) -> str:
    """Empty where all work; an agent of before says nothing of them."""
    found, expected = row.get("paths_found"), row.get("paths_expected")
    return f"degraded {found}/{expected}" if expected and found < expected else ""


def _io_errors(screen: Screen, row: Row) -> list[tuple[str, str]]:
    errors = row.get("io_errors")
    if not errors:
        return []
    reason = f" ({errors['reason']})" if errors["reason"] else ""
    paused = "; QEMU paused the guest for it" if errors["action"] == "stop" else ""
    last = screen.ago(errors["last_at"])
    return [("i/o errors", f"{errors['errors']}{reason}, the last {last} ago{paused}")]


def _why(row: Row) -> str:
    """Of what is unsettled people must know the trouble; that it is tried again the state says."""
    error = row["error"]
    reason = f"{error['code']}: {error['detail']}" if error else ""
    if row["state"] == "unsettled":
        return reason or row["waiting_for"] or "-"
    return row["waiting_for"] or reason or "-"


def _error(row: Row) -> list[tuple[str, str]]:
    error = row["error"]
    return [("error", f"{error['code']}: {error['detail']}"), *_retriable(row)] if error else []


def _retriable(row: Row) -> list[tuple[str, str]]:
    error = row["error"]
    if error is None or not error["retriable"] or row["state"] not in RETRIED:
        return []
    return [("retry", RETRIED[row["state"]])]
