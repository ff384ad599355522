"""What ports.Connectors promises, on the simulated storage and on the real host alike.

A subclass gives the ``bench`` fixture. Every test makes volumes of its own.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import pytest

from agent.errors import AgentError, ConnectFailed
from agent.model.attachment import Attachment
from agent.model.device import Device
from agent.ports import Connectors


@dataclass(frozen=True)
class Bench:
    """``make_volume`` maps a new volume to this host; ``hidden_volume`` is an attachment of one
    that the host cannot get. ``locked`` is what a caller holds around a storage call.
    ``stays``: its devices are there whether they are connected or not (protocol local). ``grow``
    makes a volume larger on the storage side, to so many bytes."""

    connectors: Connectors
    make_volume: Callable[[], Attachment]
    hidden_volume: Callable[[], Attachment]
    locked: Callable[[Attachment], AbstractContextManager[object]] = lambda attachment: (
        nullcontext()
    )
    stays: bool = False
    grow: Callable[[Attachment, int], None] | None = None

    def connect(self, attachment: Attachment) -> Device:
        with self.locked(attachment):
            return self.connectors.connect(attachment)

    def disconnect(self, attachment: Attachment, device: Device | None) -> None:
        with self.locked(attachment):
            assert not self.connectors.disconnect(attachment, device).awaiting_unmap


class ConnectorsContract:
    def test_a_connected_volume_is_a_device_of_this_host(self, bench: Bench) -> None:
        device = bench.connect(bench.make_volume())
        assert bench.connectors.present(device)
        assert bench.connectors.in_place(device)
        assert device.path.startswith("/")
        assert device.identity
        assert device.size_bytes > 0

    def test_connecting_again_adopts_what_is_there(self, bench: Bench) -> None:
        volume = bench.make_volume()
        assert bench.connect(volume) == bench.connect(volume)

    def test_what_is_here_is_found_whoever_brought_it(self, bench: Bench) -> None:
        volume, other = bench.make_volume(), bench.make_volume()
        device = bench.connect(volume)
        found = bench.connectors.find(volume.connection)
        assert found is not None
        assert (found.path, found.identity) == (device.path, device.identity)
        assert found.size_bytes == device.size_bytes
        assert (bench.connectors.find(other.connection) is not None) is bench.stays
        bench.disconnect(volume, found)
        assert (bench.connectors.find(volume.connection) is not None) is bench.stays

    def test_a_device_outlives_the_journal(self, bench: Bench) -> None:
        device = bench.connect(bench.make_volume())
        assert Device.model_validate(device.reveal()) == device

    def test_the_attachment_is_not_changed(self, bench: Bench) -> None:
        volume = bench.make_volume()
        before = volume.reveal()
        bench.disconnect(volume, bench.connect(volume))
        assert volume.reveal() == before

    def test_a_volume_that_has_grown_is_as_large_when_it_is_extended(self, bench: Bench) -> None:
        assert bench.grow is not None
        volume, other = bench.make_volume(), bench.make_volume()
        device, stays = bench.connect(volume), bench.connect(other)
        larger = device.size_bytes + (8 << 20)
        bench.grow(volume, larger)
        with bench.locked(volume):
            found = [bench.connectors.extend(volume, device) for _ in range(2)]
        assert found == [device.model_copy(update={"size_bytes": larger})] * 2
        with bench.locked(other):
            assert bench.connectors.extend(other, stays) == stays

    def test_what_is_not_here_is_not_extended(self, bench: Bench) -> None:
        volume = bench.make_volume()
        device = bench.connect(volume)
        gone = device.model_copy(update={"identity": {"wwn": "6001405ffffffffffffff"}})
        bench.disconnect(volume, device)
        with bench.locked(volume), pytest.raises(ConnectFailed, match="not on this host"):
            bench.connectors.extend(volume, gone)

    def test_two_volumes_are_two_devices(self, bench: Bench) -> None:
        one, other = bench.connect(bench.make_volume()), bench.connect(bench.make_volume())
        names = bench.connectors.names
        assert not names(one.path) & names(other.path)
        assert not one.identity.items() & other.identity.items()

    def test_a_device_is_known_by_its_path(self, bench: Bench) -> None:
        device = bench.connect(bench.make_volume())
        assert device.path in bench.connectors.names(device.path)

    def test_what_is_nowhere_has_one_name(self, bench: Bench) -> None:
        for source in ("/dev/disk/by-id/of-no-device", "rbd:pool/image"):
            assert bench.connectors.names(source) == {source}

    def test_a_disconnected_volume_is_gone(self, bench: Bench) -> None:
        volume = bench.make_volume()
        device = bench.connect(volume)
        bench.disconnect(volume, device)
        assert bench.connectors.present(device) is bench.stays
        assert bench.connectors.in_place(device) is bench.stays

    def test_disconnecting_again_is_the_same_end(self, bench: Bench) -> None:
        volume = bench.make_volume()
        device = bench.connect(volume)
        for _ in range(2):
            bench.disconnect(volume, device)
        assert bench.connectors.present(device) is bench.stays

    def test_what_was_never_connected_can_be_disconnected(self, bench: Bench) -> None:
        bench.disconnect(bench.make_volume(), None)

    def test_disconnecting_one_leaves_the_other(self, bench: Bench) -> None:
        one, other = bench.make_volume(), bench.make_volume()
        stays = bench.connect(other)
        bench.disconnect(one, bench.connect(one))
        assert bench.connectors.present(stays)

    def test_a_volume_can_come_back(self, bench: Bench) -> None:
        volume = bench.make_volume()
        bench.disconnect(volume, bench.connect(volume))
        assert bench.connectors.present(bench.connect(volume))

    def test_a_volume_that_cannot_be_had_is_an_error_with_a_code(self, bench: Bench) -> None:
        with pytest.raises(AgentError) as refused:
            bench.connect(bench.hidden_volume())
        assert refused.value.code in ("invalid", "connect-failed", "lun-missing")
        assert len(refused.value.detail) > 20

    def test_a_check_connects_nothing(self, bench: Bench) -> None:
        volume = bench.make_volume()
        bench.connectors.check(volume.connection)
        device = bench.connect(volume)
        bench.disconnect(volume, device)
        bench.connectors.check(volume.connection)
        assert bench.connectors.present(device) is bench.stays

    def test_the_initiator_is_the_same_each_time(self, bench: Bench) -> None:
        first = dict(bench.connectors.properties())
        assert first["host"]
        assert dict(bench.connectors.properties()) == first
