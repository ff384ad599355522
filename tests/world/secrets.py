"""ports.Secrets, as libvirt 9.0 was seen to do it: ephemeral ones are gone with libvirtd, one that
is defined has no value yet, and a disk whose secret has none or is not there is not opened."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from agent.errors import Invalid, Unavailable
from agent.model.secret import GuestSecret
from tests.world.copied import copied
from tests.world.instants import Instants


@dataclass
class SimulatedSecrets:
    """``values`` by uuid; None: defined, and without a value. ``files`` are what requests may name;
    ``operators`` are secrets that somebody else has made."""

    instants: Instants
    is_away: Callable[[], bool]
    values: dict[str, bytes | None] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    operators: set[str] = field(default_factory=set)

    def has(self, uuid: str) -> bool:
        def ask() -> bool:
            self._answer()
            return uuid in self.values or uuid in self.operators

        return self.instants.call("has-secret", ask, part="libvirt")

    def make(self, secret: GuestSecret, value: bytes) -> None:
        def define() -> None:
            self._answer()
            self.values.setdefault(secret.uuid, None)
            self.instants.reach("within make-secret", part="libvirt")
            self._answer()
            self.values[secret.uuid] = value

        self.instants.call("make-secret", define, part="libvirt")

    def drop(self, uuid: str) -> None:
        def undefine() -> None:
            self._answer()
            self.values.pop(uuid, None)

        self.instants.call("drop-secret", undefine, part="libvirt")

    def ours(self) -> frozenset[str]:
        self._answer()
        return frozenset(self.values)

    def key_in(self, path: str) -> bytes:
        if path not in self.files:
            raise Invalid(f"encryption.secret_file: there is no {path} on this host")
        return self.files[path]

    # what happens to them

    def vanish(self) -> None:
        """libvirtd was restarted."""
        self.values.clear()

    def outline(self) -> list[object]:
        return [sorted(self.values.items()), sorted(self.files)]

    def image(self) -> dict[str, object]:
        names = ("values", "files", "operators")
        return {name: copied(getattr(self, name)) for name in names}

    def restore(self, image: Mapping[str, object]) -> None:
        for name, value in image.items():
            setattr(self, name, copied(value))

    def _answer(self) -> None:
        if self.is_away():
            raise Unavailable("libvirt", "simulated: it is away")
