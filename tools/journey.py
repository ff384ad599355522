"""What tools/demo --migrate shows: a guest that goes to another hypervisor with a shared volume."""

import time
from typing import Any

from oslo_config import cfg

from agent.bus.client import AgentClient
from agent.cli.follow import bar
from agent.model.outcome import Answer
from tests.lab.guest import Guest
from tests.lab.lab import Lab
from tests.lab.libvirtd import Libvirtd
from tests.lab.loop_volume import LoopVolume
from tests.lab.patience import wait_until
from tests.lab.two_hypervisors import TwoHypervisors, hostname_of, libvirt_uri_for
from tools.stage import (
    OPERATION_SECONDS,
    attachment_id,
    expect,
    finish,
    milliseconds,
    say,
    spinning,
    timed,
    title,
    wish,
)

SLOWLY = {"bandwidth_bytes_per_second": 8 << 20}
"""A booted guest has some 45 MiB that are not zeros: long enough to look at the bar."""

MIGRATION = "demo-migration"
THERE = "demo-arrived"


class Host:
    """A hypervisor, its agent, and a client that asks it."""

    def __init__(self, lab: Lab, two: TwoHypervisors, libvirtd: Libvirtd) -> None:
        self.name = hostname_of(libvirtd)
        self.libvirt_uri = libvirt_uri_for(libvirtd)
        self.agent = two.agent(libvirtd)
        self.agent.wait_connected()
        self.client = AgentClient(cfg.CONF, self.name, url=lab.broker.url)


def demonstrate(lab: Lab) -> None:
    title("Two hypervisors on one machine, each with a network and an agent of its own")
    lab.begin_broker()
    with TwoHypervisors(lab) as two:
        timed("RabbitMQ answers", lambda: lab.broker)
        left, right = (Host(lab, two, libvirtd) for libvirtd in (two.left, two.right))
        say(f"the agents of {left.name} and {right.name} are ready")
        traveller, homebody = timed(
            f"two QEMU guests have booted a Debian kernel on {left.name}",
            lambda: booted(two, "traveller", "homebody"),
        )
        volume = lab.volume()
        share(left, (traveller, homebody), volume)
        parts = prepare(left, right, traveller, volume)
        go(left, right, traveller, parts)
        two.find(traveller)
        write_and_read(traveller, homebody, volume)
        give_back(left, right, traveller, homebody, volume)


def booted(two: TwoHypervisors, *names: str) -> list[Guest]:
    guests = [two.guest(name) for name in names]
    for guest in guests:
        guest.wait_ready()
    return guests


def share(host: Host, guests: tuple[Guest, Guest], volume: LoopVolume) -> None:
    title("One multi-attach volume for both")
    for guest in guests:
        answer = finish(host.client, host.client.attach(wish(guest, volume, multiattach=True)))
        done(answer)
        say(f"attach to {guest.name}: [green]{answer.state}[/]")


def prepare(here: Host, there: Host, guest: Guest, volume: LoopVolume) -> dict[str, str]:
    title(f"{there.name} gets ready: the volume is here, proven and promised, before the guest is")
    (now,) = here.client.list_attachments(instance_id=guest.uuid)
    coming = {
        **wish(guest, volume, multiattach=True, attachment_id=THERE),
        "replaces": now["attachment_id"],
    }
    begun = time.monotonic()
    answer = finish(
        there.client,
        there.client.prepare_migration(MIGRATION, guest.uuid, [coming], source_host=here.name),
    )
    parts: dict[str, str] = done(answer)["parts"]
    say(f"prepare_migration: [green]{answer.state}[/] after {milliseconds(begun)}")
    return parts


def go(here: Host, there: Host, guest: Guest, parts: dict[str, str]) -> None:
    title(f"{guest.name} goes from {here.name} to {there.name} while it runs")
    destination = {"host": there.name, "libvirt_uri": there.libvirt_uri}
    answer = here.client.migrate(MIGRATION, guest.uuid, destination, parts, options=SLOWLY)
    busy = here.client.detach(attachment_id(guest), guest.uuid)
    expect(busy.error is not None and busy.error.code == "busy", "a detach was let in")
    assert busy.error is not None
    say(f"a detach meanwhile: [yellow]{busy.error.code}[/]: {busy.error.detail}")
    result = done(followed(here.client, answer))
    took = result["durations"]["total_ms"] / 1000
    say(f"migrate: [green]done[/] after {took:.1f} s, of which the guest stood still for")
    say(f"{result['downtime_ms']} ms; {here.name} has given the volume back, unless others use it")
    timed(f"the agent of {there.name} knows that it has come", lambda: arrived(there))


def arrived(there: Host) -> None:
    """Its attachments are like others from then on; a detach is busy before."""
    wait_until(
        lambda: all(row["lease"] is None for row in there.client.list_attachments()),
        "the lease has gone",
        seconds=OPERATION_SECONDS,
    )


def followed(client: AgentClient, answer: Answer) -> Answer:
    """To its end, with a bar of how far it is."""
    assert answer.operation_id is not None
    with spinning("the guest's memory is over there") as status:
        while not answer.closed:
            answer = client.wait(answer.operation_id, 0.5)
            if answer.progress is not None:
                status.update(f"  {bar(answer.progress)}")
    return answer


def write_and_read(traveller: Guest, homebody: Guest, volume: LoopVolume) -> None:
    title("They share its bytes still, from two hypervisors")
    for writer, reader in ((traveller, homebody), (homebody, traveller)):
        text = f"written-by-{writer.name}"
        there, here = (guest.wait_for_disk(volume.volume_id).name for guest in (writer, reader))
        writer.write(there, text, offset_mib=5)
        found = reader.read(here, offset_mib=5)
        expect(found == text, f"{reader.name} reads {found!r}")
        say(f"{writer.name} writes {text!r}, {reader.name} reads {found!r}")


def give_back(
    here: Host, there: Host, traveller: Guest, homebody: Guest, volume: LoopVolume
) -> None:
    title("Detach on both sides, and what is left")
    for host, guest, attachment in (
        (there, traveller, THERE),
        (here, homebody, attachment_id(homebody)),
    ):
        result = done(finish(host.client, host.client.detach(attachment, guest.uuid)))
        guest.wait_for_no_disk(volume.volume_id)
        expect(result["disconnected"], f"{host.name} still has the volume")
        say(
            f"detach from {guest.name} on {host.name}: [green]done[/], the volume has left the host"
        )
    for host in (here, there):
        expect(host.client.list_attachments() == [], f"{host.name} still has attachments")
        expect(host.client.list_operations(open=True) == [], f"{host.name} has open operations")
        expect(host.client.audit()["findings"] == [], f"the audit of {host.name} found something")
        host.client.close()
    volume.assert_unused()
    say("no attachment, no open operation, nobody has the device open: [green]nothing[/]")


def done(answer: Answer) -> Any:
    expect(answer.state == "done", f"{answer.verb} is {answer.state}: {answer.error}")
    return answer.result
