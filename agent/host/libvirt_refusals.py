"""What libvirt's errors mean to a caller: pure functions of code, domain and text.

Codes are enum virErrorNumber, domains enum virErrorDomain (libvirt/virterror.h). What QEMU refuses
comes as VIR_ERR_INTERNAL_ERROR or VIR_ERR_OPERATION_FAILED: there only the text tells. The texts
were read off libvirt 9.0.0 with QEMU 7.2; a text that another version words differently becomes
PlugRefused, which is never wrong, only less helpful.
"""

import re
from typing import Final

import libvirt

from agent.errors import (
    AgentError,
    AuthFailed,
    Busy,
    ConnectFailed,
    Invalid,
    MigrationFailed,
    NoFreeAddress,
    NotEncrypted,
    PlugRefused,
    Unavailable,
    UnknownInstance,
    Unsupported,
)

_TRANSPORT: Final = frozenset((libvirt.VIR_FROM_RPC, libvirt.VIR_FROM_REMOTE))
"""Errors made on our side of the socket."""

_BROKEN: Final = frozenset(
    (
        libvirt.VIR_ERR_INTERNAL_ERROR,
        libvirt.VIR_ERR_SYSTEM_ERROR,
        libvirt.VIR_ERR_NO_CONNECT,
        libvirt.VIR_ERR_INVALID_CONN,
    )
)

_NO_ADDRESS: Final = re.compile(
    r"no more available pci (slots|addresses)"
    r"|target '?[\w:]+'? (already exists|duplicated)"
    r"|controller index='\d+' already exists"
    r"|already contains a disk with that address"
    r"|double use of (pci|scsi|drive)? ?address"
    r"|(address|slot|unit|lun)\b.* (already|in use)",
    re.IGNORECASE,
)

_NOT_SO: Final = re.compile(r"domain is not running|do not have any persistent config")
"""A half of the domain that is not there."""

_NO_DEVICE: Final = re.compile(r"no device found with alias|no target device|disk \S+ not found")
"""Before VIR_ERR_DEVICE_MISSING (libvirt 4.1), and by alias still in 9.0."""

_NOT_YET: Final = re.compile(r"already in the process of unplug|guest is busy", re.IGNORECASE)
"""QEMU was asked before, or the guest still takes in the device (its indicator blinks)."""

_LOCKED: Final = re.compile(r'Failed to get (shared )?"\w+" lock')

_WRONG_PASSPHRASE: Final = re.compile(r"Invalid password, cannot unlock any keyslot")
_NOT_LUKS: Final = re.compile(r"not in LUKS format|LUKS version \d+ is not supported")

_NOT_SHARED: Final = re.compile(r"shared access for disk \S+ requires use of supported storage")
"""libvirt 11.3 of a disk that it decrypts, as ever of one with a format; 9.0 lets it be shared."""

_NO_LOGIN: Final = re.compile(r"iSCSI: .*(Authentication|Authorization) failure")
_NO_TARGET: Final = re.compile(r"iSCSI: ")
"""What QEMU's own initiator met: every message of it begins so (block/iscsi.c)."""

_NO_JOB: Final = re.compile(r"no job is active|only be started while outgoing migration")

_UNREACHABLE: Final = re.compile(r"unable to (connect|resolve)|cannot recv data|keepalive timeout")
"""The other libvirtd, where the call is one to move a guest there."""

_LINK_BROKEN: Final = re.compile(r"client socket is closed|end of file|broken pipe", re.IGNORECASE)

_OCCUPIED: Final = re.compile(
    r"another migration job|active block job|has (an )?active block|state change lock"
)

_GOES_ON: Final = re.compile(r"migration is still running")

_OTHERS_FIRST: Final = frozenset(
    (libvirt.VIR_ERR_BLOCK_COPY_ACTIVE, libvirt.VIR_ERR_OPERATION_TIMEOUT)
)

_NO_POST_COPY: Final = re.compile(r"started with VIR_MIGRATE_POSTCOPY flag")

_SAME_HOST: Final = re.compile(r"migrate guest to the same host")

_NO_CREDENTIALS: Final = re.compile(r"Unable to access credentials|TLS|certificate")

_CANNOT: Final = frozenset(
    (
        libvirt.VIR_ERR_NO_SUPPORT,
        libvirt.VIR_ERR_CONFIG_UNSUPPORTED,
        libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED,
        libvirt.VIR_ERR_OPERATION_UNSUPPORTED,
    )
)


def is_connection_lost(code: int | None, domain: int | None) -> bool:
    """The call broke together with its connection: nothing is known of its effect."""
    return bool(code == libvirt.VIR_ERR_INVALID_CONN) or (domain in _TRANSPORT and code in _BROKEN)


def is_no_such_domain(code: int | None) -> bool:
    return bool(code == libvirt.VIR_ERR_NO_DOMAIN)


def is_no_such_half(code: int | None, message: str) -> bool:
    """The domain does not run, or (transient) has no configuration."""
    return bool(code == libvirt.VIR_ERR_OPERATION_INVALID) and _NOT_SO.search(message) is not None


def is_no_such_device(code: int | None, message: str) -> bool:
    """What was to be taken out is not there."""
    return bool(code == libvirt.VIR_ERR_DEVICE_MISSING) or _NO_DEVICE.search(message) is not None


def is_not_yet(message: str) -> bool:
    """A request to let go that is under way, or that QEMU will take a little later."""
    return _NOT_YET.search(message) is not None


