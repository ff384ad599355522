"""Whether libvirt knows what QEMU has, by what both were seen to say after libvirtd was killed."""

import pytest

from agent.host.libvirt_copies import is_astray

XML = """<domain><devices><disk type='block' device='disk'>
  <source dev='/dev/loop0' index='3'/>{mirror}
  <target dev='vda' bus='virtio'/>
  <alias name='ua-2d5b9d64'/>
</disk></devices></domain>"""

PIVOTING = """<mirror type='block' job='copy' ready='pivot'><format type='raw'/>
  <source dev='/dev/loop1' index='4'/></mirror>"""


def blocks(node: str) -> list[dict[str, object]]:
    return [
        {"device": "", "qdev": "ua-2d5b9d64-1", "inserted": {"node-name": "libvirt-9-format"}},
        {"device": "floppy0"},
        {
            "device": "",
            "qdev": "/machine/peripheral/ua-2d5b9d64/virtio-backend",
            "inserted": {"file": "/dev/loop1", "node-name": node},
        },
    ]


@pytest.mark.parametrize("mirror", ["", PIVOTING])
def test_qemu_has_pivoted_and_libvirt_does_not_know(mirror: str) -> None:
    xml = XML.format(mirror=mirror)
    assert is_astray(xml, "vda", blocks("libvirt-4-format"))
    assert not is_astray(xml, "vda", blocks("libvirt-3-format"))
    assert not is_astray(xml, "vda", blocks("libvirt-3-slice-sto"))


def test_where_neither_tells_it_is_taken_to_know() -> None:
    xml = XML.format(mirror="")
    assert not is_astray(xml.replace(" index='3'", ""), "vda", blocks("libvirt-4-format"))
    assert not is_astray(xml, "vda", blocks("#block123"))
    assert not is_astray(xml, "vdb", blocks("libvirt-4-format"))
    assert not is_astray(xml, "vda", [])
