"""A libvirtd that dies, hangs and comes back; a QEMU that hangs."""

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from agent.errors import Unavailable
from agent.host.libvirt_connection import LibvirtConnection
from agent.host.libvirt_domains import STUCK_SECONDS, LibvirtDomains
from agent.host.libvirt_events import LibvirtEvents
from tests.contract.domains import Disk
from tests.lab.guest import Guest, Shape
from tests.lab.lab import Lab
from tests.lab.patience import PATIENCE, wait_until
from tests.lab.stopped import stopped

pytestmark = pytest.mark.real

BARE = Shape(has_system=False, spare_ports=4, memory_mib=32)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


@pytest.fixture
def connection(lab: Lab) -> Iterator[LibvirtConnection]:
    connection = LibvirtConnection(
        lab.libvirtd.uri,
        call_timeout_seconds=2 * PATIENCE,
        open_timeout_seconds=1 * PATIENCE,
        keepalive_seconds=1,
        keepalive_count=2,
    )
    yield connection
    connection.close()


@pytest.fixture
def guest(lab: Lab) -> Iterator[Guest]:
    guest = lab.guest(shape=BARE, is_persistent=False)
    yield guest
    guest.destroy()


class Heard:
    """What LibvirtEvents tells, in order."""

    def __init__(self, connection: LibvirtConnection) -> None:
        self.told: list[str] = []
        self._changed = threading.Condition()
        self.events = LibvirtEvents(
            connection, on_event=self._tell, on_connected=lambda: self._tell("connected")
        )
        self.events.start()

    def _tell(self, what: str) -> None:
        with self._changed:
            self.told.append(what)
            self._changed.notify_all()

    def wait_for(self, what: str, *, after: int = 0, seconds: float = 10) -> int:
        """How many were told when it came."""
        with self._changed:
            came = self._changed.wait_for(lambda: what in self.told[after:], seconds * PATIENCE)
            assert came, f"{what} not among {self.told[after:]}"
            return len(self.told)


def make_disk(lab: Lab, *, unit: int, alias: str) -> Disk:
    path = str(lab.volume(size_mib=1).path)
    return Disk(path=path, target_dev=f"sd{chr(97 + unit)}", unit=unit, alias=alias)


def test_a_disk_that_is_let_go_is_told(
    lab: Lab, connection: LibvirtConnection, guest: Guest
) -> None:
    heard = Heard(connection)
    domains = LibvirtDomains(connection)
    disk = make_disk(lab, unit=1, alias="ua-told")
    domains.plug(guest.uuid, disk.xml())
    before = len(heard.told)
    domains.unplug(guest.uuid, disk.alias)
    heard.wait_for(guest.uuid, after=before)
    found = domains.look(guest.uuid)
    assert found is not None
    assert not disk.is_in(found.live_xml)
    heard.events.close()


def test_a_guest_that_stops_is_told(lab: Lab, connection: LibvirtConnection, guest: Guest) -> None:
    heard = Heard(connection)
    before = heard.wait_for("connected")
    guest.destroy()
    heard.wait_for(guest.uuid, after=before)
    assert LibvirtDomains(connection).look(guest.uuid) is None
    heard.events.close()


def test_a_libvirtd_that_was_killed_is_back_by_itself(
    lab: Lab, connection: LibvirtConnection, guest: Guest
) -> None:
    heard = Heard(connection)
    domains = LibvirtDomains(connection)
    assert domains.look(guest.uuid) is not None
    before = heard.wait_for("connected")
    lab.libvirtd.kill()
    with pytest.raises(Unavailable) as told:
        domains.look(guest.uuid)
    assert "has not ended within" not in str(told.value), "it waited for the call's timeout"
    assert not connection.alive()
    lab.libvirtd.start()
    after = heard.wait_for("connected", after=before)
    found = domains.look(guest.uuid)
    assert found is not None
    assert found.state == "running"
    guest.destroy()
    heard.wait_for(guest.uuid, after=after)
    heard.events.close()


