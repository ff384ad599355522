"""What the publisher does without a broker."""

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from oslo_config import cfg

from agent.bus.publisher import Publisher
from agent.bus.transport import notification_transport

ENOUGH_SECONDS = 10

NOBODY = "rabbit://nobody:nothing@127.0.0.1:9/"
"""Where no broker is."""


class OneLetter:
    """ports.Outbox that holds one."""

    def __init__(self) -> None:
        self.gone = threading.Event()

    def letters(self, limit: int) -> Sequence[tuple[int, str, dict[str, Any]]]:
        return [] if self.gone.is_set() else [(1, "attachment.attach.end", {"event_id": "one"})]

    def posted(self, up_to_sequence: int) -> None:
        self.gone.set()

    def wait(self, timeout_seconds: float) -> None:
        self.gone.wait(timeout_seconds)


@pytest.fixture
def switched_off() -> Iterator[None]:
    notification_transport(cfg.CONF, NOBODY)  # oslo.messaging registers its options with one
    cfg.CONF.set_override("driver", ["noop"], "oslo_messaging_notifications")
    yield
    cfg.CONF.clear_override("driver", "oslo_messaging_notifications")


def test_what_is_switched_off_is_forgotten_unsent(switched_off: None) -> None:
    outbox = OneLetter()
    publisher = Publisher(cfg.CONF, outbox, "hypervisor-1", url=NOBODY)
    publisher.start()
    try:
        assert outbox.gone.wait(ENOUGH_SECONDS)
        assert publisher.warnings() == []
    finally:
        publisher.stop(ENOUGH_SECONDS)
