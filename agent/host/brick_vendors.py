"""What os-brick's connectors of vendors must be told besides the volume's properties.

StorPool's takes a volume off this host by the name in its device's path. It wants that also where
the device has gone, or never came; and what is open it detaches all the same, after two seconds.
"""

from collections.abc import Callable, Mapping
from typing import Any

from agent.host.block_devices import BlockDevices
from agent.host.openers import refuse_open
from agent.model.connection import Connection


def never_seen(
    connector: Any,
    connection: Connection,
    told: Mapping[str, Any],
    devices: BlockDevices,
    pause: Callable[[float], None],
) -> dict[str, Any] | None:
    """In the place of os-brick's answer to a connect that gave none; None: it needs no such thing.

    By the name of the volume alone: nothing else of this host, and no other host's, is detached.
    Raises ConnectFailed if a QEMU has it open; what os-brick raises."""
    if connection.driver_volume_type != "storpool" or told.get("device_path") is not None:
        return None
    [path] = connector.get_volume_paths(dict(told))
    found = devices.look(path)
    if found is not None:
        refuse_open({found.node}, pause)
    return {"type": "block", "path": path}
