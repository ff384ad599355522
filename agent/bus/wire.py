"""The names on the bus (design §7, docs/wire.rst). Other programs are written against them."""

EXCHANGE = "attachment_agent"

COMMANDS_TOPIC = "attachment-agent"
CONTROL_TOPIC = "attachment-agent-control"
WAIT_TOPIC = "attachment-agent-wait"

NOTIFICATIONS_TOPIC = "attachment_agent_notifications"
PRIORITY = "info"
"""oslo.messaging appends it to the topic; one queue for all events keeps them in order."""

VERSION = "1.0"

LONGEST_WAIT_SECONDS = 30.0
"""Of one wait_operation; model.request.WaitRequest refuses more."""


def publisher_id(host: str) -> str:
    return f"attachment-agent.{host}"
