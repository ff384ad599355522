"""After a restart of libvirt its ephemeral secrets are made anew, so that guests can be started.

Of libvirtd a new connection tells; virtsecretd is restarted without anybody being told, and so all
of them are looked for again and again.

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


def turns_of_secrets(host: Host, journal: Journal) -> Turns:
    """To be hurried with each new connection to libvirt, of which the first is awaited."""
    secrets = LostSecrets(host, journal)

    def look() -> None:
        secrets.look()

    return Turns(
        "lost secrets",
        look,
        LOOK_AGAIN_SECONDS,
        first_seconds=threading.TIMEOUT_MAX,
        trouble="nobody knows which secrets are there",
    )


class LostSecrets:
    def __init__(self, host: Host, journal: Journal) -> None:
        self._host = host
        self._journal = journal

    def look(self) -> bool:
        """Is all there now that attachments in place need?

        Raises Unavailable (the journal, libvirt), Internal."""
        held = self._journal.read(lambda book: book.attachments())
        needed = [row.attachment for row in held if row.promised and row.attachment.secrets]
        for one in needed[:1]:
            self._host.secrets.has(one.secrets[0].uuid)  # or libvirt is away, and is told of once
        missing: list[str] = []
        do_all(partial(self._remake, one.attachment_id, missing) for one in needed)
        return not missing

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
