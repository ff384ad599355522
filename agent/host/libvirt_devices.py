"""Devices in libvirt's XML, and by what they are known again."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lxml import etree

from agent.model.mark import mark_of


@dataclass(frozen=True)
class Mark:
    """By what a device is known again: a disk's alias, or a controller's type, index, model."""

    tag: str
    alias: str | None
    controller: tuple[str | None, str | None, str | None] | None

    @classmethod
    def of(cls, device_xml: str) -> "Mark":
        device = etree.fromstring(device_xml)
        is_controller = device.tag == "controller" and device.get("index") is not None
        return cls(
            tag=str(device.tag),
            alias=alias_in(device),
            controller=controller_in(device) if is_controller else None,
        )

    def is_in(self, domain_xml: str | None) -> bool:
        devices = () if domain_xml is None else devices_in(domain_xml)
        same = (device for device in devices if device.tag == self.tag)
        if self.controller is not None:
            return any(controller_in(device) == self.controller for device in same)
        return self.alias is not None and any(alias_in(device) == self.alias for device in same)

    def __str__(self) -> str:
        if self.controller is not None:
            return f"{self.controller[0]} controller {self.controller[1]}"
        return f"the {self.tag} {self.alias or 'without an alias'}"


def devices_in(domain_xml: str | None) -> Iterator[Any]:
    if domain_xml is None:
        return iter(())
    parser = etree.XMLParser(resolve_entities=False, remove_blank_text=True)
    return iter(etree.fromstring(domain_xml, parser).findall("devices/*"))


def alias_in(device: Any) -> str | None:
    alias = device.find("alias")
    return None if alias is None else alias.get("name")


def found_by(device: Any) -> str | None:
    """What a disk is found by; of other devices the alias."""
    target_dev = target_in(device)
    if target_dev is None:
        return alias_in(device)
    return mark_of(alias_in(device), target_dev, device.findtext("serial"))


def target_in(device: Any) -> str | None:
    """Of a disk; other devices have none, or one that means something else."""
    target = device.find("target")
    return target.get("dev", "") if device.tag == "disk" and target is not None else None


def controller_in(device: Any) -> tuple[str | None, str | None, str | None]:
    return device.get("type"), device.get("index"), device.get("model")
