"""ports.Peers over RabbitMQ: the agents of other hosts are asked as anybody asks them."""

from contextlib import closing
from typing import Any

from agent.bus.caller import Caller, Refused, Unreachable, no_refusal
from agent.bus.wire import CONTROL_TOPIC
from agent.errors import Unavailable
from agent.ports import Sighting

ANSWER_SECONDS = 10.0
"""How long one of them is waited for: who asks is tried again."""


class BusPeers:
    """Any thread may call. Each question has a connection of its own: they are rare, and the hosts
    may be many."""

    def __init__(self, conf: Any, url: str | None = None) -> None:
        """``url`` or else ``[DEFAULT] transport_url``."""
        self._conf = conf
        self._url = url

    def look(self, host: str, instance_id: str) -> Sighting:
        found = self._ask(host, "get_instance", instance_id=instance_id)
        if not found["present"]:
            return Sighting(state=None)
        return Sighting(state=found["state"], job=found["job"])

    def _ask(self, host: str, question: str, **arguments: Any) -> dict[str, Any]:
        try:
            with closing(Caller(self._conf, host, self._url, ANSWER_SECONDS)) as caller:
                return no_refusal(caller.call(CONTROL_TOPIC, question, **arguments))
        except (Refused, Unreachable) as error:
            raise Unavailable(f"the agent of {host}", f"{error}") from error
