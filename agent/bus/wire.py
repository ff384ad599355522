"""Where things are on the bus (docs/wire.rst). Other programs are written against it.

What can be called there is in model.contract.
"""

EXCHANGE = "attachment_agent"

COMMANDS_TOPIC = "attachment-agent"
CONTROL_TOPIC = "attachment-agent-control"
WAIT_TOPIC = "attachment-agent-wait"

NOTIFICATIONS_TOPIC = "attachment_agent_notifications"
PRIORITY = "info"
"""oslo.messaging appends it to the topic; one queue for all events keeps them in order."""


def publisher_id(host: str) -> str:
    return f"attachment-agent.{host}"
