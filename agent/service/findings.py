"""The audit from time to time: what does not fit is told before somebody asks."""

import logging
from collections import Counter

from agent.journal.store import Journal
from agent.ports import Host
from agent.service.audit import audit

LOG = logging.getLogger(__name__)

AUDIT_SECONDS = 600.0


class Findings:
    """``look`` is called by one thread, the rest by any. Nothing is changed, as by every audit."""

    def __init__(self, host: Host, journal: Journal) -> None:
        self._host = host
        self._journal = journal
        self._known: frozenset[tuple[str, str]] = frozenset()

    def look(self) -> None:
        """Logs what was not found the last time.  Raises Unavailable (libvirt, the journal)."""
        findings = audit(self._host, self._journal)["findings"]
        found = frozenset(
            (one["kind"], f"{one['attachment_id']}: {one['detail']}") for one in findings
        )
        for kind, about in sorted(found - self._known):
            LOG.warning("audit: %s: attachment %s (attachctl audit)", kind, about)
        self._known = found

    def counts(self) -> Counter[str]:
        """By kind, as found the last time."""
        return Counter(kind for kind, _ in self._known)
