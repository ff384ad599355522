"""LUKS by QEMU itself: two guests on one encrypted volume, wrong keys, and no key to be found."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from oslo_config import cfg

from agent.bus.client import AgentClient
from agent.guest.domain_xml import parse_domain
from agent.host.libvirt_abilities import version_of
from tests.functional.conftest import ANSWER_SECONDS, MakeVolume
from tests.functional.orchestrator import Orchestrator, Wish, assert_no_disk, halves, wish
from tests.functional.test_stubborn import Listener
from tests.lab.agent_process import AgentProcess
from tests.lab.guest import Guest, block_of
from tests.lab.lab import Lab
from tests.lab.loop_volume import LoopVolume
from tests.lab.patience import wait_until

pytestmark = pytest.mark.real

PASSPHRASE = "canary-passphrase-6b1f0e77"
CHAP_PASSWORD = "canary-chap-password-41c8d9a2"

HEADER_BYTES = 4 << 20
"""The LUKS header and its key material, which take 2 MiB."""


@pytest.fixture(scope="module")
def keys(lab: Lab) -> Path:
    directory = lab.directory / "keys"
    directory.mkdir(mode=0o700)
    for name, key in (("right", PASSPHRASE), ("wrong", "another")):
        (directory / name).write_text(key)
        (directory / name).chmod(0o400)
    return directory


@pytest.fixture(scope="module")
def agent(lab: Lab, keys: Path) -> AgentProcess:
    agent = lab.agent("luks-host", options={"encryption": {"secret_directories": keys}})
    agent.wait_connected()
    return agent


@pytest.fixture
def orchestrator(lab: Lab, agent: AgentProcess, guests: list[Guest]) -> Iterator[Orchestrator]:
    with AgentClient(
        cfg.CONF, "luks-host", url=lab.broker.url, timeout_seconds=ANSWER_SECONDS
    ) as client:
        orchestrator = Orchestrator(client)
        yield orchestrator
        try:
            orchestrator.assert_idle()
            assert_no_disk(guests)
            assert secrets(lab) == set()
        finally:
            orchestrator.leave_nothing()


@pytest.fixture
def listener(lab: Lab) -> Iterator[Listener]:
    listener = Listener(lab)
    yield listener
    listener.close()


def make_header(lab: Lab, key: Path) -> bytes:
    """It takes seconds, and QEMU may fail to measure how many on a busy machine."""
    image = lab.directory / "luks"
    command = [
        *("qemu-img", "create", "-q", "-f", "luks", "-o", "key-secret=key"),
        *("--object", f"secret,id=key,file={key}", str(image), "8M"),
    ]

    def is_made() -> bool:
        return subprocess.run(command, check=False, timeout=60).returncode == 0

    wait_until(is_made, "qemu-img makes a LUKS header", seconds=240)
    with image.open("rb") as file:
        return file.read(HEADER_BYTES)


@pytest.fixture(scope="module")
def luks_header(lab: Lab, keys: Path) -> bytes:
    return make_header(lab, keys / "right")


def encrypted(volume: LoopVolume, header: bytes) -> LoopVolume:
    with open(volume.path, "r+b") as device:
        device.write(header)
    return volume


@pytest.fixture
def make_luks(make_volume: MakeVolume, luks_header: bytes) -> Callable[[], LoopVolume]:
    return lambda: encrypted(make_volume(), luks_header)


def by_file(keys: Path, name: str = "right") -> dict[str, Any]:
    return {"encryption": {"format": "luks", "secret_file": str(keys / name)}}


def secrets(lab: Lab) -> set[str]:
    return {found.usageID() for found in lab.libvirtd.connection().listAllSecrets()}


def undone(orchestrator: Orchestrator, wanted: Wish) -> str:
    answer = orchestrator.attach(wanted)
    assert answer.state == "undone", answer
    assert answer.error is not None
    return answer.error.code


def shares_and_copies(lab: Lab) -> bool:
    """What is encrypted: libvirt 9.0 does, 11.3 does not."""
    return version_of(lab.libvirtd.connection().getLibVersion()) < (11, 3, 0)


def test_two_guests_share_what_the_storage_cannot_read(
    lab: Lab,
    orchestrator: Orchestrator,
    guests: list[Guest],
    make_luks: Callable[[], LoopVolume],
    keys: Path,
) -> None:
    volume = make_luks()
    one, other = (wish(guest, volume, multiattach=True, **by_file(keys)) for guest in guests[:2])
    if not shares_and_copies(lab):
        assert undone(orchestrator, one) == "unsupported"
        return
    orchestrator.attached(one)
    orchestrator.attached(other)
    first, second = (guest.wait_for_disk(volume.volume_id) for guest in guests[:2])
    assert volume.size_bytes - HEADER_BYTES < first.size_bytes < volume.size_bytes
    guests[0].write(first.name, "hello", offset_mib=3)
    assert guests[1].read(second.name, offset_mib=3) == "hello"
    assert block_of("hello")[:64] not in Path(volume.path).read_bytes()
    for xml in halves(guests[0]):
        [disk] = [disk for disk in parse_domain(xml).disks if disk.serial == volume.volume_id]
        assert disk.luks_secret is not None

    orchestrator.detached(one)
    assert len(secrets(lab)) == 1
    guests[1].write(second.name, "still", offset_mib=4)
    lab.libvirtd.kill()
    lab.libvirtd.start()
    wait_until(lambda: len(secrets(lab)) == 1, "the secret is made anew", seconds=60)
    orchestrator.detached(other)


def test_an_encrypted_volume_grows_behind_its_header(
    lab: Lab,
    orchestrator: Orchestrator,
    guests: list[Guest],
    make_luks: Callable[[], LoopVolume],
    keys: Path,
) -> None:
    volume, shared = make_luks(), shares_and_copies(lab)
    guests = guests[: 1 + shared]
    wishes = [wish(guest, volume, multiattach=shared, **by_file(keys)) for guest in guests]
    for wanted in wishes:
        orchestrator.attached(wanted)
    header_bytes = volume.size_bytes - guests[0].wait_for_disk(volume.volume_id).size_bytes
    volume.grow(80)
    answer = orchestrator.finish(orchestrator.client.extend(volume.volume_id, volume.size_bytes))
    assert answer.state == "done", answer
    assert isinstance(answer.result, list)
    seen = volume.size_bytes - header_bytes
    assert [row["guest_size_bytes"] for row in answer.result] == [seen for _ in guests]

    def is_seen(guest: Guest) -> bool:
        return guest.wait_for_disk(volume.volume_id).size_bytes == seen

    for guest in guests:
        wait_until(lambda guest=guest: is_seen(guest), "the guest sees the new size", seconds=20)
    last_mib = (seen >> 20) - 1
    first, last = (guest.wait_for_disk(volume.volume_id).name for guest in (guests[0], guests[-1]))
    guests[0].write(first, "behind", offset_mib=last_mib)
    assert guests[-1].read(last, offset_mib=last_mib) == "behind"
    assert block_of("behind")[:64] not in Path(volume.path).read_bytes()
    for wanted in wishes:
        orchestrator.detached(wanted)


def test_a_wrong_passphrase_opens_nothing(
    orchestrator: Orchestrator,
    guests: list[Guest],
    make_luks: Callable[[], LoopVolume],
    keys: Path,
) -> None:
    wanted = wish(guests[2], make_luks(), **by_file(keys, "wrong"))
    assert undone(orchestrator, wanted) == "auth-failed"
    luks2 = {"encryption": {"format": "luks2", "secret_file": str(keys / "right")}}
    assert undone(orchestrator, {**wanted, **luks2}) == "unsupported"


def test_what_is_not_encrypted_is_neither_plugged_nor_formatted(
    orchestrator: Orchestrator, guests: list[Guest], volume: LoopVolume, keys: Path
) -> None:
    wanted = wish(guests[2], volume, **by_file(keys))
    assert undone(orchestrator, wanted) == "not-encrypted"
    assert not any(volume.read(length_bytes=1 << 20))
    [row] = orchestrator.client.list_quarantine()
    assert row["volume_id"] == volume.volume_id
    orchestrator.client.release_quarantine(volume.volume_id)


def command_lines() -> Iterator[bytes]:
    """Of every process of this machine."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has just ended
            yield path.read_bytes()


