"""attach and detach stay with the operation they begin, and say how it goes on without them."""

import io
import json
from pathlib import Path

import pytest

from agent.bus.client import Unreachable
from agent.cli.follow import LOOK_SECONDS, bar, phase
from agent.cli.screen import Screen
from agent.errors import Busy
from agent.journal.store import Journal
from agent.model.outcome import Answer, Problem, Progress, StepState, refused
from tests.unit.cli.conftest import (
    ATTACHMENTS,
    INSTANCES,
    PARKED,
    UNDONE,
    Attachctl,
    PlayedAgent,
    waiting,
)

FILE = str(Path(__file__).parent / "samples" / "attachment.yaml")

STEPS = (
    StepState(name="connect-volume", state="intended"),
    StepState(name="plug-disk", state="planned"),
)
DISK = {
    "disk": {"target_dev": "vdb", "live": True, "address": {"type": "pci", "bus": "0x05"}},
    "device": {"size_bytes": 1 << 30},
}


def at(state: str, **different: object) -> Answer:
    return waiting("attach", **{"state": state, "waiting_for": None, **different})


def test_every_change_is_told_once_and_the_result_comes_alone_on_standard_output(
    attachctl: Attachctl, journal: Journal
) -> None:
    script = [at("accepted"), at("running", steps=STEPS), at("running", steps=STEPS)]
    agent = PlayedAgent(journal, [*script, at("done", result=DISK)])
    ran = attachctl("attach", "-f", FILE, agent=agent)
    assert ran.err.splitlines() == [
        "attach accepted",
        "attach running: connect-volume (1 of 2)",
    ]
    assert ran.out.splitlines() == [
        "attach done",
        f"  operation          {PARKED}",
        "  disk.target_dev    vdb",
        "  disk.live          yes",
        "  disk.address       type=pci bus=0x05",
        "  device.size_bytes  1073741824",
    ]
    assert ran.code == 0
    assert max(agent.waits_seconds) <= LOOK_SECONDS, "or what people see would be old"


def test_with_json_only_the_last_answer_is_printed(attachctl: Attachctl, journal: Journal) -> None:
    agent = PlayedAgent(journal, [at("accepted"), at("running"), at("done", result=DISK)])
    ran = attachctl("attach", "-f", FILE, "--json", agent=agent)
    assert json.loads(ran.out)["state"] == "done"
    assert json.loads(ran.out)["result"] == DISK
    assert ran.err == ""


@pytest.mark.parametrize(
    ("state", "code"), [("done", 0), ("undone", 1), ("cancelled", 1), ("expired", 1)]
)
def test_the_exit_code_says_how_it_ended(
    state: str, code: int, attachctl: Attachctl, journal: Journal
) -> None:
    agent = PlayedAgent(journal, [at("accepted"), at(state)])
    assert attachctl("attach", "-f", FILE, agent=agent).code == code


def test_a_refusal_shows_code_reason_and_whether_to_try_again(
    attachctl: Attachctl, journal: Journal
) -> None:
    agent = PlayedAgent(journal, [refused("attach", PARKED, Busy("another detach is open"))])
    ran = attachctl("attach", "-f", FILE, agent=agent)
    assert ran.code == 1
    assert "attach refused (busy: another detach is open)" in ran.out
    assert "the same request, sent again later, may succeed" in ran.out


def test_what_is_still_open_when_the_time_is_over_goes_on(
    attachctl: Attachctl, journal: Journal
) -> None:
    agent = PlayedAgent(journal, [waiting(), waiting()])
    ran = attachctl("detach", ATTACHMENTS[1], "--wait", "0.000001", agent=agent)
    assert ran.code == 3
    assert "detach waiting for the guest to release vdc" in ran.out
    assert f"detach {PARKED} goes on" in ran.err
    assert f"attachctl show {PARKED}" in ran.err
    assert "cancel" not in ran.err, "the guest was asked already"


def test_no_wait_asks_once_and_is_content(attachctl: Attachctl, journal: Journal) -> None:
    agent = PlayedAgent(journal, [at("accepted")])
    ran = attachctl("attach", "-f", FILE, "--no-wait", agent=agent)
    assert ran.code == 0
    assert [verb for verb, _ in agent.sent] == ["attach"]
    assert f"attachctl show {PARKED}" in ran.err


def test_an_unsettled_operation_is_told_with_its_trouble(
    attachctl: Attachctl, journal: Journal
) -> None:
    trouble = Problem(code="connect-failed", retriable=True, detail="sdc does not go away")
    unsettled = at("unsettled", error=trouble, waiting_for="another try of disconnect-volume")
    agent = PlayedAgent(journal, [at("accepted"), unsettled, at("done")])
    ran = attachctl("attach", "-f", FILE, agent=agent)
    assert (
        "attach unsettled, waiting for another try of disconnect-volume "
        "(connect-failed: sdc does not go away)"
    ) in ran.err


def test_ctrl_c_leaves_the_operation_running_and_says_how_to_look_at_it(
    attachctl: Attachctl, journal: Journal
) -> None:
    agent = PlayedAgent(journal, [at("running"), KeyboardInterrupt()])
    ran = attachctl("attach", "-f", FILE, agent=agent)
    assert (ran.code, ran.out) == (130, "")
    assert f"attach {PARKED} goes on" in ran.err
    assert f"attachctl operations cancel {PARKED}" in ran.err
    assert [verb for verb, _ in agent.sent] == ["attach"], "nothing was cancelled"


