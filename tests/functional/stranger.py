"""Somebody else on the host, who plugs disks with plain libvirt calls."""

import libvirt

from tests.lab.guest import Guest
from tests.lab.loop_volume import LoopVolume
from tests.lab.patience import wait_until


def plug(
    guest: Guest,
    volume: LoopVolume,
    *,
    bus: str = "virtio",
    read_only: bool = False,
    shareable: bool = True,
) -> None:
    """As little as a shared disk needs."""
    target = "vdz" if bus == "virtio" else "sdz"
    guest.domain.attachDeviceFlags(
        f"""<disk type='block' device='disk'>
          <driver name='qemu' type='raw' cache='none'/>
          <source dev='{volume.path}'/><target dev='{target}' bus='{bus}'/>
          {"<readonly/>" if read_only else ""}{"<shareable/>" if shareable else ""}
          <serial>{volume.volume_id}</serial><alias name='{alias(volume)}'/></disk>""",
        libvirt.VIR_DOMAIN_AFFECT_LIVE,
    )


def alias(volume: LoopVolume) -> str:
    return f"ua-{volume.volume_id}"


def ask_to_unplug(guest: Guest, volume: LoopVolume) -> None:
    guest.domain.detachDeviceAlias(alias(volume), libvirt.VIR_DOMAIN_AFFECT_LIVE)


def is_plugged(guest: Guest, volume: LoopVolume) -> bool:
    return bool(guest.description().xpath(f"//disk/alias[@name='{alias(volume)}']"))


def unplug(guest: Guest, volume: LoopVolume) -> None:
    ask_to_unplug(guest, volume)
    wait_until(lambda: not is_plugged(guest, volume), "libvirt lets go", seconds=20)
