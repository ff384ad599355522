"""Attach a volume, wait for the end, detach it again: attach.py URL HOST INSTANCE DEVICE

DEVICE is one of the host itself, below a directory of its ``[local] allowed_paths``."""

import sys
import uuid
from datetime import UTC, datetime, timedelta

from oslo_config import cfg

from agent.bus.client import AgentClient, ClientError, Invalid

url, host, instance_id, device_path = sys.argv[1:]
attachment = {
    "attachment_id": str(uuid.uuid4()),  # never one that another volume or instance had
    "instance_id": instance_id,
    "volume_id": str(uuid.uuid4()),
    "generation": 1,
    "connection_info": {"driver_volume_type": "local", "data": {"device_path": device_path}},
    "disk": {"bus": "virtio", "discard": "unmap"},
}
# Write both down before you send: with them, and the same attachment, you can send again after a
# crash of yours, and are told how it stands.
request_id = str(uuid.uuid4())
not_after = datetime.now(UTC) + timedelta(hours=1)

try:
    with AgentClient(cfg.CONF, host, url=url) as agent:
        answer = agent.attach(
            attachment, request_id=request_id, not_after=not_after, deadline_seconds=300
        )
        if not answer.closed:
            answer = agent.wait(request_id, timeout_seconds=330)
        if answer.state != "done":
            # refused, undone, cancelled, expired: nothing is attached. Else it still goes on.
            sys.exit(f"attach is {answer.state}: {answer.error or answer.waiting_for}")
        print("attached:", answer.result)

        answer = agent.detach(
            attachment["attachment_id"], instance_id, generation=1, attachment=attachment
        )
        if not answer.closed:
            answer = agent.wait(answer.operation_id, timeout_seconds=60)
        if answer.state == "waiting":
            # The guest has not let go yet. It goes on whenever it does; the notification tells.
            print("detach waits for", answer.waiting_for)
        else:
            print("detached:", answer.state, answer.result)
except (ClientError, Invalid) as error:
    sys.exit(f"{error}")
