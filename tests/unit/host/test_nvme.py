"""Controllers of NVMe over fabrics that os-brick leaves: which go, and which never do."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from os_brick import exception
from oslo_concurrency import processutils as putils

from agent.errors import AgentError, ConnectFailed
from tests.samples import attachment
from tests.unit.host.test_brick_calls import CASES, NQN, UUID, Bench, Case, connected, wire
from tests.unit.host.test_brick_calls import bench as bench  # the fixture

NVME = next(case for case in CASES if case.name == "nvmeof")
OLD = next(case for case in CASES if case.name == "nvmeof-old-format")
BY_ITS_NUMBER = replace(OLD, data={**OLD.data, "ns_id": 1})
BY_NOTHING = replace(OLD, data={**OLD.data, "ns_id": None})
OTHER = "0e1f8a3e-2c47-4d0a-9e61-7f0c2b9d1a34"
FIRST, SECOND = "192.0.2.20:4420", "192.0.2.21:4420"


class Ran:
    """The machine's commands; ``nvme disconnect`` takes the controller away."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self.gone: list[str] = []

    def __call__(self, *command: str, **how: Any) -> tuple[str, str]:
        if command[:3] == ("nvme", "disconnect", "-d"):
            assert how == {"run_as_root": True}
            self.gone.append(command[3])
        return "", ""


def finds_nothing(make: Callable[[], None]) -> Callable[[Any], None]:
    """As os-brick: it connects controllers, and does not find the namespace."""

    def connect(execute: Any) -> None:
        execute("nvme", "connect", "-a", "192.0.2.20", "-s", "4420")
        make()
        raise exception.VolumeDeviceNotFound(device=NQN)

    return connect


def fail_to_connect(bench: Bench, make: Callable[[], None]) -> list[str]:
    """What controllers were taken away."""
    ran = Ran(bench)
    bench.brick.on_connect = finds_nothing(make)
    with pytest.raises(AgentError) as refused:
        bench.connectors(execute=ran).connect(attachment(**wire(bench, NVME)))
    assert refused.value.code == "lun-missing"
    return ran.gone


class TestAConnectThatFails:
    def test_takes_away_what_it_has_made(self, bench: Bench) -> None:
        """It shows another volume, which nobody here has asked for."""

        def make() -> None:
            bench.tree.nvme("nvme0n1", "259:1", uuid=OTHER, controllers={"nvme0": "live"})
            bench.tree.fabric_controller("nvme0", NQN, FIRST, {"nvme0c0n1": OTHER})
            bench.tree.fabric_controller("nvme1", NQN, SECOND)

        assert fail_to_connect(bench, make) == ["/dev/nvme0", "/dev/nvme1"]

    def test_leaves_what_was_there_before(self, bench: Bench) -> None:
        """A neighbour's, and with namespaces or without."""
        bench.tree.fabric_controller("nvme0", NQN, FIRST, {"nvme0c0n1": OTHER})
        bench.tree.fabric_controller("nvme1", NQN, SECOND)
        assert fail_to_connect(bench, lambda: None) == []

    def test_leaves_other_subsystems(self, bench: Bench) -> None:
        assert not fail_to_connect(
            bench, lambda: bench.tree.fabric_controller("nvme0", f"{NQN}0", FIRST)
        )

    def test_leaves_what_something_is_built_on(self, bench: Bench) -> None:
        def make() -> None:
            bench.tree.nvme("nvme0n1", "259:1", uuid=OTHER, controllers={"nvme0": "live"})
            bench.tree.fabric_controller("nvme0", NQN, FIRST, {"nvme0c0n1": OTHER})
            bench.tree.add("dm-9", "253:9", {"dm/uuid": "LVM-x"}, slaves=("nvme0n1",))

        assert fail_to_connect(bench, make) == []


class TestADisconnect:
    def gone(self, bench: Bench) -> list[str]:
        ran = Ran(bench)
        asked, device = connected(bench, NVME)
        bench.tree.remove("nvme0n1")
        bench.connectors(execute=ran).disconnect(asked, device)
        return ran.gone

    def test_takes_away_what_shows_nothing_any_more(self, bench: Bench) -> None:
        """The storage side took the namespace away first; os-brick then looks no further."""
        bench.tree.fabric_controller("nvme0", NQN, FIRST)
        bench.tree.fabric_controller("nvme1", NQN, SECOND)
        assert self.gone(bench) == ["/dev/nvme0", "/dev/nvme1"]

    def test_leaves_what_shows_a_neighbour(self, bench: Bench) -> None:
        bench.tree.fabric_controller("nvme0", NQN, FIRST, {"nvme0c0n2": OTHER})
        assert self.gone(bench) == []

    def test_leaves_what_goes_by_a_portal_that_was_not_given(self, bench: Bench) -> None:
        bench.tree.fabric_controller("nvme0", NQN, "192.0.2.99:4420")
        assert self.gone(bench) == []


