"""What is told to who scrapes, of what no operation tells."""

from agent.service.metrics import Metrics
from tests.unit.journal.rows import opened


def test_what_is_lost_and_what_hangs_is_counted_at_each_scrape() -> None:
    counts = iter([0, 2])
    with opened(None) as journal:
        metrics = Metrics(journal, {"bus": lambda: False}, lambda: 3, lambda: next(counts))
        for overdue in (0, 2):
            found = {metric.name: metric.samples[0].value for metric in metrics.collect()}
            assert found["attachment_agent_overdue_locks"] == overdue
            assert found["attachment_agent_lost_volumes"] == 3
            assert found["attachment_agent_up"] == 0
