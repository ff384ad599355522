"""What an error of os-brick becomes: the code by which a caller decides, and words that help."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from os_brick import exception
from oslo_concurrency.processutils import ProcessExecutionError

from agent.errors import AgentError, Unavailable
from agent.host.brick_refusals import reason_of
from agent.host.brick_trail import Trail
from tests.samples import attachment
from tests.unit.host.test_brick_calls import (
    CASES,
    ISCSI,
    Bench,
    Case,
    connected,
    multipath,
    scsi,
    wire,
)
from tests.unit.host.test_brick_calls import bench as bench  # the fixture

Command = Callable[..., tuple[str, str]]

SECRET = "pass-1"


def failing(exit_code: int | None, stderr: str = "") -> Command:
    """A machine on which a login, mount or NVMe connect ends so; the rest works."""

    def execute(*command: str, **how: Any) -> tuple[str, str]:
        fails = {"--login", "mount", "connect"} & {*command} or command[0].startswith("grep ")
        if exit_code is None or fails:
            raise ProcessExecutionError("", stderr, exit_code, " ".join(command), "it did not work")
        return "", ""

    return execute


def working(*command: str, **how: Any) -> tuple[str, str]:
    return "", ""


def give_up(error: Exception, *commands: tuple[str, ...]) -> Callable[[Command], None]:
    """As os-brick: runs commands, swallows what they say, and raises its own error at the end."""

    def connect(execute: Command) -> None:
        for command in commands:
            try:
                execute(*command)
            except ProcessExecutionError:
                continue
        raise error

    return connect


LOGIN = (
    ("iscsiadm", "-m", "node", "--op", "update", "-n", "node.session.auth.password", "-v", SECRET),
    ("iscsiadm", "-m", "node", "-T", "iqn-1", "-p", "192.0.2.1:3260", "--login"),
)
MOUNT = ("mount", "-t", "nfs", "-o", "vers=4,minorversion=2", "192.0.2.40:/vols", "/mnt/1")
NOT_FOUND = exception.VolumeDeviceNotFound(device="")
NFS = next(case for case in CASES if case.name == "nfs")
NVME = next(case for case in CASES if case.name == "nvmeof")
FC = next(case for case in CASES if case.name == "fibre-channel")


def chained() -> Exception:
    chain = exception.ExceptionChainer()
    chain.add_exception(RuntimeError, RuntimeError("of a class that nobody shall read"), None)
    return chain


@pytest.mark.parametrize(
    ("case", "execute", "connect", "code", "says"),
    [
        pytest.param(
            ISCSI,
            failing(24, "iscsiadm: initiator reported error (24 - login failed: authorization)"),
            give_up(NOT_FOUND, *LOGIN),
            "auth-failed",
            "refused this host: .*24.*authorization",
            id="wrong CHAP password",
        ),
        pytest.param(
            ISCSI,
            failing(8, "iscsiadm: initiator reported error (8 - connection timed out)"),
            give_up(NOT_FOUND, *LOGIN),
            "connect-failed",
            "timed out",
            id="portal is down",
        ),
        pytest.param(
            ISCSI,
            working,
            give_up(NOT_FOUND, *LOGIN),
            "lun-missing",
            "mapped to this host",
            id="LUN is not mapped",
        ),
        pytest.param(
            ISCSI,
            failing(None),
            give_up(NOT_FOUND, *LOGIN),
            "connect-failed",
            "install open-iscsi",
            id="tool is missing",
        ),
        pytest.param(
            FC,
            working,
            give_up(exception.NoFibreChannelVolumeDeviceFound()),
            "lun-missing",
            "mapped to this host",
            id="fabric shows no LUN",
        ),
        pytest.param(
            FC,
            working,
            give_up(exception.NoFibreChannelHostsFound()),
            "connect-failed",
            "no working Fibre Channel HBA",
            id="HBA is down",
        ),
        pytest.param(
            NVME,
            failing(1, "Failed to write to /dev/nvme-fabrics: Connection refused"),
            give_up(NOT_FOUND, ("nvme", "connect", "-a", "192.0.2.20")),
            "connect-failed",
            "Connection refused",
            id="NVMe target is down",
        ),
        pytest.param(
            NVME,
            working,
            give_up(NOT_FOUND, ("nvme", "ns-rescan", "/dev/nvme0")),
            "lun-missing",
            "no such LUN",
            id="no namespace",
        ),
        pytest.param(
            ISCSI,
            working,
            give_up(NOT_FOUND, ("tee", "-a", "/sys/class/scsi_host/host3/scan")),
            "lun-missing",
            "mapped to this host",
            id="LUN is not mapped, in a session that was there",
        ),
        pytest.param(
            FC,
            failing(1, ""),
            give_up(
                exception.NoFibreChannelVolumeDeviceFound(),
                ('grep -Gil "5006016041e0c8d1" /sys/class/fc_transport/target1:*/port_name',),
            ),
            "lun-missing",
            "no such LUN",
            id="an HBA on one fabric of two",
        ),
        pytest.param(
            ISCSI,
            failing(
                24,
                "iscsiadm: Could not login to [iface: default, target: iqn-1].\n"
                "iscsiadm: initiator reported error (24 - login failed: authorization)\n"
                "iscsiadm: Could not log into all portals",
            ),
            give_up(NOT_FOUND, *LOGIN),
            "auth-failed",
            r"192.0.2.1:3260 ended with 24: .*reported error \(24",
            id="the reason is not what iscsiadm says last",
        ),
        pytest.param(
            NFS,
            failing(124),
            give_up(exception.BrickException("NFS mount failed"), MOUNT),
            "connect-failed",
            "mount of 192.0.2.40:/vols .*no answer",
            id="server is silent",
        ),
        pytest.param(
            NFS,
            failing(32, "mount.nfs: Connection refused"),
            give_up(exception.BrickException("NFS mount failed"), MOUNT),
            "connect-failed",
            "Connection refused",
            id="server is down",
        ),
        pytest.param(
            FC,
            working,
            give_up(exception.BlockDeviceReadOnly(device="/dev/dm-3")),
            "read-only-device",
            "access_mode ro",
            id="device cannot be written",
        ),
        pytest.param(
            NFS,
            failing(32, "mount.nfs: access denied by server while mounting 192.0.2.40:/vols"),
            give_up(exception.BrickException("NFS mount failed"), ("mount", "-t", "nfs")),
            "auth-failed",
            "access denied",
            id="export is not for this host",
        ),
        pytest.param(
            ISCSI,
            working,
            give_up(exception.BrickException("the host doesn't support multipathing.")),
            "connect-failed",
            "multipathing",
            id="multipath is enforced",
        ),
        pytest.param(
            ISCSI, working, give_up(KeyError("target_lun")), "invalid", "target_lun", id="a key"
        ),
        pytest.param(
            ISCSI, working, give_up(chained()), "connect-failed", "see the log", id="a chain"
        ),
        pytest.param(
            ISCSI, working, give_up(OSError(5, "I/O error")), "connect-failed", "I/O", id="I/O"
        ),
    ],
)
def test_what_a_failed_connect_says(
    bench: Bench,
    case: Case,
    execute: Command,
    connect: Callable[[Command], None],
    code: str,
    says: str,
) -> None:
    bench.brick.on_connect = connect
    asked = attachment(**wire(bench, case))
    with pytest.raises(AgentError, match=says) as refused:
        bench.connectors(execute=execute).connect(asked)
    assert refused.value.code == code
    for unspeakable in (SECRET, "Traceback", "Error(", "RuntimeError", "exception"):
        assert unspeakable not in refused.value.detail


def test_a_command_that_hangs_is_unknown_not_failed(bench: Bench) -> None:
    hung = exception.ExecutionTimeout(stdout="", stderr="Time out on proc 7", cmd="multipath -f")
    bench.brick.on_connect = give_up(hung)
    asked = attachment(**wire(bench, ISCSI))
    with pytest.raises(Unavailable, match="Time out"):
        bench.connectors().connect(asked)


class TestTrail:
    """How long os-brick may try: docs/connections.rst tells the bounds."""

    def trail(
        self, *, fails: bool, systemd_runs: Path = Path("/nowhere")
    ) -> tuple[Trail, list[tuple[str, ...]]]:
        ran: list[tuple[str, ...]] = []

        def execute(*command: str, **how: Any) -> tuple[str, str]:
            ran.append(command)
            if fails and {"--login", "mount"} & {*command}:
                raise ProcessExecutionError("", "", 124 if "mount" in command else 8)
            return "", ""

        return Trail(execute, systemd_runs), ran

    @pytest.mark.parametrize("state", ["LOGGED_IN", "FAILED"])
    def test_a_scan_of_a_session_that_does_not_work_reaches_nobody(
        self, tmp_path: Path, state: str
    ) -> None:
        """The kernel leaves it out, and says nothing."""
        session = tmp_path / "class/scsi_host/host3/device/session7/iscsi_session/session7"
        session.mkdir(parents=True)
        (session / "state").write_text(f"{state}\n")
        trail = Trail(lambda *command, **how: ("", ""), sys=tmp_path)
        trail.execute("tee", "-a", "/sys/class/scsi_host/host3/scan", process_input="- - -")
        assert trail.reached is (state == "LOGGED_IN")
        says_so = "does not work (FAILED)" in reason_of(NOT_FOUND, trail)
        assert says_so is (state == "FAILED")

    def test_a_first_login_is_tried_for_half_a_minute(self) -> None:
        """iscsid's own limit is two minutes, which os-brick takes three times."""
        trail, ran = self.trail(fails=False)
        trail.execute(*LOGIN[1], run_as_root=True)
        record, login = ran
        assert login == LOGIN[1]
        assert record[:7] == LOGIN[1][:7]
        assert record[-3:] == ("node.session.initial_login_retry_max", "-v", "2")

    def test_what_was_given_up_is_not_tried_again(self) -> None:
        trail, ran = self.trail(fails=True)
        other_version = (*MOUNT[:4], "vers=3", *MOUNT[5:])
        for command in (LOGIN[1], LOGIN[1], MOUNT, other_version):
            with pytest.raises(ProcessExecutionError):
                trail.execute(*command)
        assert sum("--login" in command for command in ran) == 1
        assert sum("mount" in command for command in ran) == 1
        assert trail.closed_ways == {"192.0.2.1:3260", "192.0.2.40:/vols"}

    def test_a_session_that_never_gets_its_name_is_not_waited_for(self) -> None:
        """os-brick logs in until iscsiadm lists it, and iscsiadm says each time that it is in."""
        trail, ran = self.trail(fails=False)
        for _ in range(5):
            trail.execute(*LOGIN[1])
        with pytest.raises(ProcessExecutionError, match="no session has the name"):
            trail.execute(*LOGIN[1])
        assert sum("--login" in command for command in ran) == 5
        assert not trail.reached
        assert "after 5 logins" in str(trail.reason)

    def test_another_portal_has_let_us_in_all_the_same(self) -> None:
        trail, _ = self.trail(fails=False)
        trail.execute(*LOGIN[1][:-2], "192.0.2.2:3260", "--login")
        for _ in range(5):
            trail.execute(*LOGIN[1])
        assert trail.reached

    def test_logins_that_were_found_do_not_count(self) -> None:
        """os-brick tries three times to find a missing LUN, by each portal of the request."""
        trail, _ = self.trail(fails=False)
        for _ in range(9):
            trail.execute(*LOGIN[1])
            trail.execute(*LOGIN[1][:-1], "--logout")

    def test_a_mount_and_what_it_starts_end_in_time(self) -> None:
        trail, ran = self.trail(fails=False)
        trail.execute(*MOUNT)
        assert ran == [("timeout", "--kill-after=5", "60", *MOUNT)]

    @pytest.mark.parametrize(
        "mount",
        [
            ("mount", "-t", "quobyte", "192.0.2.40:/vols", "/mnt/1"),
            ("pstorage-mount", "-c", "vz1", "/mnt/1"),
        ],
        ids=lambda mount: mount[0],
    )
    def test_what_serves_a_mount_outlives_us(self, mount: tuple[str, ...], tmp_path: Path) -> None:
        """Stopped, killed or restarted: systemd ends all that is in our control group."""
        trail, ran = self.trail(fails=False, systemd_runs=tmp_path)
        trail.execute(*mount)
        end = ran[0].index("--")
        assert ran[0][:5] == ("timeout", "--kill-after=5", "75", "systemd-run", "--scope")
        assert ran[0][end + 1 :] == ("timeout", "--kill-after=5", "60", *mount)
        trail.execute(*MOUNT)
        assert ran[1][0] == "timeout", "NFS is the kernel's"

    def test_where_systemd_does_not_run_there_is_no_scope(self) -> None:
        trail, ran = self.trail(fails=False)
        trail.execute("pstorage-mount", "-c", "vz1", "/mnt/1")
        assert ran == [("timeout", "--kill-after=5", "60", "pstorage-mount", "-c", "vz1", "/mnt/1")]

    def test_another_portal_is_tried(self) -> None:
        trail, ran = self.trail(fails=True)
        for portal in ("192.0.2.1:3260", "192.0.2.2:3260"):
            command = tuple(portal if part == "192.0.2.1:3260" else part for part in LOGIN[1])
            with pytest.raises(ProcessExecutionError):
                trail.execute(*command)
        assert sum("--login" in command for command in ran) == 2