@pytest.mark.parametrize(
    ("error", "code"), [(KeyboardInterrupt(), 130), (Unreachable("the broker is away"), 4)]
)
def test_where_it_is_unknown_whether_a_request_arrived_its_id_is_told(
    error: BaseException, code: int, attachctl: Attachctl, journal: Journal
) -> None:
    agent = PlayedAgent(journal, [error])
    ran = attachctl("attach", "-f", FILE, agent=agent)
    request_id = agent.sent[0][1]["request_id"]
    assert ran.code == code
    assert f"attachctl show {request_id}" in ran.err


def test_a_broker_that_restarts_meanwhile_is_waited_for(
    attachctl: Attachctl, journal: Journal
) -> None:
    away = Unreachable("the broker is away")
    agent = PlayedAgent(journal, [at("running"), away, away, at("done", result=DISK)])
    ran = attachctl("attach", "-f", FILE, agent=agent)
    assert ran.code == 0
    assert ran.err.count("no answer from the agent at present") == 1


def test_a_broker_that_stays_away_does_not_hide_the_operation(
    attachctl: Attachctl, journal: Journal
) -> None:
    agent = PlayedAgent(journal, [at("running"), *[Unreachable("the broker is away")] * 100_000])
    ran = attachctl("attach", "-f", FILE, "--wait", "0.01", agent=agent)
    assert ran.code == 4
    assert f"attachctl show {PARKED}" in ran.err
    assert "the broker is away" in ran.err


@pytest.mark.parametrize(("end", "code"), [("done", 0), ("undone", 1)])
def test_who_comes_later_waits_as_well(
    attachctl: Attachctl, journal: Journal, end: str, code: int
) -> None:
    agent = PlayedAgent(journal, [at("running"), at("running"), at(end)])
    ran = attachctl("operations", "wait", PARKED, agent=agent)
    assert (ran.code, agent.sent) == (code, [])
    assert f"attach {end}" in ran.out


def test_who_comes_later_and_does_not_wait_is_not_told_that_it_is_done(
    attachctl: Attachctl, journal: Journal
) -> None:
    """A script would take the volume from under the guest."""
    agent = PlayedAgent(journal, [at("running")])
    ran = attachctl("operations", "wait", PARKED, "--wait", "0", agent=agent)
    assert ran.code == 3
    assert f"attachctl show {PARKED}" in ran.err


def test_however_short_it_stays_it_looks_once_more(attachctl: Attachctl, journal: Journal) -> None:
    agent = PlayedAgent(journal, [at("running"), at("done")])
    ran = attachctl("attach", "-f", FILE, "--wait", "1e-9", agent=agent)
    assert ran.code == 0


def test_a_cancel_stays_until_it_is_taken_up(attachctl: Attachctl, journal: Journal) -> None:
    agent = PlayedAgent(journal, [at("running"), at("cancelled")])
    ran = attachctl("operations", "cancel", PARKED, agent=agent)
    assert agent.sent == [("cancel", PARKED)]
    assert ran.code == 0


def test_a_cancel_that_came_too_late_is_no_success(attachctl: Attachctl, journal: Journal) -> None:
    agent = PlayedAgent(journal, [at("running"), at("done")])
    assert attachctl("operations", "cancel", PARKED, agent=agent).code == 1


def test_abandon_says_what_was_left(attachctl: Attachctl, journal: Journal) -> None:
    left = "abandoned by the operator at step disconnect-volume"
    agent = PlayedAgent(journal, [at("undone", warnings=(left,))])
    ran = attachctl("operations", "abandon", UNDONE, agent=agent)
    assert agent.sent == [("abandon", UNDONE)]
    assert ran.code == 0
    assert left in ran.out


def test_a_detach_by_its_id_alone_asks_for_instance_and_generation(
    attachctl: Attachctl, journal: Journal
) -> None:
    agent = PlayedAgent(journal, [at("done")])
    attachctl("detach", ATTACHMENTS[0], agent=agent)
    ((verb, request),) = agent.sent
    assert (verb, request["instance_id"], request["generation"]) == ("detach", INSTANCES[0], 3)


def test_a_detach_of_what_the_agent_does_not_have_needs_the_instance(
    attachctl: Attachctl, journal: Journal
) -> None:
    agent = PlayedAgent(journal)
    ran = attachctl("detach", "nobody", agent=agent)
    assert (ran.code, agent.sent) == (2, [])
    assert "attachment nobody is not on this host" in ran.err
    assert "--instance" in ran.err


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


COPY = Progress(done=3 << 30, total=12 << 30, unit="bytes", rate=float(1 << 20), eta_seconds=9216)


def test_how_far_it_is_moves_on_a_terminal_and_is_no_line_of_a_log() -> None:
    out, terminal, log = io.StringIO(), Terminal(), io.StringIO()
    copying = at("waiting", waiting_for="the copy", progress=COPY)
    for stream in (terminal, log):
        with Screen(out, stream).progress() as tell:
            for answer in (copying, copying):
                tell(phase(answer), bar(COPY))
    assert log.getvalue() == "attach waiting for the copy\n"
    assert "[#####...............] 25 %, 3.0 GiB of 12.0 GiB, 1.0 MiB/s, 2:33:36 left a" in (
        terminal.getvalue()
    )


def test_who_does_not_stay_is_told_how_far_it_is(attachctl: Attachctl, journal: Journal) -> None:
    agent = PlayedAgent(journal, [at("waiting", waiting_for="the copy", progress=COPY)])
    ran = attachctl("attach", "-f", FILE, "--no-wait", agent=agent)
    assert "  progress   [#####...............] 25 %" in ran.out
