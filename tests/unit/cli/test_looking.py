"""What attachctl shows, as files to read: tests/unit/cli/golden/*.txt.

``pytest --rewrite-golden`` writes them anew; read the diff.
"""

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.cli.screen import Screen
from agent.errors import SharingConflict
from agent.journal.store import Journal
from agent.model.outcome import Answer, refused
from tests.unit.cli.conftest import (
    ATTACH_STEPS,
    ATTACHMENTS,
    HOST,
    INSTANCES,
    PARKED,
    PASSWORD,
    PATH,
    UNDONE,
    VOLUME,
    AbsentAgent,
    Attachctl,
    PlayedAgent,
    Ran,
    waiting,
)

GOLDEN = Path(__file__).parent / "golden"
SAMPLES = Path(__file__).parent / "samples"


@pytest.fixture(autouse=True)
def _beside_the_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(SAMPLES)


AUDITED = {
    "attachments": [
        {
            "attachment_id": attachment_id,
            "instance_id": instance_id,
            "volume_id": VOLUME,
            "live": live,
            "persistent": True,
            "device": PATH,
            "device_present": True,
        }
        for attachment_id, instance_id, live in zip(
            ATTACHMENTS, INSTANCES, (True, False), strict=True
        )
    ],
    "findings": [
        {
            "kind": "half-missing",
            "attachment_id": ATTACHMENTS[1],
            "instance_id": INSTANCES[1],
            "detail": "the disk is missing in the running guest",
            "advice": "attach again with the same attachment: the missing half is completed",
        }
    ],
}
DISK_XML = """\
<disk type="block" device="disk">
  <driver name="qemu" type="raw" cache="none" error_policy="report"/>
  <source dev="/dev/disk/by-id/known-after-connect"/>
  <backingStore/>
  <target dev="vdb" bus="virtio"/>
  <shareable/>
  <serial>457b1507-2a57-481c-936b-79297ffddb5a</serial>
  <alias name="ua-3b1f0c9e-52a4-4c7d-9a55-0d8f6f1f2a01"/>
  <address type="pci" domain="0x0000" bus="0x05" slot="0x00" function="0x0"/>
</disk>
"""
PLANNED = {
    "verb": "attach",
    "steps": list(ATTACH_STEPS),
    "commit": "plug-disk",
    "disks": [{"attachment_id": ATTACHMENTS[0], "controller_xml": None, "disk_xml": DISK_XML}],
    "refusal": None,
}
LOCKS = [
    {
        "name": f"volume:{VOLUME}",
        "holder": f"attach {UNDONE} (pid 812)",
        "since": "2026-11-25T03:06:00.000Z",
        "waiters": [{"who": f"detach {PARKED}", "since": "2026-11-25T03:06:20.000Z"}],
    },
    {
        "name": "os-brick-connect_volume",
        "holder": "nova-compute (pid 4711)",
        "since": None,
        "waiters": [{"who": f"attach {UNDONE}", "since": "2026-11-25T03:06:00.000Z"}],
    },
]

CASES: dict[str, tuple[str, ...]] = {
    "list": ("list",),
    "list-wide": ("--wide", "list"),
    "list-of-nobody": ("list", "--instance", "11111111-1111-4111-8111-111111111111"),
    "show-attachment": ("show", ATTACHMENTS[0]),
    "show-attachment-leaving": ("show", ATTACHMENTS[1]),
    "show-operation": ("show", PARKED),
    "show-operation-by-its-beginning": ("show", "6f1ed7"),
    "show-nothing": ("show", "nobody"),
    "operations": ("operations",),
    "operations-all": ("operations", "list", "--all"),
    "operations-undone": ("operations", "--state", "undone"),
    "quarantine": ("quarantine",),
    "quarantine-release": ("quarantine", "release", "vol-left"),
    "quarantine-release-unknown": ("quarantine", "release", "vol-other"),
    "audit": ("audit",),
    "locks": ("locks",),
    "describe": ("describe",),
    "connector": ("connector",),
    "instance": ("instance", INSTANCES[0]),
    "instance-unknown": ("instance", "11111111-1111-4111-8111-111111111111"),
    "plan": ("plan", "attach", "--file", "attachment.yaml", "--bus", "virtio"),
    "import": ("import", "import.json"),
}


def running(current: str) -> Answer:
    """An attach at one of its steps."""
    done = ATTACH_STEPS.index(current)
    states = ["done"] * done + ["intended"] + ["planned"] * (len(ATTACH_STEPS) - done - 1)
    steps = [
        {"name": name, "state": state} for name, state in zip(ATTACH_STEPS, states, strict=True)
    ]
    return waiting("attach", state="running", waiting_for=None, steps=steps)


ATTACHED = {
    "device": {"path": PATH, "size_bytes": 10 << 30},
    "disk": {"target_dev": "vdb", "live": True, "persistent": True},
}
CONFLICT = SharingConflict(
    f"instance {INSTANCES[1]} on this host uses volume {VOLUME} by attachment {ATTACHMENTS[1]}, "
    "and both must say multiattach to share it; nothing was touched"
)
LEFT = "abandoned by the operator at step disconnect-volume"

