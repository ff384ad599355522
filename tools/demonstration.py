"""What tools/demo shows. Every line is about something that has just really happened."""

import argparse
import subprocess
import sys
import time
from pathlib import Path

from oslo_config import cfg

from agent.bus.client import AgentClient
from tests.lab.agent_process import AgentProcess
from tests.lab.guest import Guest, GuestRefused
from tests.lab.lab import Lab
from tests.lab.loop_volume import LoopVolume
from tools import journey
from tools.stage import (
    Unexpected,
    attachment_id,
    console,
    expect,
    finish,
    milliseconds,
    say,
    timed,
    title,
    wish,
)

MESSAGE = "written-by-guest-1"


def main() -> None:
    parser = argparse.ArgumentParser(prog="tools/demo", description=__doc__)
    parser.add_argument(
        "--migrate", action="store_true", help="two hypervisors, and a guest that goes"
    )
    show = journey.demonstrate if parser.parse_args().migrate else demonstrate
    cfg.CONF([], project="attachment-agent")
    try:
        with Lab() as lab:
            show(lab)
    except Unexpected as problem:
        console.print(f"\n[bold red]This did not go as it should:[/] {problem}")
        sys.exit(1)
    say("RabbitMQ, libvirtd, guests and loop device are gone: the machine is as it was.")


def demonstrate(lab: Lab) -> None:
    title("Starting what a hypervisor has, all of it private")
    lab.begin_broker()
    timed("libvirtd answers", lambda: lab.libvirtd)
    timed("RabbitMQ answers", lambda: lab.broker)
    agent = timed("the agent is ready, a process of its own", lab.agent)
    guests = timed("three QEMU guests have booted a Debian kernel", lambda: lab.guests(3))
    volume = lab.volume()
    say(f"a volume of 64 MiB: {volume.path}, id {volume.volume_id}")
    with AgentClient(cfg.CONF, agent.host, url=lab.broker.url) as client:
        share(client, guests, volume)
        show_operator(agent)
        write_and_read(guests, volume)
        detach_all(client, agent, guests, volume)
        look_for_leftovers(client, guests, volume)


def share(client: AgentClient, guests: list[Guest], volume: LoopVolume) -> None:
    title("One multi-attach volume for all three, by requests over the bus")
    for guest, mode in zip(guests, ("rw", "rw", "ro"), strict=True):
        begun = time.monotonic()
        accepted = client.attach(wish(guest, volume, multiattach=True, access_mode=mode))
        answer = finish(client, accepted)
        assert answer.result is not None
        disk = answer.result["disk"]
        say(
            f"attach ({mode}) to {guest.name}: [green]{answer.state}[/] after "
            f"{milliseconds(begun)}, {disk['target_dev']}, alias {disk['alias']}"
        )
    refused = finish(client, client.attach(wish(guests[0], volume, attachment_id="greedy")))
    expect(refused.error is not None, "a second attachment to the same guest was not refused")
    assert refused.error is not None
    say(f"once more to {guests[0].name}: [yellow]{refused.error.code}[/]: {refused.error.detail}")


def show_operator(agent: AgentProcess) -> None:
    title("What the operator sees: attachctl list")
    program = Path(sys.executable).with_name("attachctl")
    shown = subprocess.run(
        [program, "--config-file", agent.config_file, "list"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    expect(shown.returncode == 0, f"attachctl failed: {shown.stderr.strip()}")
    console.print(shown.stdout.rstrip(), markup=False)


def write_and_read(guests: list[Guest], volume: LoopVolume) -> None:
    title("The guests share its bytes")
    writer, reader, looker = guests
    names = [guest.wait_for_disk(volume.volume_id).name for guest in guests]
    writer.write(names[0], MESSAGE, offset_mib=7)
    say(f"{writer.name} writes {MESSAGE!r} at 7 MiB of /dev/{names[0]}")
    for guest, name in ((reader, names[1]), (looker, names[2])):
        found = guest.read(name, offset_mib=7)
        expect(found == MESSAGE, f"{guest.name} reads {found!r}")
        say(f"{guest.name} reads {found!r} from /dev/{name}")
    try:
        looker.write(names[2], "forbidden", offset_mib=7)
    except GuestRefused as refusal:
        reason = str(refusal).rpartition("dd: ")[2].partition(" 1+0 records")[0]
        say(f"{looker.name}, which has it read-only, tries to write: [yellow]{reason}[/]")
    else:
        raise Unexpected(f"{looker.name} could write")
    expect(reader.read(names[1], offset_mib=7) == MESSAGE, "the bytes have changed")


def detach_all(
    client: AgentClient, agent: AgentProcess, guests: list[Guest], volume: LoopVolume
) -> None:
    title("Detach; the agent is killed as soon as it has accepted the second one")
    for number, guest in enumerate(guests):
        begun = time.monotonic()
        accepted = client.detach(attachment_id(guest), guest.uuid)
        if number == 1:
            agent.kill()
            say(f"detach from {guest.name}: {accepted.state}; the agent is killed (SIGKILL)")
            agent.start()
            say("started again, it goes on with what it had accepted")
        answer = finish(client, accepted)
        assert answer.result is not None
        guest.wait_for_no_disk(volume.volume_id)
        users = "still used by others" if not answer.result["disconnected"] else "nobody's now"
        say(
            f"detach from {guest.name}: [green]{answer.state}[/] after {milliseconds(begun)}; "
            f"the guest has let go, the volume is {users}"
        )


def look_for_leftovers(client: AgentClient, guests: list[Guest], volume: LoopVolume) -> None:
    title("What is left")
    expect(client.list_attachments() == [], "the journal still has attachments")
    expect(client.list_operations(open=True) == [], "operations are open")
    findings = client.audit()["findings"]
    expect(findings == [], f"the audit found {findings}")
    for guest in guests:
        for live in (True, False):
            aliases = guest.description(live=live).xpath("//disk/alias/@name")
            expect(aliases == [], f"{guest.name} still has {aliases}")
    volume.assert_unused()
    say("no attachment, no open operation, no disk in any guest or definition; nobody has the")
    say(f"device open: [green]nothing[/]. Closed operations: {len(client.list_operations())}")


if __name__ == "__main__":
    main()
