"""Transports with what this wire needs, whatever the rest of the configuration says.

Queues and the exchange are durable: RabbitMQ refuses (406) whoever declares them otherwise, and
oslo.messaging would then quietly fall back to queues that a restart of the broker empties. The
exchange is named in every target: an orchestrator's own ``control_exchange`` is left alone.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import amqp
import kombu.exceptions
import oslo_messaging

from agent.errors import Invalid

NEEDED = {
    "amqp_durable_queues": "true",
    # The longest pause before the broker is tried again; oslo.messaging's own default is 30.
    "rabbit_interval_max": "5",
    # How long an answer waits for a caller's vanished reply queue, and holds a thread meanwhile;
    # oslo.messaging's own default is 60. After it oslo.messaging drops every answer to that queue
    # for a minute: so it must outlast the pause after which a caller of ours is back.
    "kombu_missing_consumer_retry_timeout": "12",
}

TROUBLES = (
    oslo_messaging.MessagingException,
    kombu.exceptions.KombuError,
    amqp.AMQPError,
    OSError,
)
"""What oslo.messaging lets through when the broker is away, refuses us or is set up otherwise."""


def declared_otherwise(error: Exception) -> str | None:
    """What the broker has made in another way than we ask for it (406), and what to set.

    None: it is another trouble."""
    found = re.search(r"inequivalent arg '([^']+)' for (queue|exchange) '([^']+)'", f"{error}")
    if found is None:
        return None
    argument, kind, name = found.groups()
    option = _OPTIONS.get(argument, "[oslo_messaging_rabbit]")
    return (
        f"{kind} {name} was made with another {argument}: set {option} as it was made (and in "
        f"transport_url nothing else), or stop who uses it, delete it and start again"
    )


_OPTIONS = {
    "durable": "[oslo_messaging_rabbit] amqp_durable_queues (the agents' is true)",
    "x-queue-type": "[oslo_messaging_rabbit] rabbit_quorum_queue",
}


def rpc_transport(conf: Any, url: str | None = None) -> Any:
    """An oslo.messaging RPCTransport; ``url`` or else ``[DEFAULT] transport_url``.

    ``conf`` should be ``oslo_config.cfg.CONF``: oslo.messaging 18.3 calls fail with another one
    (its tracing options are registered there only).  Raises Invalid."""
    return _transport(oslo_messaging.get_rpc_transport, conf, url)


def notification_transport(conf: Any, url: str | None = None) -> Any:
    """The same for notifications, with a connection pool of its own.

    ``[oslo_messaging_notifications] transport_url`` is not read: one broker serves both."""
    return _transport(oslo_messaging.get_notification_transport, conf, url)


def _transport(make: Callable[[Any, Any], Any], conf: Any, url: str | None) -> Any:
    try:
        parsed = oslo_messaging.TransportURL.parse(conf, url)
        query: Mapping[str, str] = parsed.query
        parsed.query = {**NEEDED, **query}
        return make(conf, parsed)
    except (oslo_messaging.MessagingException, ValueError):  # its text may show the password
        raise Invalid(
            "[DEFAULT] transport_url cannot be used: it must be like "
            "rabbit://user:password@broker:5672/vhost"
        ) from None
