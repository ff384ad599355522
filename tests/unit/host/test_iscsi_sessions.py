"""Sessions that os-brick believes logged out: their node record went first."""

from typing import Any

import pytest
from oslo_concurrency.processutils import ProcessExecutionError

from agent.errors import AgentError
from agent.host.brick_trail import ISCSI_NOTHING_FOUND
from tests.samples import attachment
from tests.unit.host.test_brick_calls import (
    IQN,
    OTHER_WWN,
    TWO_PATHS,
    WWN,
    Bench,
    connected,
)
from tests.unit.host.test_brick_calls import bench as bench  # the fixture


class Commands(list[tuple[str, ...]]):
    def __init__(self, ended: int = 0) -> None:
        super().__init__()
        self._ended = ended

    def __call__(self, *command: str, **how: Any) -> tuple[str, str]:
        self.append(command)
        if self._ended not in how["check_exit_code"]:
            raise ProcessExecutionError(exit_code=self._ended, stderr="iscsid is not there")
        return "", ""


def leave(bench: Bench, commands: Commands, **options: Any) -> None:
    asked, device = connected(bench, **options)
    bench.brick.on_disconnect = lambda: bench.tree.remove("sdb")
    bench.connectors(execute=commands, **options).disconnect(asked, device)


def gone(portal: str) -> list[tuple[str, ...]]:
    """Session 7, and the record that would have it back at the next boot."""
    return [
        ("iscsiadm", "-m", "session", "-r", "7", "--logout"),
        ("iscsiadm", "-m", "node", "-T", IQN, "-p", portal, "--op", "delete"),
    ]


@pytest.mark.parametrize("ended", [0, ISCSI_NOTHING_FOUND])
def test_a_session_that_shows_nothing_is_logged_out(bench: Bench, ended: int) -> None:
    bench.tree.session(7, "192.0.2.1", IQN)
    commands = Commands(ended)
    leave(bench, commands)
    assert commands == gone("192.0.2.1:3260")


def test_one_that_stays_is_an_error(bench: Bench) -> None:
    bench.tree.session(7, "192.0.2.1", IQN)
    with pytest.raises(AgentError, match="iscsid is not there") as refused:
        leave(bench, Commands(20))
    assert refused.value.code == "connect-failed"


def test_one_that_shows_a_neighbour_stays(bench: Bench) -> None:
    bench.tree.session(7, "192.0.2.1", IQN)
    bench.tree.scsi("sdq", "65:0", OTHER_WWN, session=7, lun=2)
    commands = Commands()
    leave(bench, commands)
    assert commands == []


@pytest.mark.parametrize(
    ("ip", "iqn"),
    [("192.0.2.2", IQN), ("192.0.2.1", "iqn.2010-10.org.openstack:another")],
    ids=["another portal", "another target"],
)
def test_one_that_os_brick_was_not_told_of_stays(bench: Bench, ip: str, iqn: str) -> None:
    bench.tree.session(7, ip, iqn)
    commands = Commands()
    leave(bench, commands)
    assert commands == []


def test_by_each_portal_and_without_a_device_too(bench: Bench) -> None:
    """A connect that failed has found none."""
    bench.tree.session(7, "192.0.2.2", IQN)
    info = {"driver_volume_type": "iscsi", "data": TWO_PATHS}
    commands = Commands()
    asked = attachment(connection_info=info)
    bench.connectors(execute=commands, use_multipath=True).disconnect(asked, None)
    assert commands == gone("192.0.2.2:3260")


def test_one_that_others_came_by_is_none_of_the_request_and_goes_too(bench: Bench) -> None:
    """A guest that has left by now had the volume by another portal of its target."""
    asked, device = connected(bench)
    bench.tree.session(7, "2001:db8::2", IQN)
    bench.tree.scsi("sdq", "65:0", WWN, serial="457b1507", session=7, lun=1)
    bench.brick.on_disconnect = lambda: bench.tree.remove("sdb")
    bench.brick.on_remove = bench.tree.remove
    commands = Commands()
    bench.connectors(execute=commands).disconnect(asked, device)
    assert ("remove", ["sdq"]) in bench.brick.calls
    assert commands == gone("[2001:db8::2]:3260")
