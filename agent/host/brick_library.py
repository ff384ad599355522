"""os-brick as a library of this process: set up once; and what it gives besides connectors."""

import logging
import subprocess
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import os_brick
from os_brick import privileged
from os_brick.initiator import utils
from oslo_service import backend

from agent.model.attachment import Attachment

LOG = logging.getLogger(__name__)

UDEV_SECONDS = 10
"""How long udev may take for the events of a device that has just come."""


def prepare_os_brick(conf: Any) -> None:
    """Set up os-brick for this process; to be called before anything else imports it.

    Threads instead of eventlet, its commands run by this process (which is root) instead of a
    privsep daemon. Where the operator gave no [oslo_concurrency] lock_path, os-brick's lock files
    go below state_path; another program that uses os-brick on this host must share them.
    """
    backend.init_backend(backend.BackendType.THREADING)
    for context in (privileged.default, privileged.brick_privsep_hide_output):
        context.set_client_mode(False)
    if conf.oslo_concurrency.lock_path is None and "state_path" in conf:
        own = str(Path(conf.state_path) / "os-brick")
        conf.set_default("lock_path", own, "oslo_concurrency")
    os_brick.setup(conf)


def os_brick_connector(protocol: str, **options: Any) -> Any:
    """os-brick's connector of a protocol."""
    # Imported late: its connectors make oslo.service choose a backend, once for the process.
    from os_brick.initiator import connector

    return connector.InitiatorConnector.factory(protocol, "", **options)


def os_brick_properties(**options: Any) -> Mapping[str, Any]:
    """What os-brick knows about this host's initiators."""
    from os_brick.initiator import connector

    found: Mapping[str, Any] = connector.get_connector_properties("", **options)
    return found


def guard(attachment: Attachment) -> AbstractContextManager[None]:
    """os-brick's lock of a storage service whose volumes share targets, as os-brick decides.

    Without a service there is no name to lock; the caller's lock of the target still holds."""
    if attachment.service_uuid is None:
        return nullcontext()
    lock: AbstractContextManager[None] = utils.guard_connection(
        {"service_uuid": attachment.service_uuid, "shared_targets": attachment.shared_targets}
    )
    return lock


def settle_udev() -> None:
    """Returns once udev has handled what the kernel told it so far, or after UDEV_SECONDS."""
    try:
        subprocess.run(
            ["udevadm", "settle", f"--timeout={UDEV_SECONDS}"],
            capture_output=True,
            timeout=UDEV_SECONDS + 5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        LOG.warning("udev was not waited for: %s", error)
