"""What libvirt 9.0.0 says, and what callers are told. Codes and texts were read off a real one."""

import libvirt
import pytest

from agent.errors import (
    AgentError,
    AuthFailed,
    Busy,
    ConnectFailed,
    NoFreeAddress,
    PlugRefused,
    Unavailable,
    UnknownInstance,
    Unsupported,
)
from agent.host.libvirt_refusals import (
    is_connection_lost,
    is_no_such_device,
    is_no_such_half,
    is_not_yet,
    refusal,
)

DOMAIN, QEMU, STORAGE, RPC, REMOTE = (
    libvirt.VIR_FROM_DOMAIN,
    libvirt.VIR_FROM_QEMU,
    libvirt.VIR_FROM_STORAGE,
    libvirt.VIR_FROM_RPC,
    libvirt.VIR_FROM_REMOTE,
)

REFUSALS: list[tuple[int | None, int | None, str, type[AgentError]]] = [
    (  # libvirt 11.3
        67,
        QEMU,
        "unsupported configuration: shared access for disk 'vda' requires use of supported storage "
        "format",
        Unsupported,
    ),
    (42, QEMU, "Domain not found: no domain with matching uuid '8e…' (g-1)", UnknownInstance),
    (1, DOMAIN, "internal error: No more available PCI slots", NoFreeAddress),
    (
        27,
        DOMAIN,
        "XML error: target 'sda' duplicated for disk sources '/a' and '/b'",
        NoFreeAddress,
    ),
    (55, QEMU, "Requested operation is not valid: target sda already exists", NoFreeAddress),
    (9, QEMU, "operation failed: target scsi:1 already exists", NoFreeAddress),
    (
        55,
        QEMU,
        "Requested operation is not valid: Domain already contains a disk with that address",
        NoFreeAddress,
    ),
    (
        55,
        QEMU,
        "Requested operation is not valid: controller index='1' already exists",
        NoFreeAddress,
    ),
    (27, DOMAIN, "XML error: Attempted double use of PCI Address 0000:01:00.0", NoFreeAddress),
    (
        1,
        QEMU,
        "internal error: unable to execute QEMU command 'device_add': "
        'Failed to get "write" lock\nIs another process using the image [/dev/loop1]?',
        PlugRefused,
    ),
    (
        1,
        QEMU,
        "internal error: unable to execute QEMU command 'blockdev-add': iSCSI: Failed to connect "
        "to LUN : Failed to log in to target. Status: Authentication failure(513)",
        AuthFailed,
    ),
    (
        1,
        QEMU,
        "internal error: unable to execute QEMU command 'blockdev-add': iSCSI: Failed to connect "
        "to LUN : iscsi_service failed with : iscsi_service_reconnect_if_loggedin",
        ConnectFailed,
    ),
    (67, DOMAIN, "unsupported configuration: non unique alias detected: ua-a", PlugRefused),
    (67, QEMU, "unsupported configuration: io='native' needs either no disk cache", PlugRefused),
    (38, STORAGE, "Cannot access storage file '/dev/x': No such file or directory", PlugRefused),
    (27, DOMAIN, "XML error: Invalid PCI address 0000:63:00.0. Only PCI buses up", PlugRefused),
    (83, QEMU, "block copy still active: disk 'vda' is in an active block job", Busy),
    (3, DOMAIN, "this function is not supported by the connection driver", Unsupported),
    (
        68,
        0,
        "Timed out during operation: cannot acquire state change lock "
        "(held by monitor=remoteDispatchDomainAttachDeviceFlags)",
        Unavailable,
    ),
    (55, DOMAIN, "Requested operation is not valid: domain is not running", Unavailable),
    (
        55,
        DOMAIN,
        "Requested operation is not valid: transient domains do not have any persistent config",
        Unavailable,
    ),
    (1, RPC, "internal error: client socket is closed", Unavailable),
    (38, RPC, "End of file while reading data: Input/output error", Unavailable),
    (38, REMOTE, "Cannot write data: Broken pipe", Unavailable),
    (6, DOMAIN, "invalid connection pointer in virDomainGetXMLDesc", Unavailable),
    (None, None, "virDomainAttachDeviceFlags() failed", Unavailable),
]


@pytest.mark.parametrize(("code", "domain", "message", "expected"), REFUSALS)
def test_a_caller_can_decide_by_the_class(
    code: int | None, domain: int | None, message: str, expected: type[AgentError]
) -> None:
    assert type(refusal(code, domain, message, doing="plugging the disk ua-a")) is expected


@pytest.mark.parametrize(("code", "domain", "message", "expected"), REFUSALS)
def test_people_are_told_what_was_tried_and_what_libvirt_said(
    code: int | None, domain: int | None, message: str, expected: type[AgentError]
) -> None:
    detail = refusal(code, domain, message, doing="plugging the disk ua-a").detail
    assert "\n" not in detail
    if expected is not Unavailable:
        assert detail.startswith("plugging the disk ua-a: ")
    if expected is not UnknownInstance:
        assert message.split("\n")[0] in detail


def test_what_the_daemon_says_of_itself_is_no_lost_connection() -> None:
    """An internal error of QEMU's has the same code as a socket that was closed."""
    assert is_connection_lost(libvirt.VIR_ERR_INTERNAL_ERROR, RPC)
    assert not is_connection_lost(libvirt.VIR_ERR_INTERNAL_ERROR, QEMU)
    assert not is_connection_lost(libvirt.VIR_ERR_SYSTEM_ERROR, STORAGE)
    assert not is_connection_lost(libvirt.VIR_ERR_RPC, RPC)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (1, "internal error: no device found with alias ua-a"),
        (99, "device not found: disk sdx not found"),
        (99, "device not found: no target device sdx"),
        (9, "operation failed: disk vdb not found"),
    ],
)
def test_a_disk_that_is_gone_is_known_as_such(code: int, message: str) -> None:
    assert is_no_such_device(code, message)
    assert not is_no_such_half(code, message)
    assert not is_not_yet(message)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (1, "internal error: unable to execute QEMU command 'device_del': Bus 'pci.0' not hotplug"),
        (42, "Domain not found: no domain with matching uuid"),
        (38, "Cannot access storage file '/dev/x': No such file or directory"),
    ],
)
def test_other_failures_do_not_pass_for_a_disk_that_is_gone(code: int, message: str) -> None:
    assert not is_no_such_device(code, message)


def test_a_guest_that_was_asked_or_is_busy_is_asked_again_later() -> None:
    assert is_not_yet(
        "internal error: unable to execute QEMU command 'device_del': "
        "Device virtio-disk1 is already in the process of unplug"
    )
    assert is_not_yet(
        "internal error: unable to execute QEMU command 'device_del': "
        "Hot-unplug failed: guest is busy (power indicator blinking)"
    )
    assert not is_not_yet("internal error: unable to execute QEMU command 'device_del': no such id")
