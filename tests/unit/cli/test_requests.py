"""A request out of files and flags: right in full, or nothing is sent."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agent.cli.arguments import parse
from agent.cli.requests import (
    attach_request,
    detach_request,
    extend_request,
    iotune_request,
    read_structure,
    swap_request,
)
from agent.cli.trouble import Exit, Trouble
from agent.journal.store import Journal
from agent.model.request import AttachRequest, DetachRequest, ExtendRequest, SetIotuneRequest
from agent.model.swap import SwapRequest
from tests.samples import INSTANCES, VOLUMES, attachment_payload, local
from tests.unit.cli.conftest import NOW, PASSWORD, Attachctl, PlayedAgent

SAMPLES = Path(__file__).parent / "samples"
MOMENT = datetime.fromtimestamp(NOW, UTC)


def written(directory: Path, value: object, name: str = "request.json") -> str:
    file = directory / name
    file.write_text(value if isinstance(value, str) else json.dumps(value))
    return str(file)


def attach(*words: str) -> dict[str, Any]:
    return attach_request(parse(["attach", *words]), MOMENT)


def detach(*words: str) -> dict[str, Any]:
    return detach_request(parse(["detach", *words]), MOMENT, lambda _: None)


def test_flags_alone_are_a_whole_request(tmp_path: Path) -> None:
    request = attach(
        *("--attachment-id", "att-1", "--instance", INSTANCES[0], "--volume", VOLUMES[0]),
        *("--connection-info", written(tmp_path, local()), "--multiattach", "--read-only"),
        *("--bus", "scsi", "--type", "lun", "--target-dev", "sdc", "--generation", "4"),
        *("--deadline", "60"),
    )
    parsed = AttachRequest.parse(request)
    assert parsed.deadline_seconds == 60
    assert parsed.attachment.generation == 4
    assert parsed.attachment.multiattach
    assert parsed.attachment.read_only
    disk = parsed.attachment.disk
    assert (disk.bus, disk.type, disk.target_dev) == ("scsi", "lun", "sdc")


def test_the_envelope_is_made_where_nobody_gives_it(tmp_path: Path) -> None:
    file = written(tmp_path, attachment_payload())
    first, second = attach("-f", file), attach("-f", file)
    assert first["request_id"] != second["request_id"]
    assert datetime.fromisoformat(first["not_after"]) > MOMENT


def test_an_envelope_in_the_file_is_kept(tmp_path: Path) -> None:
    envelope = {
        "request_id": "6f1ed002-ab5e-4d59-8c8f-aa1f5d0b7c10",
        "not_after": "2026-12-01T00:00:00Z",
    }
    file = written(tmp_path, {**envelope, "attachment": attachment_payload()})
    request = attach("-f", file)
    assert {name: request[name] for name in envelope} == envelope
    assert request["attachment"] == attachment_payload()


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    payload = attachment_payload(disk={"bus": "virtio", "cache": "directsync"})
    request = attach("-f", written(tmp_path, payload), "--instance", INSTANCES[1], "--bus", "scsi")
    assert request["attachment"]["instance_id"] == INSTANCES[1]
    assert request["attachment"]["disk"] == {"bus": "scsi", "cache": "directsync"}


def test_the_volume_services_answer_is_taken_as_it_is(tmp_path: Path) -> None:
    answer = {
        "attachment": {
            "id": "c206d379-a187-44ba-9231-0e2a539bffcc",
            "instance": INSTANCES[0],
            "volume_id": VOLUMES[0],
            "attach_mode": "rw",
            "connection_info": {
                "driver_volume_type": "iscsi",
                "target_portal": "192.0.2.1:3260",
                "target_iqn": "iqn.2010-10.org.openstack:volume-1",
                "target_lun": 2,
            },
        }
    }
    file = written(tmp_path, answer)
    request = attach("--from-cinder", file, "--attachment-id", "att-7", "--instance", INSTANCES[1])
    assert request["attachment"]["connection_info"]["data"]["target_lun"] == 2
    assert request["attachment"]["attachment_id"] == "att-7"
    assert request["attachment"]["volume_id"] == VOLUMES[0]


def test_the_file_of_the_attach_detaches_too(tmp_path: Path) -> None:
    attached = {"request_id": "6f1ed002-ab5e-4d59-8c8f-aa1f5d0b7c10"}
    for file in (
        written(tmp_path, attachment_payload(generation=3)),
        written(tmp_path, {**attached, "attachment": attachment_payload(generation=3)}),
    ):
        parsed = DetachRequest.parse(detach("-f", file))
        assert (parsed.attachment_id, parsed.instance_id) == ("att-1", INSTANCES[0])
        assert parsed.generation == 3
        assert parsed.attachment is not None
        assert parsed.request_id != attached["request_id"], "that one was the attach"


def test_a_detach_request_in_a_file_is_sent_as_it_is(tmp_path: Path) -> None:
    whole = {
        "request_id": "6f1ed002-ab5e-4d59-8c8f-aa1f5d0b7c10",
        "not_after": "2026-12-01T00:00:00Z",
        "attachment_id": "att-1",
        "instance_id": INSTANCES[0],
    }
    assert detach("-f", written(tmp_path, whole)) == whole


def test_an_extend_names_a_volume_and_its_size(tmp_path: Path) -> None:
    words = ["extend", VOLUMES[0], "2147483648", "--deadline", "60"]
    parsed = ExtendRequest.parse(extend_request(parse(words), MOMENT))
    assert (parsed.volume_id, parsed.size_bytes) == (VOLUMES[0], 2 << 30)
    assert (parsed.deadline_seconds, parsed.connection) == (60, None)
    words += ["--connection-info", written(tmp_path, local("/dev/loop3"))]
    parsed = ExtendRequest.parse(extend_request(parse(words), MOMENT))
    assert parsed.connection is not None
    assert parsed.connection.known_source == "/dev/loop3"


def test_a_size_that_is_none_is_not_sent() -> None:
    with pytest.raises(Trouble, match="size_bytes"):
        extend_request(parse(["extend", VOLUMES[0], "1000"]), MOMENT)


def limits(*words: str) -> SetIotuneRequest:
    row = {"attachment_id": "att-1", "instance_id": INSTANCES[0], "generation": 3}
    flags = parse(["set-iotune", "att-1", *words])
    return SetIotuneRequest.parse(iotune_request(flags, MOMENT, lambda _: row))


def test_limits_are_words_and_the_generation_is_the_agents() -> None:
    parsed = limits("total_iops_sec=500", "group_name=db")
    assert parsed.iotune.limits() == {"total_iops_sec": 500, "group_name": "db"}
    assert (parsed.attachment_id, parsed.generation) == ("att-1", 3)
    assert limits("--unlimited", "--generation", "4").generation == 4
    assert limits("--unlimited").iotune.limits() == {}


@pytest.mark.parametrize("words", [[], ["total_iops_sec=5", "--unlimited"], ["total_iops_sec=x"]])
def test_limits_are_given_or_none(words: list[str]) -> None:
    with pytest.raises(Trouble, match="nothing was sent"):
        limits(*words)


def test_an_instance_that_is_named_is_not_asked_for() -> None:
    flags = parse(["detach", "att-1", "--instance", INSTANCES[0]])
    request = detach_request(flags, MOMENT, lambda _: pytest.fail("asked for what is known"))
    assert (request["attachment_id"], request["instance_id"]) == ("att-1", INSTANCES[0])


def test_yaml_means_what_json_would() -> None:
    values = read_structure(str(SAMPLES / "attachment.yaml"))
    assert values["connection_info"]["data"]["target_lun"] == 0
    assert values["multiattach"] is True


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2026-11-25T03:06:40Z", "2026-11-25T03:06:40Z"),
        ("yes", "yes"),
        ("0123", "0123"),
        ("12:30:45", "12:30:45"),
        ("0x5000", "0x5000"),
        ("true", True),
        ("12", 12),
        ("-1", -1),
        ("1.5", 1.5),
        ("null", None),
        ('"12"', "12"),
    ],
)
def test_yaml_has_the_types_of_json_only(text: str, value: object, tmp_path: Path) -> None:
    found = read_structure(written(tmp_path, f"value: {text}", "request.yaml"))["value"]
    assert (type(found), found) == (type(value), value)


WRONG = {
    "no file": ("/nowhere/request.json", "cannot be read: No such file"),
    "broken": ("{[", "neither JSON nor YAML"),
    "list": ("[1, 2]", "one object with named fields"),
    "text": ("attach it please", "one object with named fields"),
    "empty": ("", "one object with named fields"),
    "unknown field": (attachment_payload(volumeid="x"), "attachment.volumeid"),
    "flat": (
        {"connection_info": {"driver_volume_type": "rbd", "name": "a/b"}},
        "flat form",
    ),
    "envelope": (
        {"attachment": attachment_payload(), "deadlines_seconds": 5},
        "deadlines_seconds: Extra inputs",
    ),
    "attachment": ({"attachment": "att-1"}, "attachment must be an object"),
    "policy": (
        attachment_payload(disk={"bus": "virtio", "type": "lun"}),
        "type lun needs bus scsi",
    ),
    "generation": (attachment_payload(generation="3"), "attachment.generation"),
    "control": ("a: \x07", "neither JSON nor YAML"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_request_is_refused_before_anything_is_sent(
    case: str, attachctl: Attachctl, journal: Journal, tmp_path: Path
) -> None:
    content, reason = WRONG[case]
    is_path = isinstance(content, str) and content.startswith("/")
    file = content if is_path else written(tmp_path, content)
    agent = PlayedAgent(journal)
    ran = attachctl("attach", "-f", file, agent=agent)
    assert (ran.code, ran.out, agent.sent) == (Exit.USAGE, "", [])
    assert reason in ran.err
    assert "nothing was sent" in ran.err


def test_a_refusal_never_repeats_what_a_file_holds(tmp_path: Path) -> None:
    payload = attachment_payload()
    payload["connection_info"]["data"]["device_path"] = {"auth_password": PASSWORD}
    broken = f"data:\n  auth_password: {PASSWORD}\n bad indent: [\n"
    for content in (payload, broken):
        with pytest.raises(Trouble) as caught:
            attach("-f", written(tmp_path, content))
        assert PASSWORD not in caught.value.detail


def test_a_flat_connection_info_is_shown_the_right_flag(tmp_path: Path) -> None:
    flat = {"driver_volume_type": "rbd", "name": "volumes/volume-1"}
    with pytest.raises(Trouble, match="--from-cinder"):
        attach("--connection-info", written(tmp_path, flat))


def swap(*words: str) -> SwapRequest:
    row = {"attachment_id": "old-1", "instance_id": INSTANCES[0], "generation": 3}
    return SwapRequest.parse(swap_request(parse(["swap", "old-1", *words]), MOMENT, lambda _: row))


def test_a_swap_knows_the_attachment_in_place_from_the_agent(tmp_path: Path) -> None:
    file = written(tmp_path, local())
    parsed = swap(
        *("--attachment-id", "att-2", "--volume", VOLUMES[1], "--connection-info", file),
        *("--bandwidth", "1000", "--synchronous-writes", "--generation", "7", "--sole-user"),
    )
    assert (parsed.attachment_id, parsed.generation) == ("old-1", 3)
    assert (parsed.new.attachment_id, parsed.new.generation) == ("att-2", 7)
    assert parsed.new.instance_id == INSTANCES[0]
    assert parsed.bandwidth_bytes_per_second == 1000
    assert parsed.synchronous_writes
    assert parsed.sole_user


@pytest.mark.parametrize("is_whole", [True, False])
def test_a_swap_from_a_file(tmp_path: Path, is_whole: bool) -> None:
    """A request, or the new attachment alone."""
    new = attachment_payload(attachment_id="att-2", volume_id=VOLUMES[1])
    parsed = swap("-f", written(tmp_path, {"new": new, "sole_user": True} if is_whole else new))
    assert parsed.new.attachment_id == "att-2"
    assert parsed.sole_user == is_whole


def test_a_swap_to_itself_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Trouble, match="attachment_id"):
        swap("-f", written(tmp_path, attachment_payload(attachment_id="old-1")))