@pytest.mark.parametrize(
    ("case", "says"),
    [("iscsi-multipath", "multipathd does not run"), ("nvmeof", "native NVMe multipath is off")],
)
def test_multipath_is_enforced_and_there_is_none(bench: Bench, case: str, says: str) -> None:
    bench.brick.on_connect = give_up(exception.BrickException("Multipathing is enforced"))
    bench.brick.has_multipath = False
    volume = attachment(**wire(bench, next(known for known in CASES if known.name == case)))
    with pytest.raises(AgentError, match=f"{says}.*enforced.*nothing was connected") as refused:
        bench.connectors(use_multipath=True).connect(volume)
    assert refused.value.code == "connect-failed"


def test_what_a_tool_says_of_a_secret_is_not_told(bench: Bench) -> None:
    bench.brick.on_connect = give_up(NOT_FOUND, *LOGIN)
    machine = failing(1, f"node.session.auth.password = {SECRET}")
    with pytest.raises(AgentError) as refused:
        bench.connectors(execute=machine).connect(attachment(**wire(bench, ISCSI)))
    assert SECRET not in refused.value.detail


def test_a_disconnect_that_failed_says_that_the_device_stays(bench: Bench) -> None:
    asked, device = connected(bench)

    def fail() -> None:
        raise exception.VolumePathNotRemoved(volume_path=["/dev/sdb"])

    bench.brick.on_disconnect = fail
    with pytest.raises(AgentError, match=r"sdb.*stays.*tried again") as refused:
        bench.connectors().disconnect(asked, device)
    assert refused.value.code == "connect-failed"


