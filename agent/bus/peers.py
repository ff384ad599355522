"""ports.Peers over RabbitMQ: the agents of other hosts are asked as anybody asks them."""

import logging
from collections.abc import Mapping
from contextlib import closing
from typing import Any

from agent.bus.caller import Caller, Refused, Unreachable, no_refusal
from agent.bus.wire import CONTROL_TOPIC
from agent.ports import PeerAbilities, Sighting

LOG = logging.getLogger(__name__)

ANSWER_SECONDS = 10.0
"""How long one of them is waited for: who asks is tried again."""


class BusPeers:
    """Any thread may call. Each question has a connection of its own: they are rare, and the hosts
    may be many."""

    def __init__(self, conf: Any, url: str | None = None) -> None:
        """``url`` or else ``[DEFAULT] transport_url``."""
        self._conf = conf
        self._url = url

    def look(self, host: str, instance_id: str) -> Sighting | None:
        found = self._ask(host, "get_instance", instance_id=instance_id)
        if found is None:
            return None
        if not found["present"]:
            return Sighting(state=None)
        return Sighting(state=found["state"], job=found["job"])

    def abilities(self, host: str) -> PeerAbilities | None:
        found = self._ask(host, "describe")
        if found is None:
            return None
        version = found["libvirt"] and tuple(int(part) for part in found["libvirt"].split("."))
        return PeerAbilities(frozenset(found["verbs"]), version)

    def prepared(self, host: str, instance_id: str) -> Mapping[str, str] | None:
        found = self._ask(host, "list_attachments", filters={"instance_id": instance_id})
        if found is None:
            return None
        leases = [row["lease"] for row in found["attachments"] if row.get("lease")]
        return {lease["replaces"]: lease["migration_id"] for lease in leases}

    def _ask(self, host: str, question: str, **arguments: Any) -> dict[str, Any] | None:
        try:
            with closing(Caller(self._conf, host, self._url, ANSWER_SECONDS)) as caller:
                return no_refusal(caller.call(CONTROL_TOPIC, question, **arguments))
        except (Refused, Unreachable) as error:
            LOG.info("the agent of %s does not answer %s: %s", host, question, error)
            return None
