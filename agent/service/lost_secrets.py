"""After a restart of libvirtd its ephemeral secrets are made anew, so that guests can be started.

Whoever plugs a disk makes its secrets himself (agent/steps/secret.py); a guest that is started from
its definition has nobody else. What came by value cannot be made anew: that is for people
(``attachctl audit``).
"""

import logging
import threading
from functools import partial

from agent.errors import AgentError
from agent.journal.store import Journal
from agent.ports import Host
from agent.service.turns import Turns, do_all
from agent.steps.secret import remake_secrets

LOG = logging.getLogger(__name__)

LOOK_AGAIN_SECONDS = 60.0
"""Until all that can be made is made."""


UNTIL_WANTED = threading.TIMEOUT_MAX
"""The next look is when libvirt is connected to anew."""


def turns_of_secrets(host: Host, journal: Journal) -> Turns:
    """To be hurried with each new connection to libvirt."""
    return Turns(
        "lost secrets",
        LostSecrets(host, journal).look,
        LOOK_AGAIN_SECONDS,
        first_seconds=UNTIL_WANTED,
        trouble="nobody knows which secrets are there",
    )


class LostSecrets:
    def __init__(self, host: Host, journal: Journal) -> None:
        self._host = host
        self._journal = journal

    def look(self) -> float | None:
        """All that attachments in place need is there, until ``UNTIL_WANTED``; None: some is not.

        Raises Unavailable (the journal), Internal."""
        held = self._journal.read(lambda book: book.attachments())
        promised = [row.attachment.attachment_id for row in held if row.promised]
        missing: list[str] = []
        do_all(partial(self._remake, attachment_id, missing) for attachment_id in promised)
        return None if missing else UNTIL_WANTED

    def _remake(self, attachment_id: str, missing: list[str]) -> None:
        held = self._journal.read(lambda book: book.attachment(attachment_id))
        if held is None:
            return
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
            missing.append(attachment_id)
            return
        if made:
            LOG.info("libvirt knows the secrets of attachment %s again", attachment_id)
