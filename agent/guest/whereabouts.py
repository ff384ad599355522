"""Where an instance is that was to go from here to there, by what both hosts see of it.

The only judge of a migration's outcome: an error of the call says nothing, it may come after the
guest has moved. Asked once nothing goes (any more), as far as this host knows::

    here                  there                         the instance is
    running               running                       both       (never to be touched)
    running               anything else                 here
    running               unknown                       here, or unknown where it is back
    paused or shut off    nothing                       here
    nothing               nothing                       nowhere
    not running           running                       there
    paused                paused, shut off              unknown
    shut off, nothing     paused, shut off              there      (stopped since)
    not running           still coming                  between
    not running           unknown                       unknown
"""

from typing import Literal

from agent.ports import DomainLook, Sighting

Where = Literal["here", "there", "between", "nowhere", "both", "unknown"]


def whereabouts(here: DomainLook | None, there: Sighting | None) -> Where:
    """``there`` None: nobody there answers."""
    runs_there = there is not None and there.state == "running"
    if here is not None and here.state == "running":
        if runs_there:
            return "both"
        return "unknown" if there is None and here.is_back else "here"
    if there is None:
        return "unknown"
    if there.state is None:
        return "nowhere" if here is None else "here"
    if there.job is not None:
        return "between"
    if runs_there:
        return "there"
    return "unknown" if here is not None and here.active else "there"
