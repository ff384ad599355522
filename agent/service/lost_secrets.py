"""After a restart of libvirtd its ephemeral secrets are made anew, so that guests can be started.

Whoever plugs a disk makes its secrets himself (agent/steps/secret.py); a guest that is started from
its definition has nobody else. What came by value cannot be made anew: that is for people
(``attachctl audit``).
"""

import logging
import threading

from agent.errors import AgentError
from agent.journal.store import Journal
from agent.ports import Host
from agent.steps.secret import remake_secrets

LOG = logging.getLogger(__name__)

LOOK_AGAIN_SECONDS = 60.0
"""Until all that can be made is made."""


class LostSecrets:
    def __init__(self, host: Host, journal: Journal) -> None:
        self._host = host
        self._journal = journal
        self._wanted = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="lost secrets", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def turning(self) -> bool:
        return self._thread.is_alive()

    def connected(self) -> None:
        """To libvirt, anew: it may have forgotten them. Returns at once."""
        self._wanted.set()

    def stop(self) -> None:
        """Begin nothing more."""
        self._stopped.set()
        self._wanted.set()

    def look(self) -> bool:
        """All that attachments in place need is there; False: some is not.

        Raises Unavailable (the journal)."""
        held = self._journal.read(lambda book: book.attachments())
        promised = [row.attachment.attachment_id for row in held if row.promised]
        missing = [attachment_id for attachment_id in promised if not self._remake(attachment_id)]
        return not missing

    def _remake(self, attachment_id: str) -> bool:
        held = self._journal.read(lambda book: book.attachment(attachment_id))
        if held is None:
            return True
        try:
            made = remake_secrets(self._host, held.attachment)
        except AgentError as error:
            LOG.warning(
                "attachment %s of instance %s: its guest cannot be started: %s: %s",
                attachment_id,
                held.attachment.instance_id,
                error.code,
                error.detail,
            )
            return False
        if made:
            LOG.info("libvirt knows the secrets of attachment %s again", attachment_id)
        return True

    # in a thread of its own

    def _watch(self) -> None:
        pause_seconds: float | None = None
        while not self._stopped.is_set():
            self._wanted.wait(pause_seconds)
            self._wanted.clear()
            if self._stopped.is_set():
                return
            try:
                pause_seconds = None if self.look() else LOOK_AGAIN_SECONDS
            except AgentError as error:
                LOG.warning("nobody knows which secrets are there: %s", error.detail)
                pause_seconds = LOOK_AGAIN_SECONDS
