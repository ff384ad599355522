"""One file per verb: request → Plan, and nothing else; and what admits a request at all."""

from collections.abc import Callable

from agent.journal.record import Record
from agent.operations.attach import plan_attach
from agent.operations.attach_batch import plan_attach_batch
from agent.operations.cancel_migration import plan_cancel_migration
from agent.operations.connect_instance import plan_connect_instance
from agent.operations.detach import plan_detach
from agent.operations.disconnect_instance import plan_disconnect_instance
from agent.operations.extend import plan_extend
from agent.operations.migrate import plan_migrate
from agent.operations.prepare_migration import plan_prepare_migration
from agent.operations.set_iotune import plan_set_iotune
from agent.operations.swap import plan_swap
from agent.saga.plan import Plan

VERBS: dict[str, Callable[[Record], Plan]] = {
    "attach": plan_attach,
    "attach_batch": plan_attach_batch,
    "detach": plan_detach,
    "swap": plan_swap,
    "extend": plan_extend,
    "set_iotune": plan_set_iotune,
    "connect_instance": plan_connect_instance,
    "disconnect_instance": plan_disconnect_instance,
    "prepare_migration": plan_prepare_migration,
    "migrate": plan_migrate,
    "cancel_migration": plan_cancel_migration,
}


def plan_of(record: Record) -> Plan:
    """The plan of a record: the same after every restart."""
    return VERBS[record.verb](record)
