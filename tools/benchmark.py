"""What tools/bench measures. Each pair is taken in turn, A B A B, and compared by its medians.

The bare side does with plain libvirt calls what the agent must do for the same end: the running
guest, the definition, the domain's metadata; and for a detach it waits for the guest's event.
Guests have no operating system: QEMU itself lets go of a virtio-scsi disk.
"""

import argparse
import queue
import statistics
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import libvirt
from oslo_config import cfg
from rich.console import Console
from rich.table import Table

from agent.admission.admit import Policy
from agent.bus.client import AgentClient
from agent.bus.peers import BusPeers
from agent.guest.disk_xml import disk_xml
from agent.guest.domain_xml import Note, metadata_xml, parse_domain
from agent.guest.placement import choose_place
from agent.host.brick import BrickConnectors
from agent.host.brick_library import prepare_os_brick
from agent.host.key_files import KeyFiles
from agent.host.libvirt_connection import LibvirtConnection
from agent.host.libvirt_copies import LibvirtCopies
from agent.host.libvirt_domains import METADATA_PREFIX, LibvirtDomains
from agent.host.libvirt_events import LibvirtEvents
from agent.host.libvirt_loop import EVENT_LOOP
from agent.host.libvirt_migrations import LibvirtMigrations
from agent.host.libvirt_secrets import LibvirtSecrets
from agent.host.locks import FileLocks
from agent.journal.store import Journal
from agent.model.attachment import Attachment
from agent.model.device import Device
from agent.model.mark import METADATA_NAMESPACE
from agent.model.moment import rfc3339
from agent.ports import Host
from agent.service.agent import Agent
from agent.service.begin import SystemClock
from agent.service.lanes import lane_pools
from tests.lab.guest import Guest, Shape
from tests.lab.lab import Lab
from tests.lab.loop_volume import LoopVolume

BARE = Shape(has_system=False, spare_ports=2, memory_mib=32)
GUESTS = 8
EACH = 8
OPERATION_SECONDS = 120.0

LIVE = libvirt.VIR_DOMAIN_AFFECT_LIVE
CONFIG = libvirt.VIR_DOMAIN_AFFECT_CONFIG

console = Console(highlight=False)


