"""The audit from time to time: counted by kind, and logged once."""

import pytest

from agent.service.findings import Findings
from tests.unit.saga.stories import ONE
from tests.world.story import attached
from tests.world.world import World


def test_what_does_not_fit_is_logged_once_and_counted_until_it_fits(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    attached(world, 1)
    findings = Findings(world.host, world.journal)
    findings.look()
    assert findings.counts() == {}
    guest = world.domains.guests.pop(ONE)
    findings.look()
    findings.look()
    assert findings.counts() == {"instance-missing": 1}
    told = [record.getMessage() for record in caplog.records if "audit" in record.getMessage()]
    assert told == [
        "audit: instance-missing: attachment att-1: libvirt has no such domain (attachctl audit)"
    ]
    world.domains.guests[ONE] = guest
    findings.look()
    assert findings.counts() == {}