class TestDevice:
    def test_an_answer_without_a_device(self, bench: Bench) -> None:
        bench.brick.info = {"type": "block", "path": str(bench.tree.dev / "sdz")}
        with pytest.raises(AgentError, match="no block device is there") as refused:
            bench.connectors().connect(attachment(**wire(bench, ISCSI)))
        assert refused.value.code == "connect-failed"

    def test_one_without_a_lasting_name_is_not_used_by_its_kernel_name(self, bench: Bench) -> None:
        path = bench.tree.scsi("sdb", "8:16", "60014051f2d74ac5b7e49d1a2f3c8e90")
        bench.brick.info = {"type": "block", "path": path}
        with pytest.raises(AgentError, match="no name in /dev/disk/by-id"):
            bench.connectors().connect(attachment(**wire(bench, ISCSI)))

    def test_udev_is_waited_for(self, bench: Bench) -> None:
        path = bench.tree.scsi("sdb", "8:16", "60014051f2d74ac5b7e49d1a2f3c8e90")
        bench.brick.info = {"type": "block", "path": path}

        def settle() -> None:
            bench.tree.link("disk/by-id/wwn-0x60014051f2d74ac5b7e49d1a2f3c8e90", "sdb")

        device = bench.connectors(settle=settle).connect(attachment(**wire(bench, ISCSI)))
        assert device.path.endswith("by-id/wwn-0x60014051f2d74ac5b7e49d1a2f3c8e90")

    def test_all_paths_where_all_are_asked_for(self, bench: Bench) -> None:
        multipath(bench)
        case = next(case for case in CASES if case.name == "iscsi-multipath")
        asked = attachment(**wire(bench, case, require_all_paths=True))
        connectors = bench.connectors(use_multipath=True)
        assert connectors.connect(asked).paths_found == 2
        (bench.tree.sys / "class/block/sdc/device/state").write_text("offline")
        with pytest.raises(AgentError, match="1 of 2 paths") as refused:
            connectors.connect(asked)
        assert refused.value.code == "not-all-paths"

    def test_one_path_is_not_all_of_two(self, bench: Bench) -> None:
        scsi(bench)
        case = next(case for case in CASES if case.name == "iscsi-multipath")
        asked = attachment(**wire(bench, case, require_all_paths=True))
        with pytest.raises(AgentError, match="1 of 2 paths"):
            bench.connectors(use_multipath=False).connect(asked)


