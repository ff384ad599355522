"""The command line: what attachctl takes, and the help it gives."""

import argparse
from collections.abc import Sequence
from typing import Any, get_args

from agent.cli.trouble import MEANINGS
from agent.model.contract import COMMANDS
from agent.model.outcome import State

CONFIG_FILE = "/etc/attachment-agent/attachment-agent.conf"

EPILOG = "exit codes:\n" + "\n".join(f"  {code:<4d} {what}" for code, what in MEANINGS.items())

BATCH_HELP = "the request, or {attachments: […]} alone, as JSON or YAML; - is standard input"

FILE_HELP = "the request, or the attachment alone, as JSON or YAML; - is standard input"


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Exits (2) where it is wrong, (0) after --help."""
    return _parser().parse_args(argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="attachctl",
        description="Look at, and use, the attachment agent of a hypervisor.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _options_everywhere(parser, given=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _looking(commands)
    _operations(commands)
    _acting(commands)
    _import(commands)
    _quarantine(commands)
    return parser


def _command(commands: Any, name: str, about: str, **more: Any) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        help=about,
        description=about[0].upper() + about[1:] + ".",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        **more,
    )
    _options_everywhere(command, given=True)
    return command


def _options_everywhere(parser: argparse.ArgumentParser, *, given: bool) -> None:
    """Before the command or after it: after it they have no default that would win."""

    def default(value: object) -> object:
        return argparse.SUPPRESS if given else value

    group = parser.add_argument_group("common options")
    group.add_argument(
        "--config-file",
        metavar="FILE",
        default=default(CONFIG_FILE),
        help=f"the agent's configuration ({CONFIG_FILE})",
    )
    group.add_argument(
        "--host",
        default=default(None),
        help="the hypervisor to ask (the configuration's own)",
    )
    group.add_argument(
        "--timeout",
        type=_seconds,
        metavar="SECONDS",
        default=default(10.0),
        help="how long to wait for one answer of the agent (10)",
    )
    group.add_argument(
        "--offline",
        action="store_true",
        default=default(False),
        help="do not ask the agent, read its journal on this host",
    )
    group.add_argument(
        "--json", action="store_true", default=default(False), help="print JSON and nothing else"
    )
    group.add_argument(
        "--wide", action="store_true", default=default(False), help="ids and paths in full"
    )


def _looking(commands: Any) -> None:
    listing = _command(commands, "list", "attachments on the host")
    _filters(listing)
    show = _command(commands, "show", "one attachment with its operations, or one operation")
    show.add_argument("id", metavar="ATTACHMENT|OPERATION", help="its id, or how it begins")
    _command(commands, "audit", "journal, libvirt and host side by side, and what does not fit")
    _command(commands, "locks", "who holds and who waits for the locks of volumes and targets")
    _command(commands, "describe", "what the agent is and can do")
    connector = _command(commands, "connector", "what the storage service must know of the host")
    connector.add_argument(
        "--instance",
        metavar="INSTANCE",
        dest="instance_id",
        help="or of this instance: for attachments with initiator instance",
    )
    instance = _command(commands, "instance", "one instance and its attached disks, by libvirt")
    instance.add_argument("instance_id", metavar="INSTANCE", help="its uuid")


def _operations(commands: Any) -> None:
    operations = _command(
        commands, "operations", "open operations; wait for, cancel or abandon one"
    )
    _operation_filters(operations, given=False)
    actions = operations.add_subparsers(dest="action", metavar="list|wait|cancel|abandon")
    _operation_filters(_command(actions, "list", "open operations"), given=True)
    wait = _command(actions, "wait", "stay with an operation until it is closed")
    cancel = _command(actions, "cancel", "undo an operation that has not reached the guest")
    abandon = _command(
        actions,
        "abandon",
        "close an operation where it stands; what it leaves on the host is quarantined",
    )
    for action in (wait, cancel, abandon):
        action.add_argument("operation_id", metavar="OPERATION", help="its full id")
    for action in (wait, cancel):
        _waiting(action)


def _operation_filters(parser: argparse.ArgumentParser, *, given: bool) -> None:
    default = argparse.SUPPRESS if given else None
    parser.add_argument(
        "--all",
        action="store_true",
        default=argparse.SUPPRESS if given else False,
        help="closed ones as well, as long as they are kept",
    )
    parser.add_argument(
        "--limit",
        type=int,
        metavar="N",
        default=default,
        help="only the N that were accepted last",
    )
    for name, words in (("state", get_args(State)[1:]), ("verb", tuple(COMMANDS))):
        parser.add_argument(
            f"--{name}",
            choices=words,
            metavar=name.upper(),
            help=f"only of this {name} ({', '.join(words)})",
            default=default,
        )
    _filters(parser, default)


def _filters(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    for name in ("attachment", "instance", "volume"):
        parser.add_argument(
            f"--{name}",
            dest=f"{name}_id",
            metavar="ID",
            default=default,
            help=f"only of this {name} (its full id)",
        )


def _acting(commands: Any) -> None:
    attach = _command(commands, "attach", "attach a volume to an instance")
    detach = _command(commands, "detach", "detach a volume from an instance")
    plan = _command(commands, "plan", "what a request would do, and its XML; nothing is done")
    verbs = plan.add_subparsers(dest="verb", required=True, metavar="VERB")
    for parser in (attach, _command(verbs, "attach", "what an attach would do")):
        _attachment(parser)
    for parser in (detach, _command(verbs, "detach", "what a detach would do")):
        _detachment(parser)
    for parser in (attach, detach):
        _waiting(parser)
    for name, about in (
        ("attach-batch", "attach several volumes to one instance, all or none"),
        ("connect-instance", "connect an instance's volumes, before its domain is defined"),
        ("prepare-migration", "connect the volumes of an instance that is to migrate to the host"),
        ("migrate", "let an instance go to another host, which is prepared for it"),
        ("disconnect-instance", "take an instance's volumes off the host; it does not run"),
    ):
        command = _command(commands, name, about)
        for parser in (command, _command(verbs, name, f"what that would do: {about}")):
            _several(parser, name)
        _waiting(command)
    extend = _command(commands, "extend", "show a volume's new size to the host and its guests")
    for parser in (extend, _command(verbs, "extend", "what an extend would do")):
        _extension(parser)
    limits = _command(commands, "set-iotune", "change the limits of a disk, under its guest")
    for parser in (limits, _command(verbs, "set-iotune", "what set-iotune would do")):
        _limits(parser)
    swap = _command(commands, "swap", "move a running guest's disk to another volume")
    for parser in (swap, _command(verbs, "swap", "what a swap would do")):
        _swap(parser)
    cancel = _command(commands, "cancel-migration", "take no further part in a migration")
    for parser in (cancel, _command(verbs, "cancel-migration", "what that would do")):
        parser.add_argument("migration_id", metavar="MIGRATION", help="its full id")
        _deadline(parser)
    for parser in (extend, limits, swap, cancel):
        _waiting(parser)


def _swap(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("old_id", metavar="ATTACHMENT", help="the one in place, its full id")
    parser.add_argument(
        "--sole-user",
        action="store_const",
        const=True,
        help="no other host has the volume, though it may be shared",
    )
    parser.add_argument(
        "--bandwidth",
        dest="bandwidth_bytes_per_second",
        type=int,
        metavar="BYTES",
        help="copy at most so much a second",
    )
    parser.add_argument(
        "--synchronous-writes",
        action="store_const",
        const=True,
        help="the guest's writes wait for both volumes, so that the copy ends",
    )
    _attachment(parser)


def _extension(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("volume_id", metavar="VOLUME", help="its full id")
    parser.add_argument(
        "size_bytes", type=int, metavar="BYTES", help="what it has on the storage side by now"
    )
    parser.add_argument(
        "--connection-info", metavar="FILE", help="how it is reached, where that has changed"
    )
    _deadline(parser)


def _several(parser: argparse.ArgumentParser, name: str) -> None:
    if name == "disconnect-instance":
        parser.add_argument("instance_id", metavar="INSTANCE", help="its full id")
        parser.add_argument(
            "attachment_ids", nargs="*", metavar="ATTACHMENT", help="full ids (all that it has)"
        )
    else:
        parser.add_argument("-f", "--file", metavar="FILE", required=True, help=BATCH_HELP)
    _deadline(parser)


def _limits(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("attachment_id", metavar="ATTACHMENT", help="its full id")
    parser.add_argument(
        "limits",
        nargs="*",
        metavar="NAME=VALUE",
        help="all limits from now on, by libvirt's names: total_iops_sec=500 …",
    )
    parser.add_argument("--unlimited", action="store_true", help="take all limits away")
    _envelope(parser)


def _attachment(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-f", "--file", metavar="FILE", help=FILE_HELP)
    parser.add_argument(
        "--from-cinder", metavar="FILE", help="an attachment as the volume service shows it"
    )
    parser.add_argument("--connection-info", metavar="FILE", help="the connection_info alone")
    parser.add_argument("--attachment-id", metavar="ID")
    parser.add_argument("--instance", dest="instance_id", metavar="UUID")
    parser.add_argument("--volume", dest="volume_id", metavar="ID")
    _envelope(parser)
    parser.add_argument(
        "--multiattach",
        action="store_const",
        const=True,
        help="other instances may have the volume at the same time",
    )
    parser.add_argument(
        "--read-only", dest="access_mode", action="store_const", const="ro", help="never write"
    )
    parser.add_argument("--size-bytes", type=int, metavar="N", help="what the device must have")
    disk = parser.add_argument_group("the disk that the guest sees")
    disk.add_argument("--bus", choices=("virtio", "scsi"))
    disk.add_argument("--type", choices=("disk", "lun"))
    disk.add_argument("--target-dev", metavar="NAME", help="vdb, sdc, …")
    disk.add_argument("--cache", metavar="MODE")
    disk.add_argument("--boot-order", type=int, metavar="N")


def _detachment(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("attachment_id", nargs="?", metavar="ATTACHMENT", help="its full id")
    parser.add_argument("-f", "--file", metavar="FILE", help=f"{FILE_HELP}; that of its attach too")
    parser.add_argument(
        "--instance", dest="instance_id", metavar="UUID", help="(asked of the agent)"
    )
    _envelope(parser)


def _envelope(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--generation", type=int, metavar="N")
    _deadline(parser)


def _deadline(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--deadline",
        dest="deadline_seconds",
        type=int,
        metavar="SECONDS",
        help="undo it if it has not reached the guest by then",
    )
    parser.add_argument(
        "--request-id", metavar="UUID", help="what the operation shall be called (a new uuid)"
    )
    parser.add_argument(
        "--not-after", metavar="TIME", help="begin no later, as 2026-12-01T08:00:00Z (in an hour)"
    )


def _waiting(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--wait",
        dest="wait_seconds",
        type=_seconds,
        metavar="SECONDS",
        default=300.0,
        help="how long to stay with the operation (300)",
    )
    parser.add_argument(
        "--no-wait",
        dest="wait_seconds",
        action="store_const",
        const=0.0,
        help="leave as soon as it is accepted",
    )


def _import(commands: Any) -> None:
    importing = _command(
        commands, "import", "take over attachments that another service made, as they are"
    )
    importing.add_argument(
        "file", metavar="FILE", help="a list of them, as JSON or YAML; - is standard input"
    )
    importing.add_argument(
        "--apply",
        action="store_true",
        help="take them over; without this it is only checked whether that can be done",
    )


def _quarantine(commands: Any) -> None:
    quarantine = _command(commands, "quarantine", "devices that must not be used, and why")
    actions = quarantine.add_subparsers(dest="action", metavar="list|release")
    _command(actions, "list", "devices that must not be used, and why")
    release = _command(actions, "release", "let a volume be used again")
    release.add_argument("volume_id", metavar="VOLUME", help="its full id")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds")
    return seconds
