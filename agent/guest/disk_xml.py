"""The <disk> of an attachment, and whether a <disk> that is there is the attachment's."""

from collections.abc import Callable

from agent.guest.domain_xml import DiskFacts, disk_facts
from agent.guest.placement import Place
from agent.guest.xml import XmlElement, element, parse, to_text
from agent.model.attachment import Attachment
from agent.model.connection import RbdConnection
from agent.model.device import Device
from agent.model.guest_iscsi import GuestIscsiConnection

Names = Callable[[str], frozenset[str]]


def disk_xml(attachment: Attachment, device: Device, place: Place) -> str:
    """libvirt's <disk>, complete: nothing is left to a default that could change or be probed."""
    disk, connection = attachment.disk, attachment.connection
    return to_text(
        element(
            "disk",
            element(
                "driver",
                name="qemu",
                type=connection.source_format,
                cache=attachment.cache,
                io=disk.io,
                discard=disk.discard,
                error_policy=attachment.error_policy,
                iothread=disk.iothread,
                queues=disk.queues,
            ),
            _source(attachment, device),
            # Without it libvirt probes the image for a backing file that a guest could write.
            element("backingStore") if connection.source_format == "raw" else None,
            element("target", dev=place.target_dev, bus=disk.bus),
            _iotune(attachment),
            element("readonly") if attachment.read_only else None,
            element("shareable") if attachment.multiattach else None,
            element("serial", text=attachment.serial) if attachment.serial else None,
            element("boot", order=disk.boot_order) if disk.boot_order else None,
            element("alias", name=attachment.alias),
            _blockio(attachment),
            element("address", **place.address) if place.address else None,
            type=connection.source_type,
            device=disk.type,
        )
    )


def host_side_xml(attachment: Attachment, device: Device) -> str:
    """What of the <disk> is of the host that has it: the rest goes along with the guest."""
    driver = element("driver", cache=attachment.cache, io=attachment.disk.io)
    source_type = attachment.connection.source_type
    return to_text(element("disk", driver, _source(attachment, device), type=source_type))


def destination_xml(attachment: Attachment, device: Device, slice_bytes: int | None) -> str:
    """What QEMU copies a disk to.

    ``slice_bytes``: of a larger one only so much, as QEMU copies to what is as large."""
    connection = attachment.connection
    driver = element(
        "driver", name="qemu", type=connection.source_format, discard=attachment.disk.discard
    )
    source = _source(attachment, device)
    if slice_bytes is not None:
        source.append(
            element("slices", element("slice", type="storage", offset=0, size=slice_bytes))
        )
    return to_text(
        element("disk", driver, source, element("backingStore"), type=connection.source_type)
    )


def swapped_xml(domain_xml: str, alias: str, attachment: Attachment, device: Device) -> str | None:
    """The disk that a half has by that alias with the source of the attachment, all else as it is.

    None: the half has no such disk."""
    connection = attachment.connection
    for disk in parse(domain_xml).iterfind("devices/disk"):
        if disk_facts(disk).mark != alias:
            continue
        for tag in ("source", "backingStore", "mirror", "auth", "encryption"):
            for old in disk.findall(tag):
                disk.remove(old)
        disk.set("type", connection.source_type)
        disk.append(_source(attachment, device))
        if connection.source_format == "raw":
            disk.append(element("backingStore"))
        driver = disk.find("driver")
        if driver is not None:
            driver.set("type", connection.source_format)
        return to_text(disk)
    return None


def differences(
    disk: DiskFacts, attachment: Attachment, names: Names, source: str | None
) -> list[str]:
    """What of ``disk`` is not as the attachment asks, in words; empty: it is the attachment's.

    ``source`` None: not known before the volume is connected, so not compared.
    """
    wanted: dict[str, tuple[object, object]] = {
        "serial": (disk.serial, attachment.serial),
        "device": (disk.device, attachment.disk.type),
        "bus": (disk.bus, attachment.disk.bus),
        "driver type": (disk.driver_type, attachment.connection.source_format),
        "cache": (disk.cache, attachment.cache),
        "shareable": (disk.shareable, attachment.multiattach),
        "readonly": (disk.read_only, attachment.read_only),
        "reservations": (disk.reserves, attachment.reserves),
        "LUKS secret": (disk.luks_secret, attachment.secret_uuid("volume")),
    }
    if attachment.disk.target_dev is not None:
        wanted["target"] = (disk.target_dev, attachment.disk.target_dev)
    if attachment.serial is None:
        del wanted["serial"]
    wrong = [f"{what} is {is_}, not {ask}" for what, (is_, ask) in wanted.items() if is_ != ask]
    if source is not None and not (disk.source and names(disk.source) & names(source)):
        wrong.append(f"source is {disk.source}, not {source}")
    return wrong


def _source(attachment: Attachment, device: Device) -> XmlElement:
    reservations = element("reservations", managed="yes") if attachment.reserves else None
    connection = attachment.connection
    encryption = _encryption(attachment)
    if isinstance(connection, RbdConnection):
        secret_uuid = attachment.secret_uuid("ceph") or connection.data.secret_uuid
        return _rbd_source(connection, secret_uuid, encryption)
    if isinstance(connection, GuestIscsiConnection):
        return _iscsi_source(connection, attachment.secret_uuid("iscsi"), encryption)
    if connection.source_type == "file":
        return element("source", reservations, encryption, file=device.path)
    return element("source", reservations, encryption, dev=device.path)


def _encryption(attachment: Attachment) -> XmlElement | None:
    uuid = attachment.secret_uuid("volume")
    if uuid is None or attachment.encryption is None:
        return None
    secret = element("secret", type="passphrase", uuid=uuid)
    return element("encryption", secret, format=attachment.encryption.format)


def _rbd_source(
    connection: RbdConnection, secret_uuid: str | None, encryption: XmlElement | None
) -> XmlElement:
    data = connection.data
    auth = element(
        "auth",
        element("secret", type=data.secret_type, uuid=secret_uuid),
        username=data.auth_username,
    )
    return element(
        "source",
        *(
            element("host", name=host, port=port)
            for host, port in zip(data.hosts, data.ports, strict=True)
        ),
        auth if data.auth_enabled else None,
        encryption,
        protocol="rbd",
        name=data.name,
    )


def _iscsi_source(
    connection: GuestIscsiConnection, secret_uuid: str | None, encryption: XmlElement | None
) -> XmlElement:
    host, port = connection.portal
    secret = element("secret", type="iscsi", uuid=secret_uuid)
    return element(
        "source",
        element("host", name=host, port=port),
        element("initiator", element("iqn", name=connection.initiator)),
        element("auth", secret, username=connection.user) if connection.user else None,
        encryption,
        protocol="iscsi",
        name=connection.target,
    )


def _iotune(attachment: Attachment) -> XmlElement | None:
    iotune = attachment.disk.iotune
    limits = iotune.limits() if iotune else {}
    if not limits:
        return None
    return element("iotune", *(element(name, text=str(value)) for name, value in limits.items()))


def _blockio(attachment: Attachment) -> XmlElement | None:
    size = attachment.disk.block_size
    if size is None:
        return None
    return element(
        "blockio",
        logical_block_size=size.logical,
        physical_block_size=size.physical or size.logical,  # QEMU would take 512, and refuse
    )
