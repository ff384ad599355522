"""The truth table over both hosts: every row of it, and nothing else is there."""

from itertools import product

import pytest

from agent.guest.whereabouts import Where, whereabouts
from agent.ports import DomainLook, DomainState, Sighting


def guest(state: DomainState, *, is_back: bool = False) -> DomainLook:
    return DomainLook(
        instance_id="i",
        name="guest",
        state=state,
        live_xml=None if state == "shutoff" else "<domain/>",
        inactive_xml=None,
        is_back=is_back,
    )


HERE: dict[str, DomainLook | None] = {
    "nothing": None,
    "running": guest("running"),
    "back": guest("running", is_back=True),
    "paused": guest("paused"),
    "shutoff": guest("shutoff"),
}

THERE: dict[str, Sighting | None] = {
    "unknown": None,
    "nothing": Sighting(None),
    "running": Sighting("running"),
    "paused": Sighting("paused"),
    "shutoff": Sighting("shutoff"),
    "coming": Sighting("paused", "incoming migration"),
    "fetching": Sighting("running", "incoming migration"),
}

TABLE: dict[tuple[str, str], Where] = {
    **{(here, there): "here" for here in ("running", "back") for there in THERE},
    ("back", "unknown"): "unknown",
    **{(here, "running"): "both" for here in ("running", "back")},
    **{(here, "fetching"): "both" for here in ("running", "back")},
    **{(here, "nothing"): "here" for here in ("paused", "shutoff")},
    ("nothing", "nothing"): "nowhere",
    **{(here, "running"): "there" for here in ("paused", "shutoff", "nothing")},
    **{("paused", there): "unknown" for there in ("paused", "shutoff")},
    **{
        (here, there): "there" for here in ("shutoff", "nothing") for there in ("paused", "shutoff")
    },
    **{
        (here, there): "between"
        for here in ("paused", "shutoff", "nothing")
        for there in ("coming", "fetching")
    },
    **{(here, "unknown"): "unknown" for here in ("paused", "shutoff", "nothing")},
}


@pytest.mark.parametrize(("here", "there"), list(product(HERE, THERE)))
def test_where_it_is(here: str, there: str) -> None:
    assert whereabouts(HERE[here], THERE[there]) == TABLE[here, there]


def test_a_host_that_is_silent_may_have_a_guest_whose_switch_was_called_off() -> None:
    """libvirt lets it go on here where no answer comes, and it may have been started there."""
    assert whereabouts(HERE["running"], None) == "here"
    assert whereabouts(HERE["back"], None) == "unknown"


def state_of(look: DomainLook | None) -> DomainState | None:
    return None if look is None else look.state


def test_only_what_surely_runs_over_there_is_there() -> None:
    """Or its volumes would be taken from under a guest that comes back."""
    for (here, there), where in TABLE.items():
        if where == "there":
            assert state_of(HERE[here]) != "running"
            found = THERE[there]
            assert found is not None
            assert found.state is not None
            assert found.job is None