def test_a_libvirtd_that_hangs_is_noticed_and_waited_for(
    lab: Lab, connection: LibvirtConnection, guest: Guest
) -> None:
    heard = Heard(connection)
    domains = LibvirtDomains(connection)
    assert domains.look(guest.uuid) is not None
    with stopped(lab.libvirtd.pid):
        for _ in range(3):
            with pytest.raises(Unavailable):
                domains.look(guest.uuid)
        assert connection.turning()
    wait_until(connection.alive, "connected again", seconds=10)
    assert domains.look(guest.uuid) is not None
    heard.events.close()


def test_keepalive_notices_a_libvirtd_that_hangs_while_nobody_asks(
    lab: Lab, connection: LibvirtConnection
) -> None:
    assert connection.call(lambda virt: virt.isAlive())
    with stopped(lab.libvirtd.pid):
        wait_until(lambda: not connection.alive(), "keep-alive gives up", seconds=6)


def test_a_qemu_that_hangs_holds_up_nobody_else(
    lab: Lab, connection: LibvirtConnection, guest: Guest
) -> None:
    other = lab.guest(shape=BARE, is_persistent=False)
    domains = LibvirtDomains(connection)
    before = {look.instance_id: look for look in domains.all()}
    pid = lab.libvirtd.guest_pids()[guest.name]
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(Unavailable, match="QEMU may be stuck"):
            domains.plug(guest.uuid, make_disk(lab, unit=1, alias="ua-stuck").xml())
        # None of these is Unavailable: the call under way holds up nobody else.
        disk = make_disk(lab, unit=1, alias="ua-other")
        domains.plug(other.uuid, disk.xml())
        found = domains.look(other.uuid)
        assert found is not None
        assert disk.is_in(found.live_xml)
        looks = {look.instance_id: look for look in domains.all()}
        assert looks[guest.uuid] == before[guest.uuid]
        assert disk.is_in(looks[other.uuid].live_xml)
    finally:
        os.kill(pid, signal.SIGCONT)
        other.destroy()


@pytest.mark.timeout(120)
def test_a_look_says_that_qemu_hangs(lab: Lab, guest: Guest) -> None:
    """It does not wait for the command that hangs, as libvirt's own question for jobs would."""
    connection = LibvirtConnection(lab.libvirtd.uri, call_timeout_seconds=60)
    domains = LibvirtDomains(connection)
    pid = lab.libvirtd.guest_pids()[guest.name]
    disk = make_disk(lab, unit=1, alias="ua-stuck")
    stuck = threading.Thread(target=domains.plug, args=(guest.uuid, disk.xml()))

    def is_stuck() -> bool:
        _state, _details, since_milliseconds = guest.domain.controlInfo()
        return since_milliseconds > STUCK_SECONDS * 1000

    os.kill(pid, signal.SIGSTOP)
    try:
        stuck.start()
        wait_until(is_stuck, "libvirt counts the seconds", seconds=2 * STUCK_SECONDS)
        found = domains.look(guest.uuid)
        assert stuck.is_alive(), "the look came after the command, not beside it"
        assert found is not None
        assert found.live_xml is not None
        assert found.job is not None
        assert found.job == "command to QEMU (unanswered for more than 10 s)"
    finally:
        os.kill(pid, signal.SIGCONT)
    stuck.join(20)
    assert not stuck.is_alive()
    found = domains.look(guest.uuid)
    assert found is not None
    assert found.job is None
    assert disk.is_in(found.live_xml)
    connection.close()


def test_connections_are_closed_when_they_are_replaced(lab: Lab) -> None:
    """Files and threads of this process are as many after twenty connections as after two."""
    counts = []
    for _ in range(20):
        connection = LibvirtConnection(lab.libvirtd.uri)
        heard = Heard(connection)
        heard.wait_for("connected")
        connection.call(lambda virt: virt.getLibVersion())
        heard.events.close()
        connection.close()
        counts.append((len(os.listdir("/proc/self/fd")), threading.active_count()))
    assert wait_until(
        lambda: (len(os.listdir("/proc/self/fd")), threading.active_count()) <= counts[1],
        f"files and threads go: {counts}",
        seconds=5,
    )
