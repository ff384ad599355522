"""Two guests that share a volume and fence each other, as cluster software does."""

import pytest

from tests.lab.guest import Guest, GuestRefused

RESERVING = {"bus": "scsi", "type": "lun", "reservations": "managed"}

WRITE_EXCLUSIVE = "--prout-type=1"

CONFLICT = "Invalid exchange"
"""EBADE: what Linux makes of RESERVATION CONFLICT."""


class Member:
    """A guest of the cluster, with the key that it registers."""

    def __init__(self, guest: Guest, volume_id: str, key: str) -> None:
        self.guest = guest
        self.key = key
        self.disk = guest.wait_for_disk(volume_id).name

    def register(self) -> None:
        self._out("--register", f"--param-sark={self.key}")

    def reserve(self) -> None:
        self._out("--reserve", f"--param-rk={self.key}", WRITE_EXCLUSIVE)

    def preempt(self, other: "Member") -> None:
        keys = (f"--param-rk={self.key}", f"--param-sark={other.key}")
        self._out("--preempt", *keys, WRITE_EXCLUSIVE)

    def clear(self) -> None:
        self._out("--clear", f"--param-rk={self.key}")

    def keys(self) -> set[str]:
        """That the target knows."""
        said = " ".join(self.guest.persist(self.disk, "--in", "--read-keys"))
        return {word for word in said.split() if word.startswith("0x") and len(word) < 8}

    def write(self, word: str) -> None:
        self.guest.write(self.disk, word)

    def read(self) -> str:
        return self.guest.read(self.disk)

    def cannot_write(self) -> None:
        with pytest.raises(GuestRefused, match=CONFLICT):
            self.write("forbidden")

    def _out(self, *options: str) -> None:
        self.guest.persist(self.disk, "--out", *options)


def fence_each_other(first: Member, second: Member) -> None:
    """The first reserves, the second is kept out, and then throws the first out."""
    first.write("before")
    assert second.read() == "before"

    first.register()
    second.register()
    assert first.keys() == {"0xa", "0xb"}, "the target takes both guests for one"
    first.reserve()
    first.write("by-the-holder")
    second.cannot_write()
    assert second.read() == "by-the-holder"

    second.preempt(first)
    assert second.keys() == {"0xb"}
    first.cannot_write()
    second.write("by-the-new-holder")
    assert first.read() == "by-the-new-holder"
