"""Power is lost with volumes attached: they are back before guests start, and a sick array's later.

The machine's reset is QEMU's; everything else is what its own systemd does.
"""

import pytest

from tests.lab.patience import LabError
from tests.nested.outside.machine import Machine

STEP = "cd /srv/tests && ATTACHMENT_AGENT_NESTED=1 /opt/tests/bin/python -m {} {}"
LOG = "journalctl --no-pager --boot -u 'attachment-agent*' | grep -v DEBUG | tail -n 200"
STEP_SECONDS = 2400
MODULE = "tests.nested.inside.power_loss"


@pytest.mark.outside
def test_volumes_are_back_before_guests_start(machine: Machine) -> None:
    machine.ssh(STEP.format(MODULE, "before"), seconds=STEP_SECONDS)
    machine.reset()
    try:
        machine.ssh(STEP.format(MODULE, "after"), seconds=STEP_SECONDS)
    except LabError:
        print(machine.ssh(LOG))
        raise
