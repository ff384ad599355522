"""Fibre Channel: the ports of a host, and the storage's ports that each has found.

/sys/class/fc_host/host5/port_name                  0x2100001b32a0…    one of its own
/sys/class/fc_remote_ports/rport-5:0-2/port_name    0x5006016041e0…    found by that one
"""

from pathlib import Path

from agent.host.sysfs import entries, text


def ports_seen(classes: Path) -> dict[str, set[str] | None]:
    """{own port: the others}, in lower case; None of one that is not online: it sees nobody,
    whoever is there. The kernel goes on naming a port that it has lost
    (fc_timeout_deleted_rport), so that its path counts as missing."""
    found = entries(classes / "fc_remote_ports")
    return {
        _name(own): {
            _name(port)
            for port in found
            if port.name.startswith(f"rport-{own.name.removeprefix('host')}:")
        }
        if text(own, "port_state") in ("Online", "")
        else None
        for own in entries(classes / "fc_host")
    }


def _name(facts: Path) -> str:
    return text(facts, "port_name").lower().removeprefix("0x")
