"""What another service keeps of its attachments becomes entries of an import."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from agent.cli.imports import entries_of
from agent.cli.trouble import Exit, Trouble
from agent.model.imports import ImportEntry
from tests.unit.cli.conftest import Attachctl, PlayedAgent

SAMPLES = Path(__file__).with_name("samples")
INFO = {
    "driver_volume_type": "iscsi",
    "data": {"target_portal": "192.0.2.10:3260", "target_iqn": "iqn.2010-10.x:v", "target_lun": 3},
}
IDS = {
    "attachment_id": "3b1f0c9e-52a4-4c7d-9a55-0d8f6f1f2a01",
    "instance_id": "efe8bba0-543c-4a3f-9f9b-93b15261973f",
    "volume_id": "457b1507-2a57-481c-936b-79297ffddb5a",
}
OURS = {**IDS, "connection_info": INFO, "multiattach": True}
CINDERS = {
    "attachment": {
        "id": IDS["attachment_id"],
        "instance": IDS["instance_id"],
        "volume_id": IDS["volume_id"],
        "connection_info": {
            "driver_volume_type": "iscsi",
            **INFO["data"],  # type: ignore[dict-item]
            "attachment_id": IDS["attachment_id"],
            "encrypted": False,
        },
    },
    "multiattach": True,
}
KEPT = {**INFO, "serial": IDS["volume_id"], "multiattach": True, "attached_at": "2026-01-01"}
NOVAS = {
    "instance_uuid": IDS["instance_id"],
    "attachment_id": IDS["attachment_id"],
    "volume_id": IDS["volume_id"],
    "connection_info": json.dumps(KEPT),
    "multiattach": True,
    "device_name": "/dev/vdb",
}


def plain(entry: dict[str, Any]) -> dict[str, Any]:
    """Without what is not told in every form."""
    data = entry["attachment"]["connection_info"]["data"]
    data.pop("encrypted", None)
    return entry


@pytest.mark.parametrize(
    "item",
    [
        {"attachment": OURS},
        OURS,
        CINDERS,
        NOVAS,
        {**NOVAS, "connection_info": KEPT},
    ],
    ids=["entry", "attachment", "volume service", "compute service", "with an object"],
)
def test_every_form_says_the_same(item: dict[str, Any]) -> None:
    before = copy.deepcopy(item)
    for document in ([item], {"entries": [item]}):
        [entry] = entries_of(document, "file")
        assert plain(entry) == {"attachment": OURS}
        assert ImportEntry.parse(entry)
    assert item == before


@pytest.mark.parametrize("item", [OURS, CINDERS, NOVAS])
def test_a_serial_of_their_own_stands_beside(item: dict[str, Any]) -> None:
    [entry] = entries_of([{**item, "serial": "own"}], "file")
    assert entry["serial"] == "own"
    assert "serial" not in entry["attachment"]


def test_a_row_without_an_id_has_none() -> None:
    [entry] = entries_of([{**NOVAS, "attachment_id": None}], "file")
    assert "attachment_id" not in entry["attachment"]


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({}, "must hold a list"),
        ("x", "must hold a list"),
        ([OURS, 5], "entry 1: must be an object"),
        ([{**NOVAS, "connection_info": "{"}], "entry 0: connection_info: is text, and not JSON"),
        ([{**NOVAS, "connection_info": None}], "entry 0: connection_info: must be an object"),
        ([{"attachment": {"id": "x"}}], "entry 0: there is no connection_info"),
    ],
)
def test_what_is_none_of_them_is_named(document: object, says: str) -> None:
    with pytest.raises(Trouble) as refused:
        entries_of(document, "file")
    assert refused.value.exit_code == Exit.USAGE
    assert says in refused.value.detail
    assert "target_iqn" not in refused.value.detail, "what was sent is not shown"


def test_it_is_asked_by_the_batch_and_done_only_where_that_is_said(
    attachctl: Attachctl, journal: Any, tmp_path: Path
) -> None:
    file = tmp_path / "many.json"
    file.write_text(json.dumps([OURS] * 40))
    for words, is_dry_run in (
        (("import", str(file)), True),
        (("import", str(file), "--apply"), False),
    ):
        agent = PlayedAgent(journal)
        ran = attachctl(*words, "--json", agent=agent)
        assert [(len(entries), dry) for _, (entries, dry) in agent.sent] == [
            (16, is_dry_run),
            (16, is_dry_run),
            (8, is_dry_run),
        ]
        assert len(json.loads(ran.out)["entries"]) == 40
