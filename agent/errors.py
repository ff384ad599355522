"""Every failure a caller can meet: its code on the wire, and whether a retry can help.

One class per decision that the caller can make; what happened, what state things are in and
what to do next goes in the message. Codes are part of the wire (docs/wire.rst) and never change.
"""

from typing import ClassVar


class AgentError(Exception):
    """A failure with a code.

    ``retriable`` says whether the same request, sent again later and unchanged, may succeed.
    The message is shown to users: no secrets, no class names.
    """

    code: ClassVar[str] = "internal"
    retriable: bool = False

    @property
    def detail(self) -> str:
        return str(self)


class Internal(AgentError):
    """A defect of the agent itself: the log has the traceback under the operation's id."""

    code = "internal"


class Invalid(AgentError):
    """The request is wrong; nothing was touched."""

    code = "invalid"


class Unsupported(AgentError):
    """Valid, but not on this host: an ability is missing or switched off by the operator."""

    code = "unsupported"


class Busy(AgentError):
    """Something that must end first is open on the attachment, volume or instance."""

    code = "busy"
    retriable = True


class QueueFull(AgentError):
    """More operations are open than the operator allows."""

    code = "queue-full"
    retriable = True


class Stale(AgentError):
    """A newer generation of this attachment was seen here."""

    code = "stale"


class Expired(AgentError):
    """``not_after`` has passed, or the record of this request has been dropped."""

    code = "expired"


class WrongHost(AgentError):
    """The message was not meant for this host."""

    code = "wrong-host"


class RequestIdReused(AgentError):
    """The same ``request_id`` came with another payload."""

    code = "request-id-reused"


class UnknownAttachment(AgentError):
    """This agent never saw the attachment, and the request does not carry it whole."""

    code = "unknown-attachment"


class UnknownInstance(AgentError):
    """libvirt on this host has no domain with this uuid."""

    code = "unknown-instance"


class UnknownOperation(AgentError):
    """No operation with this id is in the journal."""

    code = "unknown-operation"


class NoFreeAddress(AgentError):
    """The guest has no PCIe port or SCSI unit left, or the wanted target name is taken."""

    code = "no-free-address"


class SharingConflict(AgentError):
    """Somebody else on this host uses the volume in a way that excludes this one."""

    code = "sharing-conflict"

    def __init__(self, detail: str, *, retriable: bool = True) -> None:
        """Not ``retriable``: it is the request that must say more."""
        super().__init__(detail)
        self.retriable = retriable


class ConnectFailed(AgentError):
    """The storage did not give this host the device."""

    code = "connect-failed"
    retriable = True


class AuthFailed(AgentError):
    """The storage refused our credentials, or the passphrase opens no LUKS key slot."""

    code = "auth-failed"


class LunMissing(AgentError):
    """The target is there, the LUN, namespace or file is not."""

    code = "lun-missing"
    retriable = True


class ReadOnlyDevice(AgentError):
    """The device on this host cannot be written, and the attachment wants to."""

    code = "read-only-device"


class NotAllPaths(AgentError):
    """Some paths of a multipath device are missing, and the request wants all."""

    code = "not-all-paths"
    retriable = True


class WrongDevice(AgentError):
    """The device (or disk) that is there is not the one that was asked for."""

    code = "wrong-device"


class NotEncrypted(AgentError):
    """The volume does not begin with the LUKS header that the request asks for."""

    code = "not-encrypted"


class PassphraseLost(AgentError):
    """It came by value, was never written, and the agent has been restarted since."""

    code = "passphrase-lost"
    retriable = True


class PlugRefused(AgentError):
    """libvirt or QEMU refused the disk."""

    code = "plug-refused"


class CopyFailed(AgentError):
    """QEMU did not copy a disk to its new volume; the guest is where it was."""

    code = "copy-failed"


class MigrationFailed(AgentError):
    """libvirt or QEMU refused to move the instance, or gave up."""

    code = "migration-failed"

    def __init__(self, detail: str, *, retriable: bool = False) -> None:
        """``retriable``: nothing has begun. Once it has, the destination gives back what it had
        prepared, and another migration is to be prepared."""
        super().__init__(detail)
        self.retriable = retriable


class TooLate(AgentError):
    """What was asked can no longer be undone."""

    code = "too-late"


class Deadline(AgentError):
    """``deadline_seconds`` passed before the operation was committed."""

    code = "deadline"
    retriable = True


class Cancelled(AgentError):
    """The caller asked for the operation to be undone."""

    code = "cancelled"


class Unavailable(AgentError):
    """A part of the host cannot tell now (libvirt, storage tools): unknown, so wait. ``reason``
    says it without naming the part.

    Never a reason to undo. Reaches the wire as ``waiting_for`` of an open operation, and where a
    query or the accepting of a command needs the part at once.
    """

    code = "internal"
    retriable = True

    def __init__(self, part: str, reason: str) -> None:
        super().__init__(f"{part}: {reason}")
        self.part = part
        self.reason = reason


ERRORS: dict[str, type[AgentError]] = {
    cls.code: cls for cls in AgentError.__subclasses__() if cls is not Unavailable
}
