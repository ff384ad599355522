"""What a request is refused for is what the installed os-brick cannot read, and nothing else."""

from typing import Any

import pytest
from os_brick import constants, exception
from os_brick.initiator.connectors.nvmeof import NVMeOFConnProps
from os_brick.initiator.linuxscsi import LinuxSCSI

from agent.model.attachment import Attachment
from agent.model.connection import ADDRESSING_MODES
from tests.samples import attachment_payload
from tests.unit.model.test_refusals import ISCSI, NVME, OLD_NVME, UNREADABLE, connection


def os_brick_reads(different: dict[str, Any]) -> None:
    stored = Attachment.model_validate(attachment_payload(**different)).connection
    properties = stored.properties()
    if stored.lane == "nvme":
        NVMeOFConnProps(properties)
    else:
        LinuxSCSI.lun_for_addressing(1, properties["addressing_mode"])


def test_the_addressing_modes_are_its_own() -> None:
    assert set(ADDRESSING_MODES) == set(constants.SCSI_ADDRESSING_MODES)


@pytest.mark.parametrize(("different", "why"), UNREADABLE)
def test_what_is_refused_it_does_not_read(different: dict[str, Any], why: str) -> None:
    with pytest.raises((exception.InvalidParameterValue, ValueError, AttributeError)):
        os_brick_reads(different)


@pytest.mark.parametrize(
    "different",
    [
        connection("nvmeof", NVME, vol_uuid="", volume_nguid="A" * 32),
        connection("nvmeof", NVME, vol_uuid="{aaaaaaaa-0000-4000-8000-000000000001}"),
        connection("nvmeof", OLD_NVME, vol_uuid="anything"),
        *(
            connection("iscsi", {**ISCSI, **mode})
            for mode in ({"addressing_mode": mode} for mode in (*ADDRESSING_MODES, ""))
        ),
    ],
)
def test_what_is_taken_it_reads(different: dict[str, Any]) -> None:
    Attachment.parse(attachment_payload(**different))
    os_brick_reads(different)