def is_on_its_way_here(code: int | None, message: str) -> bool:
    """Asked for a domain's job: it is one that another libvirtd sends to this one."""
    return bool(code == libvirt.VIR_ERR_OPERATION_UNSUPPORTED) and "source host" in message


def is_no_such_job(code: int | None, message: str) -> bool:
    """What was to be changed about a migration: there is none any more."""
    return bool(code == libvirt.VIR_ERR_OPERATION_INVALID) and _NO_JOB.search(message) is not None


def unknown(message: str) -> Unavailable:
    """A question that libvirt did not answer, whatever the reason."""
    return Unavailable("libvirt", _one_line(message))


def refusal(code: int | None, domain: int | None, message: str, *, doing: str) -> AgentError:
    """The error that a caller can act on; ``doing`` says what was tried, as a noun.

    ``code`` None: the binding knows that something failed, and not what."""
    text = _one_line(message)
    if code is None or is_connection_lost(code, domain):
        return unknown(text)
    if code == libvirt.VIR_ERR_OPERATION_TIMEOUT:
        return Unavailable("libvirt", f"another call occupies the domain ({text})")
    if is_no_such_half(code, message):
        return Unavailable("libvirt", f"the domain has just stopped or started ({text})")
    if is_no_such_domain(code):
        return UnknownInstance(
            f"{doing}: libvirt on this host has no such domain (any more): send the request to "
            "the host where the instance is"
        )
    if code == libvirt.VIR_ERR_BLOCK_COPY_ACTIVE:
        return Busy(f"{doing}: a block job is active on the disk ({text}); try again after it")
    if code == libvirt.VIR_ERR_NO_SUPPORT:
        return Unsupported(f"{doing}: this libvirt cannot do it ({text})")
    if code == libvirt.VIR_ERR_NO_SECRET:
        # Made just before: libvirtd has been restarted since, and whoever comes next makes it anew.
        return Unavailable("libvirt", f"a secret of the volume has gone ({text})")
    if _WRONG_PASSPHRASE.search(message):
        return AuthFailed(
            f"{doing}: the passphrase opens no key slot of the volume's LUKS header; send the "
            "right one (a newline at the end of secret_file is part of it)"
        )
    if _NOT_LUKS.search(message):
        return NotEncrypted(f"{doing}: the volume is not encrypted as asked ({text})")
    if _NOT_SHARED.search(message):
        return Unsupported(
            f"{doing}: libvirt on this host lets no disk be shared that it decrypts or that has a "
            f"format ({text}): attach it with multiattach false"
        )
    if _NO_LOGIN.search(message):
        return AuthFailed(
            f"{doing}: the target refused the guest's own initiator ({text}): give it the right "
            "credentials, or map the volume to what get_connector(instance_id) says"
        )
    if _NO_TARGET.search(message):
        return ConnectFailed(f"{doing}: QEMU did not reach the volume ({text})")
    if _NO_ADDRESS.search(message):
        return NoFreeAddress(
            f"{doing}: libvirt found the place taken or none free ({text}); leave out "
            "disk.target_dev, detach a disk, or use disk.bus scsi"
        )
    if _LOCKED.search(message):
        return PlugRefused(
            f"{doing}: QEMU could not lock the volume ({text}): another process on this host has "
            "it open exclusively; find it, then attach again"
        )
    return PlugRefused(f"{doing}: libvirt refused ({text}); its log on this host says more")


def migration_refusal(code: int | None, message: str) -> AgentError:
    """Why libvirt did not move a guest, or gave up; says nothing of where the guest is.

    Errors of the other libvirtd, and of the way to it, come as if they were of our own socket: the
    domain of an error tells nothing here."""
    text = _one_line(message)
    if code is None:
        return unknown(text)
    if code == libvirt.VIR_ERR_OPERATION_ABORTED:
        return MigrationFailed(f"the migration was given up as asked ({text})")
    if code == libvirt.VIR_ERR_MIGRATE_UNSAFE:
        return Unsupported(
            f"libvirt does not move a disk like that ({text}): it has to have cache none and be on "
            "storage that the destination has as well"
        )
    if is_no_such_domain(code):
        return MigrationFailed(f"libvirt here or at the destination has lost the domain ({text})")
    if _NO_POST_COPY.search(message):
        return Invalid("post-copy was not allowed when the migration began (options.post_copy)")
    if _SAME_HOST.search(message):
        return Invalid(f"the destination's libvirt_uri leads back to this host ({text})")
    if _GOES_ON.search(message):
        return Busy(f"the QEMUs go on by themselves ({text})")
    if _OCCUPIED.search(message) or code in _OTHERS_FIRST:
        return Busy(f"the domain is occupied ({text}); try again after that")
    if _UNREACHABLE.search(message):
        return MigrationFailed(
            f"libvirt here does not reach the one of the destination ({text}): see that "
            "destination.libvirt_uri and migrate_uri are right, that libvirtd listens there, and "
            "that no firewall is between"
        )
    if _LINK_BROKEN.search(message):
        return MigrationFailed(
            f"the connection to the destination's libvirt broke ({text}): see whether it runs, and "
            "the network between"
        )
    if _NO_CREDENTIALS.search(message):
        return Unsupported(
            f"the hosts have no TLS that works ({text}): put certificates where qemu.conf and "
            "libvirtd.conf of both hosts say, or leave out options.tls"
        )
    if code in _CANNOT:
        return Unsupported(f"libvirt or QEMU cannot move the guest like that ({text})")
    return MigrationFailed(
        f"libvirt did not move the guest ({text}); its log on both hosts says more"
    )


def _one_line(message: str) -> str:
    return " ".join(message.split())
