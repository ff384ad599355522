"""Notifications leave in the order in which they were written, each at least once.

A letter is forgotten once the broker has confirmed it. Killed between the two, the agent sends it
again: receivers tell by ``event_id`` (or ``sequence``), which is the message's id as well. Where
the operator switched notifications off (oslo.messaging's driver ``noop``) it is forgotten unsent.
"""

import logging
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import oslo_messaging

from agent.bus.transport import TROUBLES, declared_otherwise, notification_transport
from agent.bus.wire import EXCHANGE, NOTIFICATIONS_TOPIC, PRIORITY, publisher_id
from agent.errors import AgentError
from agent.ports import Outbox

LOG = logging.getLogger(__name__)

BATCH = 100
WAIT_SECONDS = 1.0
RETRY_SECONDS = 2.0

BROKER_TRIES = 1
"""Reconnects within one send, before the letter is taken up again later."""

MISSED_SECONDS = 60.0
"""The thread turns every WAIT_SECONDS, and with each letter, unless a broker holds it: after this
it hangs."""


class Publisher:
    """The agent's mouth.  Raises Invalid where the configuration names no broker."""

    def __init__(self, conf: Any, outbox: Outbox, host: str, *, url: str | None = None) -> None:
        self._transport = notification_transport(conf, url)
        self._is_off = conf.oslo_messaging_notifications.driver == ["noop"]
        self._outbox = outbox
        self._publisher_id = publisher_id(host)
        self._target = oslo_messaging.Target(
            exchange=EXCHANGE, topic=f"{NOTIFICATIONS_TOPIC}.{PRIORITY}"
        )
        self._stopping = threading.Event()
        self._sending = False
        self._turned_at = time.monotonic()
        self._trouble: str | None = None
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)

    def start(self) -> None:
        """Returns at once; letters leave as soon as the broker is there."""
        self._turned_at = time.monotonic()
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """Send what is there, if that takes no longer than ``seconds``; the rest stays written."""
        self._stopping.set()
        self._thread.join(seconds)
        if not self._thread.is_alive():
            self._transport.cleanup()

    def turning(self) -> bool:
        """Our own thread lives: says nothing of the broker. For the watchdog."""
        recently = time.monotonic() - self._turned_at < MISSED_SECONDS
        return self._thread.is_alive() and (self._sending or recently)

    def warnings(self) -> list[str]:
        """For people: what keeps them from leaving, if anything does."""
        trouble = self._trouble
        return [] if trouble is None else [f"notifications wait in the journal: {trouble}"]

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._turned_at = time.monotonic()
            if self._post():
                self._outbox.wait(WAIT_SECONDS)
            else:
                self._stopping.wait(RETRY_SECONDS)
        self._post()

    def _post(self) -> bool:
        """Send everything that is written; False where that did not go to its end."""
        try:
            while letters := self._outbox.letters(BATCH):
                self._send_all(letters)
        except (AgentError, *TROUBLES) as error:
            self._tell(declared_otherwise(error) or f"{error}")
            return False
        self._tell(None)
        return True

    def _send_all(self, letters: Any) -> None:
        confirmed = None
        try:
            for sequence, event_type, payload in letters:
                self._send(event_type, payload)
                confirmed = sequence
        finally:
            if confirmed is not None:
                self._outbox.posted(confirmed)

    def _send(self, event_type: str, payload: Mapping[str, Any]) -> None:
        """Returns when the broker has confirmed."""
        if self._is_off:
            return
        message = {
            "message_id": payload["event_id"],
            "publisher_id": self._publisher_id,
            "event_type": event_type,
            "priority": PRIORITY.upper(),
            "payload": payload,
            "timestamp": f"{datetime.now(UTC).replace(tzinfo=None)}",
        }
        self._sending = True
        try:
            # oslo.messaging's public Notifier logs a failure and goes on: the letter were lost.
            self._transport._send_notification(
                self._target, {}, message, version=2.0, retry=BROKER_TRIES
            )
        finally:
            self._sending = False
            self._turned_at = time.monotonic()

    def _tell(self, trouble: str | None) -> None:
        """Log a change, not every attempt."""
        if trouble is not None and self._trouble is None:
            LOG.warning("notifications wait in the journal: %s", trouble)
        elif trouble is None and self._trouble is not None:
            LOG.info("notifications leave again")
        self._trouble = trouble