def test_no_key_is_found_anywhere(
    lab: Lab,
    agent: AgentProcess,
    orchestrator: Orchestrator,
    guests: list[Guest],
    make_luks: Callable[[], LoopVolume],
    listener: Listener,
) -> None:
    """In logs with debug on, process arguments, answers; in the journal once all has ended."""
    wanted = wish(guests[3], make_luks(), encryption={"format": "luks", "passphrase": PASSPHRASE})
    wanted["connection_info"]["data"]["auth_password"] = CHAP_PASSWORD
    answers = [orchestrator.attach(wanted)]
    assert answers[0].state == "done"
    shown = [
        *command_lines(),
        repr(orchestrator.client.list_attachments()).encode(),
        *(xml.encode() for xml in halves(guests[3])),
    ]
    journals = [path.read_bytes() for path in agent.state_path.rglob("*") if path.is_file()]
    assert not [part for part in journals if PASSPHRASE.encode() in part]

    wrong_key = {"format": "luks", "passphrase": PASSPHRASE[1:]}
    answers.append(orchestrator.attach(wish(guests[2], make_luks(), encryption=wrong_key)))
    assert answers[1].error is not None
    assert answers[1].error.code == "auth-failed"
    letters = [
        listener.wait_for(answers[0], "attachment.attach.end"),
        listener.wait_for(answers[1], "attachment.attach.error"),
    ]
    orchestrator.detached(wanted)
    agent.stop()
    shown += [
        agent.log_file.read_bytes(),
        agent.output_file.read_bytes(),
        repr([answer.wire() for answer in answers]).encode(),
        repr(letters).encode(),
        *(path.read_bytes() for path in agent.state_path.rglob("*") if path.is_file()),
        *(path.read_bytes() for path in lab.libvirtd.directory.rglob("*") if path.is_file()),
    ]
    agent.start()
    agent.wait_connected()
    for canary in (PASSPHRASE[1:], CHAP_PASSWORD):
        assert not [part[:80] for part in shown if canary.encode() in part]
    assert wanted["attachment_id"].encode() in agent.log_file.read_bytes(), "it wrote of it"