SCRIPTS: dict[str, tuple[Answer, ...]] = {
    "attach": (
        waiting("attach", state="accepted", waiting_for=None),
        running("connect-volume"),
        running("plug-disk"),
        waiting("attach", state="done", waiting_for=None, result=ATTACHED),
    ),
    "attach-refused": (refused("attach", PARKED, CONFLICT),),
    "detach-parked": (waiting(), waiting()),
    "operations-abandon": (
        waiting(
            state="done",
            waiting_for=None,
            warnings=(LEFT,),
            error={
                "code": "connect-failed",
                "retriable": True,
                "detail": "/dev/dm-3 is held by dm-9 on this host",
            },
            result={"disconnected": False, "awaiting_unmap": False, "instance_present": True},
        ),
    ),
}
CASES |= {
    "attach": ("attach", "--file", "attachment.yaml"),
    "attach-refused": ("attach", "--file", "attachment.yaml"),
    "attach-wrong": ("attach", "--file", "attachment.yaml", "--bus", "virtio", "--type", "lun"),
    "detach-parked": ("detach", ATTACHMENTS[1], "--wait", "0.000001"),
    "operations-abandon": ("operations", "abandon", PARKED),
}


def played(journal: Journal, case: str) -> PlayedAgent:
    script = SCRIPTS.get(case, ())
    return PlayedAgent(journal, script, audit_answer=AUDITED, plan_answer=PLANNED, locks=LOCKS)


@pytest.mark.parametrize("case", CASES)
def test_what_people_see(
    case: str, attachctl: Attachctl, journal: Journal, request: pytest.FixtureRequest
) -> None:
    words = CASES[case]
    ran = attachctl(*words, agent=played(journal, case))
    compare(case, words, ran, request)
    assert "\x1b" not in ran.seen, "no colour where nobody sees it"
    if "--wide" not in words:
        assert max(len(line) for line in ran.out.splitlines() or [""]) <= 80


def test_what_people_see_of_a_journal(
    attachctl: Attachctl, journal: Journal, request: pytest.FixtureRequest, state_path: Path
) -> None:
    ran = attachctl("list", agent=AbsentAgent())
    seen = ran.seen.replace(str(state_path), "/var/lib/attachment-agent")
    compare("list-from-the-journal", ("list",), replace(ran, seen=seen), request)


def compare(case: str, words: Sequence[str], ran: Ran, request: pytest.FixtureRequest) -> None:
    shown = f"$ attachctl {' '.join(words)}\n{ran.seen}exit code {ran.code}\n"
    golden = GOLDEN / f"{case}.txt"
    if request.config.getoption("--rewrite-golden"):
        golden.write_text(shown)
    assert shown == golden.read_text()


def test_every_golden_file_belongs_to_a_case() -> None:
    named = {file.stem for file in GOLDEN.glob("*.txt")}
    assert named == {*CASES, "list-from-the-journal"}


@pytest.mark.parametrize("case", CASES)
def test_json_is_all_that_programs_see(case: str, attachctl: Attachctl, journal: Journal) -> None:
    ran = attachctl(*CASES[case], "--json", agent=played(journal, case))
    value: dict[str, Any] = json.loads(ran.out)
    assert all(line.startswith(("note: ", "  ")) for line in ran.err.splitlines())
    if set(value) == {"error"}:
        assert set(value["error"]) == {"code", "retriable", "detail"}
        assert ran.code != 0
    else:
        assert (value["host"], value["source"]) == (HOST, "agent")


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("form", ["--json", "--wide"])
def test_no_password_is_ever_shown(
    case: str, form: str, attachctl: Attachctl, journal: Journal
) -> None:
    ran = attachctl(form, *CASES[case], agent=played(journal, case))
    assert PASSWORD not in ran.out + ran.err


def test_ids_are_cut_only_as_far_as_they_differ(attachctl: Attachctl, journal: Journal) -> None:
    ran = attachctl("list", agent=PlayedAgent(journal))
    for attachment_id in ATTACHMENTS:
        assert attachment_id[:8] in ran.out
        assert attachment_id not in ran.out
    twins = [ATTACHMENTS[0], ATTACHMENTS[0][:19] + "ffff-0d8f6f1f2a01"]
    screen = Screen(io.StringIO(), io.StringIO())
    assert [screen.short(twins)(one) for one in twins] == [one[:20] for one in twins]
    assert screen.short(["database-01"])("database-01") == "database-01", "too little to cut off"


@pytest.mark.parametrize("at_once", [1, 500])
def test_a_beginning_that_may_mean_several_is_refused_with_all_of_them(
    attachctl: Attachctl, journal: Journal, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr("agent.service.queries.OPERATIONS_AT_ONCE", at_once)
    ran = attachctl("show", "6f1ed", agent=PlayedAgent(journal))
    assert (ran.code, ran.out) == (1, "")
    assert PARKED in ran.err
    assert UNDONE in ran.err


class NewerAgent(PlayedAgent):
    """It tells more of how far an operation is than this attachctl knows."""

    def list_operations(
        self, *, limit: int | None = None, before: str | None = None, **filters: Any
    ) -> list[dict[str, Any]]:
        rows = super().list_operations(limit=limit, before=before, **filters)
        progress = {"done": 1, "total": 4, "unit": "bytes", "mood": "good"}
        return [{**row, "progress": progress, "colour": "green"} for row in rows]


def test_what_a_newer_agent_tells_beside_is_left_out(
    attachctl: Attachctl, journal: Journal
) -> None:
    ran = attachctl("show", PARKED, agent=NewerAgent(journal))
    assert ran.code == 0
    assert "25 %" in ran.out
