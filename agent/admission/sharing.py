"""Who may share a volume on this host, by the journal's word: libvirt is asked later (steps/users).

Pure over attachments: those in place, and those that an accepted operation is about to put there.
"""

from collections.abc import Sequence

from agent.errors import SharingConflict
from agent.model.attachment import Attachment
from agent.steps.users import ONE_NEXUS, TWO_WAYS


def refuse_sharing(attachment: Attachment, others: Sequence[Attachment]) -> None:
    """Raises SharingConflict naming the attachment of the volume that excludes this one."""
    for other in others:
        _refuse_beside(attachment, other)
    _refuse_too_many_writers(attachment, others)


def _refuse_beside(attachment: Attachment, other: Attachment) -> None:
    if other.instance_id == attachment.instance_id:
        raise SharingConflict(
            f"the instance has volume {attachment.volume_id} already, by attachment "
            f"{other.attachment_id}; nothing was touched"
        )
    if not (attachment.multiattach and other.multiattach):
        raise SharingConflict(
            f"instance {other.instance_id} on this host uses volume "
            f"{attachment.volume_id} by attachment {other.attachment_id}, and both must "
            "say multiattach to share it; nothing was touched"
        )
    if (attachment.encryption is None) != (other.encryption is None):
        raise SharingConflict(
            f"instance {other.instance_id} on this host has volume "
            f"{attachment.volume_id} {'with' if other.encryption else 'without'} "
            "encryption, this attachment asks for the other: both must ask for the same; "
            "nothing was touched"
        )
    sizes = attachment.disk.sector_bytes, other.disk.sector_bytes
    if None not in sizes and len(set(sizes)) > 1:
        raise SharingConflict(
            f"instance {other.instance_id} (attachment {other.attachment_id}) sees sectors of "
            f"{sizes[1]} bytes on volume {attachment.volume_id}, and this attachment asks for "
            f"{sizes[0]} (disk.block_size): what one writes the other would not find; nothing was "
            "touched"
        )
    if attachment.initiator != other.initiator:
        raise SharingConflict(
            f"instance {other.instance_id} (attachment {other.attachment_id}) "
            f"{TWO_WAYS[attachment.initiator]}; nothing was touched"
        )
    if attachment.reserves and other.reserves:
        raise SharingConflict(
            f"instance {other.instance_id} (attachment {other.attachment_id}) {ONE_NEXUS}; nothing "
            "was touched"
        )


def _refuse_too_many_writers(attachment: Attachment, others: Sequence[Attachment]) -> None:
    """The smallest limit that any of them gave holds for all."""
    all_of_it = (attachment, *others)
    limits = {one.max_writers: one for one in all_of_it if one.max_writers is not None}
    writers = [one.attachment_id for one in all_of_it if not one.read_only]
    if limits and len(writers) > min(limits):
        strictest = limits[min(limits)]
        whose = "it" if strictest is attachment else f"attachment {strictest.attachment_id}"
        raise SharingConflict(
            f"volume {attachment.volume_id} would have {len(writers)} writers on this host "
            f"({', '.join(sorted(writers))}), and {whose} allows {min(limits)} (max_writers): "
            "attach it with access_mode ro, or detach a writer first; nothing was touched"
        )
