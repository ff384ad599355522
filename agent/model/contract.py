"""The names of the contract (docs/wire.rst), and what each of them takes.

A verb comes by its noun here and by its plan in operations.VERBS; a question by its noun here and
its answer in service.queries. Everything else asks these tables.
"""

from collections.abc import Mapping

from agent.errors import Unsupported
from agent.model.imports import ImportQuery
from agent.model.migration_request import (
    CancelMigrationRequest,
    MigrateRequest,
    PrepareMigrationRequest,
)
from agent.model.request import (
    AttachBatchRequest,
    AttachRequest,
    ConnectInstanceRequest,
    ConnectorOf,
    DetachRequest,
    DisconnectInstanceRequest,
    ExtendRequest,
    InstanceRef,
    ListAttachments,
    ListOperations,
    Nothing,
    OperationRef,
    PlanQuery,
    SetIotuneRequest,
    VolumeRef,
    WaitRequest,
)
from agent.model.swap import SwapRequest
from agent.model.value import Value

WIRE_VERSION = "1.0"
"""Of requests and of notifications: grows by what is added, nothing is renamed."""

MOVE_INSTANCE = "move-instance"
"""The step of a migration that hands the guest over: a destination asks the source whether it has
begun."""

ASKED_VERSION = "1.0"
"""What our own calls demand of an agent, which may be older than we: a name or a field that it has
not it refuses by that name."""

Command = (
    AttachRequest
    | AttachBatchRequest
    | DetachRequest
    | ExtendRequest
    | SetIotuneRequest
    | SwapRequest
    | ConnectInstanceRequest
    | DisconnectInstanceRequest
    | PrepareMigrationRequest
    | MigrateRequest
    | CancelMigrationRequest
)

COMMANDS: Mapping[str, type[Command]] = {
    "attach": AttachRequest,
    "attach_batch": AttachBatchRequest,
    "detach": DetachRequest,
    "swap": SwapRequest,
    "extend": ExtendRequest,
    "set_iotune": SetIotuneRequest,
    "connect_instance": ConnectInstanceRequest,
    "disconnect_instance": DisconnectInstanceRequest,
    "prepare_migration": PrepareMigrationRequest,
    "migrate": MigrateRequest,
    "cancel_migration": CancelMigrationRequest,
}
"""Each takes one argument, ``request``: this noun."""

QUESTIONS: Mapping[str, type[Value]] = {
    "ping": Nothing,
    "describe": Nothing,
    "get_connector": ConnectorOf,
    "get_instance": InstanceRef,
    "get_operation": OperationRef,
    "list_operations": ListOperations,
    "list_attachments": ListAttachments,
    "cancel_operation": OperationRef,
    "abandon_operation": OperationRef,
    "plan": PlanQuery,
    "audit": Nothing,
    "list_locks": Nothing,
    "list_quarantine": Nothing,
    "release_quarantine": VolumeRef,
    "import_attachments": ImportQuery,
}
"""Each takes the fields of its noun as keyword arguments."""

WAIT: Mapping[str, type[Value]] = {"wait_operation": WaitRequest}
"""As a question, on a topic of its own."""

CHANGING = frozenset(
    {"cancel_operation", "abandon_operation", "release_quarantine", "import_attachments"}
)
"""Of them, what changes something: it must have been meant for this host."""

ARGUMENTS: Mapping[str, type[Value]] = {**QUESTIONS, **WAIT}
"""Whatever is no command."""


def noun_of(verb: str) -> type[Command]:
    """Raises Unsupported where this version has no such verb."""
    if verb not in COMMANDS:
        raise Unsupported(
            f"this version of the agent has no {verb}, it has {', '.join(COMMANDS)} (describe "
            "tells); nothing was touched"
        )
    return COMMANDS[verb]


def arguments_of(question: str) -> type[Value]:
    """Raises Unsupported where this version does not answer it."""
    if question not in ARGUMENTS:
        raise Unsupported(
            f"this version of the agent does not answer {question}: it knows "
            f"{', '.join(ARGUMENTS)}; nothing was changed"
        )
    return ARGUMENTS[question]
