"""Attachments for tests: the smallest valid one, and what a test wants different."""

from typing import Any

from agent.model.attachment import Attachment

INSTANCES = [f"00000000-0000-4000-8000-00000000000{number}" for number in range(1, 9)]
VOLUMES = [f"aaaaaaaa-0000-4000-8000-00000000000{number}" for number in range(1, 9)]


def local(path: str = "/dev/loop7") -> dict[str, Any]:
    return {"driver_volume_type": "local", "data": {"device_path": path}}


def attachment_payload(**different: Any) -> dict[str, Any]:
    """As it goes over the wire."""
    return {
        "attachment_id": "att-1",
        "instance_id": INSTANCES[0],
        "volume_id": VOLUMES[0],
        "connection_info": local(),
        **different,
    }


def attachment(**different: Any) -> Attachment:
    return Attachment.parse(attachment_payload(**different))
