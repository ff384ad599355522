"""What the volume service answers, in the form of our wire.

It gives ``connection_info`` flat: the protocol's fields and its own side by side. Which are its
own: cinder.volume.manager, _parse_connection_options and attachment_update.
"""

from collections.abc import Callable, Mapping
from typing import Any

from agent.errors import Invalid
from agent.model.disk import IoTune

_NOT_THE_PROTOCOLS = frozenset(
    {
        "driver_volume_type",
        "attachment_id",
        "cacheable",
        "discard",
        "logical_block_size",
        "physical_block_size",
        "qos_specs",
        # A directory of the volume service, which means nothing on this host.
        "mount_point_base",
    }
)

_INTEGERS = ("target_lun", "target_luns", "target_port", "ns_id")
_STRINGS = ("ports",)


def from_cinder(answer: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of our attachment that an attachment of the volume service tells.

    ``answer``: {"attachment": {…}}, the attachment in it, or its connection_info, flat or nested;
    it is not changed. From the whole attachment come attachment_id, instance_id, volume_id and
    access_mode as well. What it never tells: multiattach, shared_targets and service_uuid (ask for
    the volume), generation, size_bytes; and the key of a volume that is ``encrypted``, without
    which the agent refuses to attach it: add ``encryption``.  Raises Invalid.
    """
    if not isinstance(answer, Mapping):
        raise Invalid(f"must be an object, not a {type(answer).__name__}: see its to_dict()")
    whole = answer.get("attachment", answer)
    if not isinstance(whole, Mapping):
        raise Invalid("attachment: must be an object")
    info = whole.get("connection_info", whole)
    if not isinstance(info, Mapping) or not info.get("driver_volume_type"):
        raise Invalid(
            "there is no connection_info with a driver_volume_type in it: the volume service "
            "fills it in when the attachment is updated with the connector of the host"
        )
    flat = {**info, **_object(info, "data")}
    given = {
        "attachment_id": info.get("attachment_id")
        or (whole.get("id") if whole is not info else None),
        "instance_id": whole.get("instance"),
        "volume_id": whole.get("volume_id") or flat.get("volume_id"),
        "access_mode": "ro" if whole.get("attach_mode") == "ro" else None,
        "connection_info": {
            "driver_volume_type": info["driver_volume_type"],
            "data": {
                name: _typed(name, value)
                for name, value in flat.items()
                if name not in _NOT_THE_PROTOCOLS and name != "data"
            },
        },
        "identity": _identity(flat),
        "disk": _disk(flat),
    }
    return {name: value for name, value in given.items() if value}


def _object(info: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = info.get(name) or {}
    if not isinstance(found, Mapping):
        raise Invalid(f"{name}: must be an object")
    return found


def _typed(name: str, value: Any) -> Any:
    """Backends differ in how they write a LUN; the wire does not."""
    if name in _INTEGERS:
        return _each(value, lambda item: _integer(name, item))
    if name in _STRINGS:
        return _each(value, str)
    return value


def _each(value: Any, convert: Callable[[Any], Any]) -> Any:
    if value is None:
        return None
    return [convert(item) for item in value] if isinstance(value, list | tuple) else convert(value)


def _integer(name: str, value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        raise Invalid(f"{name}: must be an integer") from None


def _identity(flat: Mapping[str, Any]) -> dict[str, str]:
    """What NVMe over fabrics says about the namespace that shall come."""
    told = {"uuid": flat.get("vol_uuid"), "nguid": flat.get("volume_nguid")}
    return {name: value for name, value in told.items() if value}


def _disk(flat: Mapping[str, Any]) -> dict[str, Any]:
    sizes = {
        "logical": _size(flat, "logical_block_size"),
        "physical": _size(flat, "physical_block_size"),
    }
    disk = {
        "discard": "unmap" if flat.get("discard") is True else None,
        "block_size": {name: size for name, size in sizes.items() if size},
        "iotune": _iotune(_object(flat, "qos_specs")),
    }
    return {name: value for name, value in disk.items() if value}


def _size(flat: Mapping[str, Any], name: str) -> int | None:
    value = flat.get(name)
    return None if value is None else _integer(name, value)


def _iotune(specs: Mapping[str, Any]) -> dict[str, int]:
    """The limits with libvirt's names; others in it are for other hypervisors or backends."""
    names = set(IoTune.model_fields) - {"group_name"}
    return {name: _integer(name, value) for name, value in specs.items() if name in names}
