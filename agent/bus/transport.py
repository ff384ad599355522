"""Transports with what this wire needs, whatever the rest of the configuration says.

Queues and the exchange are durable: RabbitMQ refuses (406) whoever declares them otherwise, and
oslo.messaging would then quietly fall back to queues that a restart of the broker empties.
"""

from collections.abc import Mapping
from typing import Any

import amqp
import kombu.exceptions
import oslo_messaging

from agent.bus.wire import EXCHANGE

NEEDED = {
    "amqp_durable_queues": "true",
    # How long an answer waits for a caller's vanished reply queue, and holds a thread meanwhile;
    # the caller asks again anyway. oslo.messaging's own default is 60.
    "kombu_missing_consumer_retry_timeout": "10",
}

TROUBLES = (
    oslo_messaging.MessagingException,
    kombu.exceptions.KombuError,
    amqp.AMQPError,
    OSError,
)
"""What oslo.messaging lets through when the broker is away, refuses us or is set up otherwise."""


def rpc_transport(conf: Any, url: str | None = None) -> Any:
    """An oslo.messaging RPCTransport; ``url`` or else ``[DEFAULT] transport_url``.

    ``conf`` should be ``oslo_config.cfg.CONF``: oslo.messaging 18.3 calls fail with another one
    (its tracing options are registered there only)."""
    return oslo_messaging.get_rpc_transport(conf, _with_needs(conf, url))


def notification_transport(conf: Any, url: str | None = None) -> Any:
    """The same for notifications, with a connection pool of its own.

    ``[oslo_messaging_notifications] transport_url`` is not read: one broker serves both."""
    return oslo_messaging.get_notification_transport(conf, _with_needs(conf, url))


def _with_needs(conf: Any, url: str | None) -> Any:
    oslo_messaging.set_transport_defaults(EXCHANGE)
    parsed = oslo_messaging.TransportURL.parse(conf, url)
    query: Mapping[str, str] = parsed.query
    parsed.query = {**NEEDED, **query}
    return parsed
