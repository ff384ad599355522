"""Secrets come in, go to os-brick and the journal, and show nowhere else."""

import copy
import json
import pickle
import traceback
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import Invalid
from agent.model.attachment import Attachment
from agent.model.request import AttachRequest, DetachRequest
from tests.samples import INSTANCES, attachment_payload

# Long and unlike every word of ours, so that finding it means that it leaked.
SECRETS = st.text(st.characters(exclude_categories=("Cc", "Cs", "Cn")), min_size=1).map(
    lambda text: f"⟦{text}⟧-do-not-show"
)

PLACES = (
    "auth_password",
    "discovery_auth_password",
    "vendor_password",
    "serverToken",
    "keyring",
    "chap_secret",
    "api_key",
    "X-ApiKey",
    "private_key",
    "pwd",
    "credentials",
)


def iscsi(**extra: Any) -> dict[str, Any]:
    data = {
        "target_portal": "192.0.2.1:3260",
        "target_iqn": "iqn.2026-01.example:1",
        "target_lun": 1,
    }
    return {"driver_volume_type": "iscsi", "data": {**data, **extra}}


def payload_with(secret: str, place: str) -> dict[str, Any]:
    """One copy at the place, some deeper below a vendor's key."""
    nested = {place: secret, "list": [{place: secret}], "more": {"deep": {place: [secret]}}}
    return attachment_payload(
        connection_info=iscsi(**{place: secret, "vendor": nested}),
        encryption={"format": "luks", "passphrase": secret},
    )


def shown(noun: Attachment) -> Iterator[str]:
    """Every way in which a noun turns into text, but one."""
    yield repr(noun)
    yield str(noun)
    yield f"{noun}"
    yield str(noun.public())
    yield json.dumps(noun.public(), ensure_ascii=False)
    yield noun.model_dump_json()
    yield str(noun.model_dump())
    yield str(list(noun))
    yield repr(noun.connection)
    yield repr(noun.connection.data)
    yield repr(noun.encryption)
    yield str(copy.deepcopy(noun))
    yield str(noun.model_copy(update={"generation": 1}))


@given(SECRETS, st.sampled_from(PLACES))
def test_a_secret_shows_nowhere(secret: str, place: str) -> None:
    noun = Attachment.parse(payload_with(secret, place))
    for text in shown(noun):
        assert secret not in text
        assert secret.encode("unicode_escape").decode() not in text


@given(SECRETS, st.sampled_from(PLACES))
def test_a_secret_is_whole_where_it_is_needed(secret: str, place: str) -> None:
    payload = payload_with(secret, place)
    noun = Attachment.parse(payload)
    assert noun.reveal() == payload
    properties = noun.connection.properties()
    assert properties[place] == secret
    assert properties["vendor"] == payload["connection_info"]["data"]["vendor"]
    assert Attachment.parse(json.loads(json.dumps(noun.reveal()))) == noun


@given(SECRETS, st.sampled_from(PLACES))
def test_a_refusal_does_not_show_it(secret: str, place: str) -> None:
    """Whatever else is wrong with the request; neither in the message nor in a traceback."""
    right = payload_with(secret, place)
    for wrong in (
        {**right, "generation": -1},
        {**right, "unknown": secret},
        {**right, "connection_info": iscsi(**{place: secret, "target_lun": secret})},
        {**right, "connection_info": {"driver_volume_type": "iscsi", place: secret}},
        {**right, "connection_info": {"driver_volume_type": secret, "data": {place: secret}}},
        {**right, "disk": {"io": "native", "cache": "unsafe", "type": secret}},
        {**right, "encryption": {"format": "luks", "passphrase": secret, "secret_file": secret}},
        {**right, "identity": secret},
    ):
        with pytest.raises(Invalid) as caught:
            Attachment.parse(wrong)
        assert secret not in str(caught.value)
        assert secret not in "".join(traceback.format_exception(caught.value))


@given(SECRETS)
def test_requests_are_as_silent(secret: str) -> None:
    envelope = {"request_id": INSTANCES[0], "not_after": "2026-11-24T12:00:00Z"}
    inner = payload_with(secret, "auth_password")
    attach = AttachRequest.parse({**envelope, "attachment": inner})
    detach = DetachRequest.parse(
        {
            **envelope,
            "attachment_id": "att-1",
            "instance_id": INSTANCES[0],
            "attachment": inner,
        }
    )
    for noun in (attach, detach):
        assert secret not in repr(noun)
        assert secret not in str(noun.public())


VZSTORAGE = "mds1,mds2:/vz1:hunter2-do-not-show"


def vzstorage(export: str) -> dict[str, Any]:
    data = {"export": export, "name": "volume-1"}
    return attachment_payload(
        connection_info={"driver_volume_type": "vzstorage", "data": data},
    )


def test_the_password_within_an_export_shows_nowhere() -> None:
    noun = Attachment.parse(vzstorage(VZSTORAGE))
    for text in (*shown(noun), noun.connection.target_names):
        assert "hunter2" not in text
    assert noun.connection.targets == ("mds1,mds2:/vz1",)
    assert noun.connection.export == noun.connection.properties()["export"] == VZSTORAGE
    assert Attachment.model_validate(noun.reveal()) == noun


@pytest.mark.parametrize("export", ["", "vz 1:hunter2", "é:hunter2", "vz1:", "mds:/vz1:hunter:/2"])
def test_an_export_that_os_brick_would_read_otherwise_is_refused(export: str) -> None:
    with pytest.raises(Invalid, match="CLUSTER") as caught:
        Attachment.parse(vzstorage(export))
    assert "hunter2" not in str(caught.value)
    stored = Attachment.model_validate(vzstorage(export))
    assert stored.connection.targets == ("vzstorage",)


def test_what_is_no_secret_stays_readable() -> None:
    """An operator must see which portal, user and secret uuid it was."""
    noun = Attachment.parse(
        attachment_payload(
            connection_info={
                "driver_volume_type": "rbd",
                "data": {
                    "name": "pool/image",
                    "auth_enabled": True,
                    "auth_username": "cinder",
                    "secret_type": "ceph",
                    "secret_uuid": INSTANCES[5],
                    "keyring": "dGhlIGtleQ==",
                    "discard": True,
                },
            }
        )
    )
    assert noun.public()["connection_info"]["data"] == {
        "name": "pool/image",
        "auth_enabled": True,
        "auth_username": "cinder",
        "secret_type": "ceph",
        "secret_uuid": INSTANCES[5],
        "keyring": "***",
        "discard": True,
    }


def test_the_name_of_a_secret_is_none() -> None:
    """Nor is the number of tokens, whatever protocol it is."""
    named = {"secret_uuid": INSTANCES[5], "secret_type": "ceph", "tokens": 5}
    noun = Attachment.parse(attachment_payload(connection_info=iscsi(**named)))
    assert noun.public()["connection_info"] == iscsi(**named)


def test_os_brick_gets_a_dict_of_its_own() -> None:
    """It changes what it is given, nested parts too."""
    noun = Attachment.parse(payload_with("the secret", "auth_password"))
    before = noun.reveal()
    properties = noun.connection.properties()
    properties["target_lun"] = 99
    properties["vendor"]["more"]["deep"].clear()
    assert noun.reveal() == before


def test_nouns_survive_a_helper_process() -> None:
    """Arguments of Connectors can cross to another process, secrets included."""
    noun = Attachment.parse(payload_with("the secret", "auth_password"))
    assert pickle.loads(pickle.dumps(noun)) == noun