def main() -> None:
    parser = argparse.ArgumentParser(prog="tools/bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    prepare_os_brick(cfg.CONF)
    with Lab() as lab, console.status("measuring …"):
        lab.begin_broker()
        EVENT_LOOP.start()
        cfg.CONF([], project="attachment-agent")
        agent = lab.agent(options={"DEFAULT": {"debug": "false"}})
        idle_bytes = resident_bytes(agent.pid)
        guests = [lab.guest(shape=BARE) for _ in range(GUESTS)]
        volumes = [lab.volume(size_mib=1) for _ in range(GUESTS * EACH)]
        bare = Bare(lab.libvirtd.uri)
        with AgentClient(cfg.CONF, agent.host, url=lab.broker.url) as client:
            one = one_by_one(lab, client, bare, guests[0], volumes[0], rounds)
            many = many_at_once(client, bare, guests, volumes, max(1, rounds // 10))
        worked_bytes = resident_bytes(agent.pid)
    console.print(one_table(one, rounds))
    console.print(rest_table(one))
    console.print(many_table(many))
    console.print(
        f"memory of the agent: {mib(idle_bytes)} MiB idle, {mib(worked_bytes)} MiB after all this"
    )


# --- one after the other -----------------------------------------------------------

Times = dict[str, list[float]]


def one_by_one(
    lab: Lab, client: AgentClient, bare: "Bare", guest: Guest, volume: LoopVolume, rounds: int
) -> Times:
    """Seconds by what was done: bare, the agent's work in this process, and over the bus."""
    times: Times = defaultdict(list)
    with in_process(lab, times) as desk:
        for _ in range(rounds + 1):
            with timed(times, "attach bare"):
                bare.attach(guest, volume)
            with timed(times, "detach bare"):
                bare.detach(guest, volume)
            with timed(times, "attach work"):
                desk.finish("attach", {"attachment": wish(guest, volume)})
            with timed(times, "detach work"):
                desk.finish("detach", ids(guest, volume))
            with timed(times, "attach bus"):
                with timed(times, "accept attach"):
                    accepted = client.attach(wish(guest, volume))
                finish(client, accepted.operation_id)
            with timed(times, "detach bus"):
                with timed(times, "accept detach"):
                    accepted = client.detach(**ids(guest, volume))
                finish(client, accepted.operation_id)
            with timed(times, "echo"):
                client.ping()
    return {what: taken[1:] if len(taken) == rounds + 1 else taken for what, taken in times.items()}


def wish(guest: Guest, volume: LoopVolume) -> dict[str, Any]:
    return {
        "attachment_id": f"bench-{volume.volume_id}",
        "instance_id": guest.uuid,
        "volume_id": volume.volume_id,
        "connection_info": volume.connection_info(),
        "multiattach": True,
        "disk": {"bus": "scsi"},
    }


def ids(guest: Guest, volume: LoopVolume) -> dict[str, str]:
    return {"attachment_id": f"bench-{volume.volume_id}", "instance_id": guest.uuid}


def finish(client: AgentClient, operation_id: str | None) -> None:
    assert operation_id is not None
    answer = client.wait(operation_id, OPERATION_SECONDS)
    assert answer.state == "done", answer


class Bare:
    """What one would write without the agent: no journal, no locks, no second look."""

    def __init__(self, uri: str) -> None:
        self._connection = libvirt.open(uri)
        self._connection.setKeepAlive(5, 3)
        self._removed: dict[str, queue.SimpleQueue[str]] = defaultdict(queue.SimpleQueue)
        self._connection.domainEventRegisterAny(
            None, libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, self._on_removed, None
        )

    def _on_removed(self, _connection: Any, domain: Any, alias: str, _opaque: Any) -> None:
        self._removed[domain.UUIDString() + alias].put(alias)

    def attach(self, guest: Guest, volume: LoopVolume) -> None:
        attachment = Attachment.parse(wish(guest, volume))
        domain = self._connection.lookupByUUIDString(guest.uuid)
        facts = parse_domain(domain.XMLDesc(0))
        place = choose_place(attachment.disk, facts, None)
        xml = disk_xml(attachment, Device(path=volume.path, identity={}, size_bytes=0), place)
        domain.attachDeviceFlags(xml, LIVE)
        domain.attachDeviceFlags(xml, CONFIG)
        note = Note(attachment.attachment_id, attachment.volume_id, None)
        self._note(domain, {**facts.notes, attachment.alias: note})

    def detach(self, guest: Guest, volume: LoopVolume) -> None:
        alias = f"ua-bench-{volume.volume_id}"
        self._removed[guest.uuid + alias] = queue.SimpleQueue()  # the agent's detaches rang too
        domain = self._connection.lookupByUUIDString(guest.uuid)
        notes = parse_domain(domain.XMLDesc(0)).notes
        domain.detachDeviceAlias(alias, LIVE)
        self._removed[guest.uuid + alias].get(timeout=OPERATION_SECONDS)
        domain.detachDeviceAlias(alias, CONFIG)
        self._note(domain, {name: note for name, note in notes.items() if name != alias})

    def _note(self, domain: Any, notes: dict[str, Note]) -> None:
        element, xml = libvirt.VIR_DOMAIN_METADATA_ELEMENT, metadata_xml(notes) if notes else None
        domain.setMetadata(element, xml, METADATA_PREFIX, METADATA_NAMESPACE, LIVE | CONFIG)


# --- the agent's work, without the bus and with a stop-watch at every port ------------


class DeskInProcess:
    """The agent with its real journal and adapters, called directly."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def finish(self, verb: str, request: dict[str, Any]) -> None:
        request_id = str(uuid.uuid4())
        not_after = rfc3339(datetime.now(UTC) + timedelta(hours=1))
        envelope = {"request_id": request_id, "not_after": not_after, **request}
        self._agent.command(verb, {"request": envelope}, addressed=True)
        answer = self._agent.wait({"operation_id": request_id, "timeout_seconds": 30.0})
        assert answer["state"] == "done", answer


@contextmanager
def in_process(lab: Lab, times: Times) -> Iterator[DeskInProcess]:
    directory = lab.directory / "bench"
    clock = SystemClock()
    journal = Watched(Journal(directory, clock), times, {"write": "the journal, with its fsync"})
    connection = LibvirtConnection(lab.libvirtd.uri)
    storage = dict.fromkeys(("check", "connect", "disconnect", "names"), "storage (os-brick)")
    watched_calls = {
        **dict.fromkeys(("plug", "define", "unplug", "forget", "note"), "changes through libvirt"),
        **dict.fromkeys(("look", "all", "capabilities"), "looks at libvirt"),
    }
    host = Host(
        name="bench",
        domains=Watched(LibvirtDomains(connection), times, watched_calls),
        connectors=Watched(connectors(), times, storage),
        locks=FileLocks(directory / "locks", timeout_seconds=60),
        clock=clock,
        journal=journal,
        secrets=LibvirtSecrets(connection, KeyFiles(())),
        peers=BusPeers(cfg.CONF),
        migrations=LibvirtMigrations(connection, lambda _: None),
        copies=LibvirtCopies(connection),
    )
    agent = Agent(host, journal, Policy(), lane_pools())  # type: ignore[arg-type]
    events = LibvirtEvents(connection, agent.workers.stir, agent.workers.stir_all)
    events.start()
    agent.workers.start()
    agent.workers.start_alarm()
    yield DeskInProcess(agent)
    agent.workers.stop(10)
    events.close()
    connection.close()
    journal.close()


def connectors() -> BrickConnectors:
    return BrickConnectors(
        host="bench",
        my_ip="127.0.0.1",
        use_multipath=False,
        enforce_multipath=True,
        device_scan_attempts=1,
        nfs_mount_point_base="/nonexistent",
        nfs_mount_options="",
        local_allowed_paths=("/dev",),
    )


class Watched:
    """Anything, with the time that some of its calls take noted under a name."""

    def __init__(self, watched: Any, times: Times, names: dict[str, str]) -> None:
        self._watched = watched
        self._times = times
        self._names = names

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._watched, name)
        if name not in self._names:
            return call

        def timed_call(*arguments: Any, **named: Any) -> Any:
            with timed(self._times, self._names[name]):
                return call(*arguments, **named)

        return timed_call


# --- many at once --------------------------------------------------------------------


def many_at_once(
    client: AgentClient, bare: Bare, guests: list[Guest], volumes: list[LoopVolume], rounds: int
) -> Times:
    """Makespans in seconds: 64 attachments over 8 guests, attached and then detached."""
    times: Times = defaultdict(list)
    pairs = [(guests[number % GUESTS], volume) for number, volume in enumerate(volumes)]
    for _ in range(rounds):
        for verb in ("attach", "detach"):
            with timed(times, f"{verb} bare"):
                by_guest(pairs, getattr(bare, verb))
        for verb in ("attach", "detach"):
            with timed(times, f"{verb} bus"):
                if verb == "attach":
                    sent = [client.attach(wish(*pair)) for pair in pairs]
                else:
                    sent = [client.detach(**ids(*pair)) for pair in pairs]
                for accepted in sent:
                    finish(client, accepted.operation_id)
    return times


def by_guest(
    pairs: list[tuple[Guest, LoopVolume]], act: Callable[[Guest, LoopVolume], None]
) -> None:
    """One thread a guest, which takes its volumes one after the other."""

    def work(mine: list[tuple[Guest, LoopVolume]]) -> None:
        for guest, volume in mine:
            act(guest, volume)

    threads = [threading.Thread(target=work, args=(pairs[n::GUESTS],)) for n in range(GUESTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# --- what is printed -----------------------------------------------------------------


def one_table(times: Times, rounds: int) -> Table:
    table = Table(title=f"one after the other, median of {rounds}", title_justify="left")
    for column in ("", "bare libvirt", "agent, the work", "ratio", "agent, over the bus", "ratio"):
        table.add_column(column, justify="left" if not column else "right")
    for verbs in (("attach",), ("detach",), ("attach", "detach")):
        bare, work, bus = (
            sum(median(times, f"{verb} {side}") for verb in verbs)
            for side in ("bare", "work", "bus")
        )
        what = " + ".join(verbs)
        table.add_row(what, ms(bare), ms(work), f"{work / bare:.2f}", ms(bus), f"{bus / bare:.2f}")
    echo = median(times, "echo")
    for verb in ("attach", "detach"):
        accept = median(times, f"accept {verb}")
        table.add_row(f"accept {verb}", "", "", "", ms(accept), f"{accept / echo:.2f} of an echo")
    table.add_row("echo (ping)", "", "", "", ms(echo), "")
    return table


def rest_table(times: Times) -> Table:
    """Where the agent's own work goes, an attach and a detach together."""
    table = Table(title="where the agent's work goes, one attach and detach", title_justify="left")
    for column in ("", "calls", "time", "share"):
        table.add_column(column, justify="left" if not column else "right")
    cycles = len(times["attach work"])
    whole = (sum(times["attach work"]) + sum(times["detach work"])) / cycles
    parts = (
        "changes through libvirt",
        "looks at libvirt",
        "storage (os-brick)",
        "the journal, with its fsync",
    )
    left = whole
    for part in parts:
        taken = sum(times[part]) / cycles
        left -= taken
        calls = f"{len(times[part]) / cycles:.1f}"
        table.add_row(part, calls, ms(taken), f"{taken / whole:.0%}")
    table.add_row("waiting for the guest, threads, the rest", "", ms(left), f"{left / whole:.0%}")
    return table


def many_table(times: Times) -> Table:
    table = Table(
        title=f"{GUESTS * EACH} attachments over {GUESTS} guests, all at once", title_justify="left"
    )
    for column in ("", "bare threads", "agent, over the bus", "ratio"):
        table.add_column(column, justify="left" if not column else "right")
    for verb in ("attach", "detach"):
        bare, bus = (median(times, f"{verb} {side}") for side in ("bare", "bus"))
        table.add_row(verb, ms(bare), ms(bus), f"{bus / bare:.2f}")
    return table


def median(times: Times, what: str) -> float:
    return statistics.median(times[what])


@contextmanager
def timed(times: Times, what: str) -> Iterator[None]:
    begun = time.perf_counter()
    yield
    times[what].append(time.perf_counter() - begun)


def resident_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1]) * 1024


def ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


def mib(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:.0f}"


if __name__ == "__main__":
    main()
