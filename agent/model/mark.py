"""What a disk of a guest is found by, whoever plugged it."""

USER_ALIAS = "ua-"
"""libvirt keeps a user's alias only with this prefix; other aliases are its own and change."""

METADATA_NAMESPACE = "urn:libvirt-attachment-agent:attachments:1"
"""Of the element in a domain's metadata that notes which disks are attachments."""


def user_alias(attachment_id: str) -> str:
    return f"{USER_ALIAS}{attachment_id}"


def mark_of(alias: str | None, target_dev: str, serial: str | None) -> str:
    """The user's alias; of a disk that has none its target name and its serial, which stay when
    the guest starts anew. ``alias`` may be libvirt's own, which does not.

    The second kind tells disks of one guest apart and proves nothing: who acts on it looks at the
    source first."""
    if alias is not None and is_user_alias(alias):
        return alias
    return f"{target_dev} {serial}" if serial else target_dev


def is_user_alias(mark: str) -> bool:
    return mark.startswith(USER_ALIAS)