class TestCheck:
    """Refused before anything is touched."""

    def refusal(self, bench: Bench, case: Case, **options: Any) -> AgentError:
        asked = attachment(**wire(bench, case))
        with pytest.raises(AgentError) as refused:
            bench.connectors(**options).check(asked.connection)
        assert "nothing was touched" in refused.value.detail
        assert not [call for call in bench.brick.calls if call[0] == "connect_volume"]
        return refused.value

    @pytest.mark.parametrize(
        ("name", "options", "missing", "package"),
        [
            ("iscsi", {}, "iscsiadm", "open-iscsi"),
            ("iser", {}, "iscsiadm", "open-iscsi"),
            ("iscsi-multipath", {"use_multipath": True}, "multipathd", "multipath-tools"),
            ("fibre-channel", {"use_multipath": True}, "multipathd", "multipath-tools"),
            ("nvmeof", {}, "nvme", "nvme-cli"),
            ("nfs", {}, "mount.nfs", "nfs-common"),
        ],
    )
    def test_a_tool_that_is_missing_is_named_with_its_package(
        self, bench: Bench, name: str, options: dict[str, Any], missing: str, package: str
    ) -> None:
        case = next(case for case in CASES if case.name == name)

        def which(tool: str) -> str | None:
            return None if tool == missing else tool

        refused = self.refusal(bench, case, which=which, **options)
        assert refused.code == "unsupported"
        assert refused.detail.endswith(
            f"it has no {missing}; nothing was touched: install {package}"
        )

    def test_no_fibre_channel(self, bench: Bench) -> None:
        (bench.tree.sys / "class" / "fc_host" / "host1").rmdir()
        assert "no Fibre Channel HBA" in self.refusal(bench, FC).detail

    def test_a_vendor_whose_software_is_missing(self, bench: Bench) -> None:
        def factory(protocol: str, **options: Any) -> None:
            raise exception.BrickException("StorPool libraries not found")

        case = next(case for case in CASES if case.name == "storpool")
        refused = self.refusal(bench, case, factory=factory)
        assert refused.code == "unsupported"
        assert "StorPool libraries not found" in refused.detail
