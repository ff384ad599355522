"""What ports.Migrations promises, on two simulated hosts and on two real libvirtds alike.

A subclass gives the ``bench`` fixture: an instance that runs ``here``, and the way to ``there``. It
goes slowly until ``hurry`` is called, and may be on the other side when a test begins.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from lxml import etree

from agent.errors import Invalid, MigrationFailed, Unavailable, UnknownInstance
from agent.model.migration import Journey, MigrationOptions
from agent.ports import DomainLook, Domains, Migrations

NOBODY = "00000000-0000-4000-8000-000000000000"
"""An instance that this host does not have."""


@dataclass(frozen=True)
class Bench:
    """``there_uri`` leads from here to there, ``nowhere_uri`` to nobody. ``hurry`` lets what goes
    slowly go fast. ``wait`` returns once it is so, or fails. ``stirred`` tells how often somebody
    here was told that something happened to the instance. ``suspend`` pauses it here, ``resume``
    lets it run again over there."""

    here: Migrations
    here_domains: Domains
    there: Migrations
    there_domains: Domains
    instance_id: str
    there_uri: str
    nowhere_uri: str
    hurry: Callable[[], None]
    wait: Callable[[Callable[[], bool], str], None]
    stirred: Callable[[], int]
    suspend: Callable[[], None]
    resume: Callable[[], None]

    def journey(self, uri: str | None = None, **options: Any) -> Journey:
        live_xml, persistent_xml = self.here.descriptions(self.instance_id)
        return Journey(
            libvirt_uri=uri or self.there_uri,
            migrate_uri=None,
            live_xml=live_xml,
            persistent_xml=persistent_xml,
            options=MigrationOptions.parse({"bandwidth_bytes_per_second": 2 << 20, **options}),
        )

    def start(self, **options: Any) -> None:
        """On its way, and the copy has begun."""
        self.here.start(self.instance_id, self.journey(**options))
        self.wait(self.is_copied, "the copy begins")

    def is_copied(self) -> bool:
        progress = self.here.progress(self.instance_id)
        assert progress is not None, self.here.refusal(self.instance_id)
        return progress.phase == "precopy"

    def wait_over(self) -> None:
        self.wait(lambda: self.here.progress(self.instance_id) is None, "it is over")

    def look_here(self) -> DomainLook | None:
        return self.here_domains.look(self.instance_id)

    def look_there(self) -> DomainLook | None:
        return self.there_domains.look(self.instance_id)

    def assert_runs_here(self) -> None:
        found = self.look_here()
        assert found is not None
        assert (found.state, found.job) == ("running", None)
        assert self.look_there() is None

    def assert_runs_there(self) -> None:
        found = self.look_there()
        assert found is not None
        assert (found.state, found.job) == ("running", None)
        assert self.look_here() is None


class MigrationsContract:
    @pytest.fixture
    def bench(self) -> Bench:
        raise NotImplementedError

    def test_where_nothing_goes_nothing_is_done(self, bench: Bench) -> None:
        assert bench.here.progress(bench.instance_id) is None
        bench.here.abort(bench.instance_id)
        bench.here.allow_downtime(bench.instance_id, 500)
        bench.here.start_post_copy(bench.instance_id)
        bench.here.pause(bench.instance_id)
        bench.here.resume_post_copy(bench.instance_id, bench.journey())
        bench.assert_runs_here()

    def test_an_instance_that_is_not_here(self, bench: Bench) -> None:
        journey = bench.journey()
        with pytest.raises(UnknownInstance):
            bench.here.descriptions(NOBODY)
        with pytest.raises(UnknownInstance):
            bench.here.start(NOBODY, journey)
        assert bench.here.progress(NOBODY) is None
        assert bench.here.refusal(NOBODY) is None
        assert bench.here.statistics(NOBODY) == {}
        bench.here.abort(NOBODY)
        bench.here.clear(NOBODY)

    def test_both_halves_are_described(self, bench: Bench) -> None:
        live_xml, persistent_xml = bench.here.descriptions(bench.instance_id)
        assert persistent_xml is not None
        for xml in (live_xml, persistent_xml):
            assert etree.fromstring(xml).findtext("uuid") == bench.instance_id

    def test_it_goes_and_runs_over_there(self, bench: Bench) -> None:
        heard = bench.stirred()
        bench.start()
        bench.hurry()
        bench.wait_over()
        bench.assert_runs_there()
        there = bench.look_there()
        assert there is not None
        assert there.inactive_xml is not None
        assert bench.here.refusal(bench.instance_id) is None
        bench.wait(lambda: bench.stirred() > heard, "somebody is told")

    def test_how_it_was_both_sides_tell(self, bench: Bench) -> None:
        bench.start()
        bench.hurry()
        bench.wait_over()
        bench.wait(lambda: bool(bench.here.statistics(bench.instance_id)), "libvirt tells")
        for side in (bench.here, bench.there):
            statistics = side.statistics(bench.instance_id)
            assert statistics["elapsed_milliseconds"] > 0
            assert statistics["downtime_milliseconds"] >= 0
            assert statistics["transferred_bytes"] > 0
            assert side.statistics(bench.instance_id) == statistics, "it is told again"

    def test_while_it_goes_both_sides_show_it(self, bench: Bench) -> None:
        bench.start()
        progress = bench.here.progress(bench.instance_id)
        assert progress is not None
        assert progress.total_bytes > progress.remaining_bytes > 0
        assert bench.there.progress(bench.instance_id) is None, "it comes, it does not go"
        here, there = bench.look_here(), bench.look_there()
        assert here is not None
        assert there is not None
        assert (here.state, here.job) == ("running", "migration")
        assert (there.state, there.job) == ("paused", "incoming migration")
        bench.here.abort(bench.instance_id)
        bench.wait_over()

    def test_a_second_start_changes_nothing(self, bench: Bench) -> None:
        bench.start()
        bench.here.start(bench.instance_id, bench.journey())
        bench.hurry()
        bench.wait_over()
        bench.assert_runs_there()
        assert bench.here.refusal(bench.instance_id) is None

    def test_given_up_it_runs_on_here(self, bench: Bench) -> None:
        bench.start()
        bench.here.abort(bench.instance_id)
        bench.wait_over()
        bench.here.abort(bench.instance_id)
        bench.assert_runs_here()
        refusal = bench.here.refusal(bench.instance_id)
        assert isinstance(refusal, MigrationFailed)
        assert "given up" in refusal.detail

    def test_given_up_at_once_it_never_goes(self, bench: Bench) -> None:
        """Asked again until it is over, as the agent does: libvirt may not know of it yet."""
        heard = bench.stirred()
        bench.here.start(bench.instance_id, bench.journey())

        def is_over() -> bool:
            bench.here.abort(bench.instance_id)
            return bench.here.progress(bench.instance_id) is None

        bench.wait(is_over, "it is over")
        bench.assert_runs_here()
        bench.wait(lambda: bench.stirred() > heard, "somebody is told")

    def test_a_destination_that_is_not_reached(self, bench: Bench) -> None:
        heard = bench.stirred()
        bench.here.start(bench.instance_id, bench.journey(bench.nowhere_uri))
        bench.wait_over()
        bench.assert_runs_here()
        refusal = bench.here.refusal(bench.instance_id)
        assert isinstance(refusal, MigrationFailed)
        assert "does not reach" in refusal.detail
        bench.wait(lambda: bench.stirred() > heard, "somebody is told")

    def test_a_new_start_forgets_what_was_refused(self, bench: Bench) -> None:
        bench.here.start(bench.instance_id, bench.journey(bench.nowhere_uri))
        bench.wait_over()
        bench.start()
        assert bench.here.refusal(bench.instance_id) is None
        bench.hurry()
        bench.wait_over()
        bench.assert_runs_there()

    def test_post_copy_runs_over_there_at_once(self, bench: Bench) -> None:
        bench.start(post_copy=True)
        bench.here.start_post_copy(bench.instance_id)
        bench.here.start_post_copy(bench.instance_id)
        bench.hurry()
        bench.wait_over()
        bench.assert_runs_there()

    def test_post_copy_must_be_allowed_first(self, bench: Bench) -> None:
        bench.start()
        with pytest.raises(Invalid, match="post_copy"):
            bench.here.start_post_copy(bench.instance_id)
        bench.here.abort(bench.instance_id)
        bench.wait_over()
        bench.assert_runs_here()

    def test_paused_it_stands_here_and_runs_there(self, bench: Bench) -> None:
        bench.start()
        bench.here.pause(bench.instance_id)
        bench.here.pause(bench.instance_id)
        here = bench.look_here()
        assert here is not None
        assert here.state == "paused"
        progress = bench.here.progress(bench.instance_id)
        assert progress is not None
        assert progress.phase == "switchover"
        bench.hurry()
        bench.wait_over()
        bench.assert_runs_there()

    def test_paused_and_given_up_it_runs_here(self, bench: Bench) -> None:
        bench.start()
        bench.here.pause(bench.instance_id)
        bench.here.abort(bench.instance_id)
        bench.wait_over()
        bench.assert_runs_here()

    def test_what_somebody_has_paused_is_paused_over_there(self, bench: Bench) -> None:
        bench.suspend()
        here = bench.look_here()
        assert here is not None
        assert (here.state, here.is_held) == ("paused", True)
        bench.start()
        there = bench.look_there()
        assert there is not None
        assert (there.state, there.job, there.is_held) == ("paused", "incoming migration", False)
        bench.hurry()
        bench.wait_over()
        there = bench.look_there()
        assert bench.look_here() is None
        assert there is not None
        assert (there.state, there.job, there.is_held) == ("paused", None, True)
        bench.resume()
        bench.assert_runs_there()

    def test_what_somebody_has_paused_stays_so_where_it_fails(self, bench: Bench) -> None:
        bench.suspend()
        bench.start()
        bench.here.pause(bench.instance_id)
        bench.here.abort(bench.instance_id)
        bench.wait_over()
        here = bench.look_here()
        assert here is not None
        assert (here.state, here.job, here.is_held) == ("paused", None, True)
        bench.wait(lambda: bench.look_there() is None, "it is gone over there")
        bench.start()
        bench.hurry()
        bench.wait_over()
        bench.resume()
        bench.assert_runs_there()

    def test_a_downtime_may_be_allowed_on_the_way(self, bench: Bench) -> None:
        bench.start()
        bench.here.allow_downtime(bench.instance_id, 2000)
        bench.hurry()
        bench.wait_over()
        bench.assert_runs_there()

    def test_what_runs_is_not_cleared(self, bench: Bench) -> None:
        with pytest.raises(Unavailable):
            bench.here.clear(bench.instance_id)
        bench.assert_runs_here()