def test_a_disk_goes_over_to_what_is_encrypted_and_back(
    lab: Lab,
    orchestrator: Orchestrator,
    guests: list[Guest],
    make_luks: Callable[[], LoopVolume],
    make_volume: MakeVolume,
    keys: Path,
) -> None:
    """Plain to LUKS, to another LUKS volume with a key of its own, and to plain."""
    guest, plain = guests[0], make_volume(size_mib=60)
    wanted = wish(guest, plain)
    orchestrator.attached(wanted)
    disk = guest.wait_for_disk(plain.volume_id).name
    guest.write(disk, "hello", offset_mib=5)
    end, first = make_volume(size_mib=60), make_luks()
    other = encrypted(make_volume(), make_header(lab, keys / "wrong"))
    refused = orchestrator.swap(wanted, wish(guest, other, **by_file(keys)))
    why = "auth-failed" if shares_and_copies(lab) else "unsupported"
    assert (refused.state, refused.error and refused.error.code) == ("undone", why)
    if not shares_and_copies(lab):
        orchestrator.detached(wanted)
        return
    with_other_key = {"format": "luks", "passphrase": (keys / "wrong").read_text()}
    for volume, encryption in (
        (first, by_file(keys)),
        (other, {"encryption": with_other_key}),
        (end, {}),
    ):
        new = wish(guest, volume, **encryption)
        answer = orchestrator.swap(wanted, new)
        assert answer.state == "done", answer
        assert guest.read(disk, offset_mib=5) == "hello"
        is_readable = block_of("hello")[:64] in Path(volume.path).read_bytes()
        assert is_readable == (volume is end)
        assert len(secrets(lab)) == (volume is not end)
        for xml in halves(guest):
            (found,) = [one for one in parse_domain(xml).disks if one.alias]
            assert (found.luks_secret is None) == (volume is end)
        wanted = new
    orchestrator.detached(wanted)
