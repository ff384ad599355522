"""A client written against an older wire goes on: plain oslo.messaging, nothing of ours."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from oslo_config import cfg

from tests.contract.pinned_wire import PINNED, Call, given, pinned, tell
from tests.functional.orchestrator import Orchestrator
from tests.lab.guest import Guest
from tests.lab.lab import Lab
from tests.lab.loop_volume import LoopVolume

oslo_messaging: Any = import_module("oslo_messaging")

pytestmark = pytest.mark.real


@pytest.fixture(params=PINNED, ids=lambda file: file.stem)
def file(request: pytest.FixtureRequest) -> Path:
    found: Path = request.param
    return found


@pytest.fixture
def call(lab: Lab, file: Path) -> Iterator[Call]:
    """With the version that the client knows in each message's target."""
    url = f"{lab.broker.url}?amqp_durable_queues=true"
    transport = oslo_messaging.get_rpc_transport(cfg.CONF, url)
    target = oslo_messaging.Target(
        exchange="attachment_agent", server="lab-host", version=pinned(file)["version"]
    )
    client = oslo_messaging.get_rpc_client(transport, target, timeout=60)
    yield lambda topic, method, arguments: client.prepare(topic=topic).call({}, method, **arguments)
    transport.cleanup()


def test_a_client_of_an_older_wire_goes_on(
    orchestrator: Orchestrator, guests: list[Guest], volume: LoopVolume, file: Path, call: Call
) -> None:
    until = datetime.now(UTC) + timedelta(hours=1)
    values = given(
        instance=guests[0].uuid,
        volume=volume.volume_id,
        connection_info=volume.connection_info(),
        size_bytes=volume.size_bytes,
        not_after=until.strftime("%Y-%m-%dT%H:%M:%SZ"),
    )
    tell(pinned(file)["story"], values, call, end=call)