class TestANamespaceIdThatWasGivenToAnotherVolume:
    """os-brick would disconnect the controller that shows it, under the other volume's guest."""

    def disconnect(self, bench: Bench, case: Case, there_now: str) -> Ran:
        ran = Ran(bench)
        asked, device = connected(bench, case)
        bench.tree.remove("nvme0n1")
        bench.tree.nvme("nvme0n1", "259:1", uuid=there_now, controllers={})
        bench.tree.fabric_controller("nvme0", NQN, FIRST, {"nvme0c0n1": there_now})
        bench.tree.fabric_controller("nvme1", NQN, FIRST)
        bench.brick.on_disconnect = lambda: bench.tree.remove("nvme0n1")
        bench.connectors(execute=ran).disconnect(asked, device)
        return ran

    @pytest.mark.parametrize("case", [BY_ITS_NUMBER, BY_NOTHING], ids=["nsid", "nothing"])
    def test_os_brick_is_not_asked(self, bench: Bench, case: Case) -> None:
        ran = self.disconnect(bench, case, OTHER)
        assert all(call[0] == "factory" for call in bench.brick.calls)
        assert (bench.tree.dev / "nvme0n1").exists()
        assert ran.gone == ["/dev/nvme1"], "what shows nothing is nobody's"

    @pytest.mark.parametrize("case", [BY_ITS_NUMBER, BY_NOTHING], ids=["nsid", "nothing"])
    def test_the_volumes_own_is_disconnected(self, bench: Bench, case: Case) -> None:
        self.disconnect(bench, case, UUID)
        assert bench.brick.of("disconnect_volume")[2]["path"] == str(bench.tree.dev / "nvme0n1")

    def test_one_that_is_given_to_nobody_is_os_bricks_affair(self, bench: Bench) -> None:
        asked, device = connected(bench, BY_ITS_NUMBER)
        bench.tree.remove("nvme0n1")
        bench.tree.fabric_controller("nvme0", NQN, FIRST, {"nvme0c0n2": OTHER})
        bench.connectors(execute=Ran(bench)).disconnect(asked, device)
        assert "path" not in bench.brick.of("disconnect_volume")[2]


class TestTheLastNamespaceGoesByItself:
    """The storage side takes it away after the last disconnect."""

    def left(self, bench: Bench, ran: Any) -> None:
        _, device = connected(bench, NVME)
        bench.tree.remove("nvme0n1")
        bench.connectors(execute=ran).leave_subsystem(device)

    def test_the_controllers_go_that_show_nothing(self, bench: Bench) -> None:
        ran = Ran(bench)
        bench.tree.fabric_controller("nvme0", NQN, FIRST)
        bench.tree.fabric_controller("nvme1", NQN, SECOND, {"nvme0c1n2": OTHER})
        bench.tree.fabric_controller("nvme2", NQN, "192.0.2.99:4420")
        bench.tree.fabric_controller("nvme3", f"{NQN}0", FIRST)
        self.left(bench, ran)
        assert ran.gone == ["/dev/nvme0"]

    def test_one_that_stays_is_told(self, bench: Bench) -> None:
        def refuses(*command: str, **how: Any) -> tuple[str, str]:
            raise putils.ProcessExecutionError(stderr="no such thing", exit_code=1)

        bench.tree.fabric_controller("nvme0", NQN, FIRST)
        with pytest.raises(ConnectFailed, match=f"{NQN}.*no such thing.*tried again"):
            self.left(bench, refuses)


def test_a_volume_is_found_without_connecting(bench: Bench) -> None:
    """So a connect of which nothing is known any more can be taken back."""
    asked = attachment(**wire(bench, NVME))
    assert bench.connectors().find(asked.connection) is None
    node = bench.tree.nvme("nvme0n2", "259:1", uuid=UUID, controllers={"nvme0": "live"})
    shows = {"nvme0c1n1": OTHER, "nvme0c1n2": UUID}
    bench.tree.fabric_controller("nvme1", NQN, FIRST, shows)
    found = bench.connectors().find(asked.connection)
    assert found is not None
    assert found.identity["uuid"] == UUID.replace("-", "")
    assert found.device_info == {"type": "block", "path": node}
