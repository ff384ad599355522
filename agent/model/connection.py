"""connection_info, parsed: one class per protocol, and what each must have.

``data`` keeps every vendor key: os-brick gets them all back from :meth:`Connection.properties`.
Shapes: what the volume service's drivers write, and os-brick's connectors read.
"""

import base64
import re
import uuid
from collections.abc import Collection, Iterator, Mapping
from itertools import product
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    ConfigDict,
    Discriminator,
    Field,
    SecretStr,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    StrictBool,
    StrictStr,
    Tag,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from agent.model.value import SECRET_NAME, Count, Positive, Secret, Value, dump_secret, is_asked

Lane = Literal["scsi", "nvme", "mounts", "other"]


class Data(Value):
    """The keys every protocol may carry; vendor keys beside them are kept as they came."""

    model_config = ConfigDict(frozen=True, extra="allow", hide_input_in_errors=True)
    __pydantic_extra__: dict[str, Any]

    access_mode: Literal["rw", "ro"] | None = None
    encrypted: StrictBool | None = None
    auth_password: Secret | None = None
    discovery_auth_password: Secret | None = None

    def flaws(self) -> Iterator[str]:
        """What os-brick cannot read: given that, it neither connects nor disconnects anything."""
        yield from ()

    def traps(self) -> Iterator[str]:
        """What os-brick reads, and does harm with."""
        yield from ()

    @model_validator(mode="after")
    def _is_readable(self, info: ValidationInfo) -> "Data":
        wrong = (*self.flaws(), *self.traps()) if is_asked(info) else ()
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    @model_validator(mode="after")
    def _hide_vendor_secrets(self) -> "Data":
        for key, value in (self.__pydantic_extra__ or {}).items():
            self.__pydantic_extra__[key] = _hide(key, value)
        return self

    @model_serializer(mode="wrap")
    def _dump(self, dump: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        plain: dict[str, Any] = dump(self)
        for key, value in (self.__pydantic_extra__ or {}).items():
            plain[key] = _dump_hidden(value, info)
        return plain


def _hide(key: str, value: Any) -> Any:
    """A copy of a vendor's value in which texts with a secret's name do not show."""
    if isinstance(value, str) and SECRET_NAME.search(key):
        return SecretStr(value)
    if isinstance(value, dict):
        return {name: _hide(str(name), part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_hide(key, part) for part in value]
    return value


def _dump_hidden(value: Any, info: SerializationInfo) -> Any:
    if isinstance(value, SecretStr):
        return dump_secret(value, info)
    if isinstance(value, dict):
        return {name: _dump_hidden(part, info) for name, part in value.items()}
    if isinstance(value, list):
        return [_dump_hidden(part, info) for part in value]
    return value


class Connection(Value):
    """How this host reaches one volume."""

    driver_volume_type: StrictStr
    data: Data

    lane: ClassVar[Lane] = "other"

    @property
    def targets(self) -> tuple[str, ...]:
        """What other volumes may share with this one, sorted: these are locked."""
        raise NotImplementedError

    @property
    def target_names(self) -> str:
        return ", ".join(self.targets)

    @property
    def ways(self) -> frozenset[str]:
        """The portals that lead to the volume, as the host names them; empty: not known so."""
        return frozenset()

    @property
    def source_format(self) -> Literal["raw", "qcow2"]:
        """The guest-visible file format. Said by the request, never probed."""
        return "raw"

    @property
    def source_type(self) -> Literal["block", "file", "network"]:
        return "block"

    @property
    def export(self) -> str | None:
        """What is mounted to reach the volume, a file in it; None: nothing is. It may hold a
        password, ``targets`` does not."""
        return None

    @property
    def known_source(self) -> str | None:
        """What a disk of this volume names as its source, where that is known before connect."""
        return None

    @property
    def kept_secret(self) -> str | None:
        """The uuid of a secret that the operator must have given libvirt."""
        return None

    @property
    def gives_namespace(self) -> bool:
        """Is the device an NVMe namespace?"""
        return self.driver_volume_type in ("nvmeof", "lightos")

    @property
    def stays_until_unmapped(self) -> bool:
        """Does the device stay after a disconnect that went well, until the storage side unmaps the
        volume?"""
        return False

    def properties(self) -> dict[str, Any]:
        """A fresh dict for os-brick, secrets included; os-brick changes what it is given."""
        return self.data.reveal()


ADDRESSING_MODES = ("SAM", "SAM2", "SAM3-flat", "transparent")
"""How an array numbers its LUNs (os_brick.constants.SCSI_ADDRESSING_MODES)."""
FLAT_SPACE = 1 << 14
"""What flat space addressing adds to a LUN (SAM-3, 4.6.8)."""
FLAT_IN_SAM2_FROM = 256


class ScsiData(Data):
    """``addressing_mode``, among the vendor's keys, says how a LUN is written."""

    def flaws(self) -> Iterator[str]:
        mode = self.__pydantic_extra__.get("addressing_mode")
        if mode and mode not in ADDRESSING_MODES:
            yield f"addressing_mode must be one of {', '.join(ADDRESSING_MODES)}, or left out"

    def lun_here(self, lun: int) -> int:
        """What the kernel calls it (os-brick, LinuxSCSI.lun_for_addressing)."""
        mode = self.__pydantic_extra__.get("addressing_mode")
        is_flat = mode == "SAM3-flat" or (mode == "SAM2" and lun >= FLAT_IN_SAM2_FROM)
        return lun + FLAT_SPACE if is_flat else lun

    def lun_there(self, lun: int) -> int:
        """What the request calls the kernel's."""
        asked = lun - FLAT_SPACE
        return asked if asked >= 0 and self.lun_here(asked) == lun else lun


PORTAL = re.compile(r"(\[[0-9A-Fa-f:]+(%[\w-]+)?\]|[^\s\[\]:,]+\.[^\s\[\]:,]+):\d{1,5}")
"""As iscsiadm lists sessions, which os-brick compares word by word: what has no dot it puts into
brackets."""


class IscsiData(ScsiData):
    target_portal: StrictStr | None = None
    target_iqn: StrictStr | None = None
    target_lun: Count | None = None
    target_portals: tuple[StrictStr, ...] | None = None
    target_iqns: tuple[StrictStr, ...] | None = None
    target_luns: tuple[Count, ...] | None = None
    auth_method: StrictStr | None = None
    auth_username: StrictStr | None = None

    def traps(self) -> Iterator[str]:
        if "" in (self.target_iqn, *(self.target_iqns or ())):
            yield "an IQN must not be empty"

    @property
    def has_a_strange_portal(self) -> bool:
        """os-brick would log in to it for ever: no session is ever listed by that name."""
        portals = (self.target_portal, *(self.target_portals or ()))
        return not all(PORTAL.fullmatch(portal) for portal in portals if portal is not None)

    @property
    def has_credentials(self) -> bool:
        return bool(
            self.auth_username and self.auth_password and self.auth_password.get_secret_value()
        )

    @model_validator(mode="after")
    def _one_complete_path(self) -> "IscsiData":
        many = (self.target_portals, self.target_iqns, self.target_luns)
        if any(many):
            if not all(many) or len({len(part) for part in many if part}) != 1:
                raise ValueError(
                    "target_portals, target_iqns and target_luns must have the same length"
                )
        elif self.target_portal is None or self.target_iqn is None or self.target_lun is None:
            raise ValueError("needs target_portal, target_iqn and target_lun (or the plural lists)")
        return self


class IscsiConnection(Connection):
    driver_volume_type: Literal["iscsi", "iser"]
    data: IscsiData
    lane: ClassVar[Lane] = "scsi"

    @property
    def targets(self) -> tuple[str, ...]:
        iqns = set(self.data.target_iqns or ()) | {self.data.target_iqn or ""}
        return tuple(sorted(iqns - {""}))

    @property
    def lacks_credentials(self) -> bool:
        """Of any method os-brick reads both, once it has changed half of the node record. To leave
        it needs none."""
        return bool(self.data.auth_method) and not self.data.has_credentials

    @property
    def paths(self) -> int:
        """How many ways to the volume the storage offers."""
        data = self.data
        return len(set(zip(data.target_portals or (), data.target_iqns or (), strict=True))) or 1

    @property
    def addresses(self) -> tuple[tuple[str, str, int], ...]:
        """(portal, IQN, LUN) of each, without the brackets of IPv6."""
        data = self.data
        many = zip(
            data.target_portals or (), data.target_iqns or (), data.target_luns or (), strict=True
        )
        found = tuple(many) or ((data.target_portal or "", data.target_iqn or "", self.lun),)
        return tuple((re.sub(r"[][]", "", portal), iqn, lun) for portal, iqn, lun in found)

    @property
    def ways(self) -> frozenset[str]:
        return frozenset(f"{portal} {iqn}" for portal, iqn, _ in self.addresses)

    def one_way(self) -> dict[str, Any]:
        """The way of a request that names one, as lists; empty: it has lists."""
        if self.data.target_portals:
            return {}
        [(_, iqn, lun)] = self.addresses
        return {
            "target_portals": [self.data.target_portal],
            "target_iqns": [iqn],
            "target_luns": [lun],
        }

    @property
    def lun(self) -> int:
        if self.data.target_lun is not None:
            return self.data.target_lun
        assert self.data.target_luns is not None, "checked when parsed"
        return self.data.target_luns[0]


class FibreChannelData(ScsiData):
    initiator_target_map: dict[StrictStr, tuple[StrictStr, ...]] | None = None
    target_wwn: StrictStr | tuple[StrictStr, ...] | None = None
    target_wwns: tuple[StrictStr, ...] | None = None
    target_lun: Count | None = None
    target_luns: tuple[Count, ...] | None = None

    @model_validator(mode="after")
    def _ports_and_luns(self) -> "FibreChannelData":
        if not (self.target_wwn or self.target_wwns):
            raise ValueError("needs target_wwn (or target_wwns)")
        if self.target_lun is None and not self.target_luns:
            raise ValueError("needs target_lun (or target_luns)")
        return self


class FibreChannelConnection(Connection):
    driver_volume_type: Literal["fibre_channel"]
    data: FibreChannelData
    lane: ClassVar[Lane] = "scsi"

    @property
    def targets(self) -> tuple[str, ...]:
        """Lower case, as udev writes them; some arrays' drivers send upper case."""
        return tuple(sorted({wwn.lower() for wwn in (*self._one, *(self.data.target_wwns or ()))}))

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """(WWN, LUN) of each, as os-brick pairs them."""
        wwns = [wwn.lower() for wwn in self.data.target_wwns or self._one]
        luns = self.data.target_luns or (self.data.target_lun or 0,)
        return tuple(
            zip(wwns, luns, strict=True) if len(wwns) == len(luns) else product(wwns, luns)
        )

    @property
    def _one(self) -> tuple[str, ...]:
        one = self.data.target_wwn or ()
        return (one,) if isinstance(one, str) else one

    @property
    def paths(self) -> int:
        """Pairs of ports that the request names; else one for each port of the storage."""
        return sum(map(len, self._pairs.values())) or len(self.targets)

    def paths_here(self, seen: Mapping[str, Collection[str] | None]) -> int:
        """Those of them that a host can have: ``seen`` are the storage's ports that each of its own
        does, or None where it sees nobody today. Without a zone manager the request pairs every
        port with every other. All of them where the host knows of none."""
        found = 0
        for own, ports in self._pairs.items():
            others = seen.get(own, ())
            found += len(ports if others is None else ports & set(others))
        return found or self.paths

    @property
    def _pairs(self) -> dict[str, set[str]]:
        zoned = self.data.initiator_target_map or {}
        return {own.lower(): {port.lower() for port in ports} for own, ports in zoned.items()}


def as_uuid(text: object) -> str | None:
    """As the kernel spells it; hyphens and case do not matter.  None: it is none."""
    try:
        return str(uuid.UUID(text)) if isinstance(text, str) else None
    except ValueError:
        return None


class NvmeData(Data):
    """Both formats of os-brick: ``nqn`` + ``target_portal`` (old), ``target_nqn`` + ``portals``."""

    nqn: StrictStr | None = None
    target_portal: StrictStr | None = None
    target_port: Positive | StrictStr | None = None
    transport_type: StrictStr | None = None
    target_nqn: StrictStr | None = None
    vol_uuid: StrictStr | None = None
    portals: tuple[tuple[StrictStr, Positive | StrictStr, StrictStr], ...] | None = None
    ns_id: Count | StrictStr | None = None

    def flaws(self) -> Iterator[str]:
        told = {
            "vol_uuid": self.target_nqn and self.vol_uuid,  # of the old format it is not read
            "volume_nguid": self.__pydantic_extra__.get("volume_nguid"),
        }
        for name, value in told.items():
            if value and as_uuid(value) is None:
                yield f"{name} must be 32 hexadecimal digits, with or without hyphens, or left out"

    @model_validator(mode="after")
    def _old_or_new(self) -> "NvmeData":
        if self.target_nqn and self.portals:
            return self
        if self.nqn and self.target_portal and self.target_port and self.transport_type:
            return self
        raise ValueError(
            "needs target_nqn and portals, or nqn, target_portal, target_port and transport_type"
        )


class NvmeConnection(Connection):
    driver_volume_type: Literal["nvmeof"]
    data: NvmeData
    lane: ClassVar[Lane] = "nvme"

    @property
    def targets(self) -> tuple[str, ...]:
        nqn = self.data.target_nqn or self.data.nqn
        assert nqn is not None, "checked when parsed"
        return (nqn,)

    @property
    def paths(self) -> int:
        return len(self.data.portals or ()) or 1

    @property
    def stays_until_unmapped(self) -> bool:
        """A namespace cannot be removed from this side while others use its subsystem."""
        return True

    @property
    def ways(self) -> frozenset[str]:
        data = self.data
        if data.portals is None:
            return frozenset((f"{data.target_portal}:{data.target_port}",))
        return frozenset(f"{address}:{port}" for address, port, _ in data.portals)


def _plain_file_name(name: str) -> str:
    if "/" in name or name in ("", ".", ".."):
        raise ValueError("must be a plain file name, without '/'")
    return name


class NfsData(Data):
    export: StrictStr
    name: StrictStr
    options: StrictStr | None = None
    format: Literal["raw", "qcow2"] = "raw"

    _plain = field_validator("name")(_plain_file_name)


class NfsConnection(Connection):
    driver_volume_type: Literal["nfs"]
    data: NfsData
    lane: ClassVar[Lane] = "mounts"

    @property
    def targets(self) -> tuple[str, ...]:
        return (self.data.export,)

    @property
    def export(self) -> str:
        return self.data.export

    @property
    def source_format(self) -> Literal["raw", "qcow2"]:
        return self.data.format

    @property
    def source_type(self) -> Literal["block", "file", "network"]:
        return "file"


class RbdData(Data):
    """``keyring`` is the text of a Ceph keyring, or the bare key; ``secret_uuid`` names a secret of
    libvirt's that the operator keeps. A key that comes is used rather than one that is kept."""

    name: StrictStr
    hosts: tuple[StrictStr, ...] = ()
    ports: tuple[StrictStr, ...] = ()
    auth_enabled: StrictBool = False
    auth_username: StrictStr | None = None
    secret_type: Literal["ceph"] = "ceph"
    secret_uuid: StrictStr | None = None
    keyring: Secret | None = None

    @model_validator(mode="after")
    def _complete(self) -> "RbdData":
        if self.name.count("/") != 1 or not all(self.name.split("/")):
            raise ValueError("name must be pool/image")
        if len(self.hosts) != len(self.ports):
            raise ValueError("hosts and ports must have the same length")
        if self.auth_enabled and not (self.auth_username and (self.secret_uuid or self.keyring)):
            raise ValueError("auth_enabled needs auth_username, and secret_uuid or keyring")
        if self.auth_enabled and self.keyring and not self.key:
            raise ValueError("keyring has no key of auth_username, in base64")
        return self

    @property
    def key(self) -> bytes | None:
        """Of ``auth_username``, as Ceph's tools decode it; None: the keyring has none."""
        text = "" if self.keyring is None else self.keyring.get_secret_value()
        keys = dict(re.findall(r"\[client\.([^\]\s]+)\][^\[]*?^\s*key\s*=\s*(\S+)", text, re.M))
        found = keys.get(self.auth_username, "") if "[" in text else text.strip()
        try:
            return base64.b64decode(found, validate=True) or None
        except ValueError:
            return None


class RbdConnection(Connection):
    """A network disk: QEMU reaches it itself, os-brick is not called."""

    driver_volume_type: Literal["rbd"]
    data: RbdData

    @property
    def targets(self) -> tuple[str, ...]:
        return (self.known_source,)

    @property
    def known_source(self) -> str:
        return f"rbd:{self.data.name}"

    @property
    def kept_secret(self) -> str | None:
        is_needed = self.data.auth_enabled and not self.brings_key
        return self.data.secret_uuid if is_needed else None

    @property
    def brings_key(self) -> bool:
        """Else the operator's secret tells Ceph who asks, or nothing need."""
        return self.data.auth_enabled and self.data.keyring is not None

    @property
    def source_type(self) -> Literal["block", "file", "network"]:
        return "network"


class LocalData(Data):
    device_path: StrictStr

    @field_validator("device_path")
    @classmethod
    def _absolute(cls, path: str) -> str:
        if not path.startswith("/") or ".." in path.split("/"):
            raise ValueError("must be an absolute path without '..'")
        return path


class LocalConnection(Connection):
    """A block device that is on this host anyway (LINSTOR, host LVM, loop)."""

    driver_volume_type: Literal["local"]
    data: LocalData

    @property
    def targets(self) -> tuple[str, ...]:
        return (self.data.device_path,)

    @property
    def known_source(self) -> str:
        return self.data.device_path


VENDOR_PROTOCOLS = (
    "gpfs",
    "huaweisdshypervisor",
    "lightos",
    "quobyte",
    "scaleio",
    "storpool",
    "vzstorage",
)
"""What else os-brick connects (os_brick.initiator.connector); no fields of ours."""

UNFIT = {
    "scality": "is not connected by this agent: os-brick mounts it over the directory in which all "
    "other exports are mounted; reach the volume by another protocol"
}
"""What os-brick connects at the cost of others, and why it is refused."""

MOUNTED_PROTOCOLS = ("quobyte", "vzstorage", *UNFIT)
"""Those of them that mount an export and find the volume in it, a file."""

NEEDED = {
    "storpool": ("client_id", "volume"),
    "lightos": ("uuid",),
    "scaleio": ("scaleIO_volname",),
    "huaweisdshypervisor": ("volume_id",),
}
"""Without these os-brick's disconnect ends with an error each time: also that of an undo."""

VZSTORAGE_EXPORT = re.compile(r"((?:[^\s/]+:/)?[A-Za-z0-9_-]+)(?::(?!\S*:/)\S+)?")
"""[MDS1[,MDS2…]:/]CLUSTER[:PASSWORD]. A password with ``:/`` os-brick takes for something else."""


class VendorConnection(Connection):
    """Any other protocol of os-brick: its properties are passed on as they came."""

    driver_volume_type: Annotated[
        StrictStr, Field(json_schema_extra={"enum": list(VENDOR_PROTOCOLS)})
    ]
    data: Data

    @model_validator(mode="after")
    def _file_in_export(self, info: ValidationInfo) -> "VendorConnection":
        if self.driver_volume_type in MOUNTED_PROTOCOLS:
            extra = self.data.__pydantic_extra__
            for key in ("export", "name"):
                if not isinstance(extra.get(key), str | SecretStr):
                    raise ValueError(f"data needs {key}, a string")
            _plain_file_name(extra["name"])
        if self.driver_volume_type == "vzstorage" and isinstance(extra["export"], str):
            if is_asked(info) and not VZSTORAGE_EXPORT.fullmatch(extra["export"]):
                raise ValueError(
                    "data.export must be [MDS1[,MDS2...]:/]CLUSTER[:PASSWORD], without ':/' in "
                    "the password"
                )
            extra["export"] = SecretStr(extra["export"])
        return self

    @model_validator(mode="after")
    def _can_be_left(self, info: ValidationInfo) -> "VendorConnection":
        needed = NEEDED.get(self.driver_volume_type, ()) if is_asked(info) else ()
        for key in needed:
            if self.data.__pydantic_extra__.get(key) is None:
                raise ValueError(f"data needs {key}")
        return self

    @field_validator("driver_volume_type")
    @classmethod
    def _known(cls, protocol: str, info: ValidationInfo) -> str:
        if is_asked(info) and protocol in UNFIT:
            raise ValueError(f"{protocol} {UNFIT[protocol]}")
        if is_asked(info) and protocol not in VENDOR_PROTOCOLS:
            known = ", ".join((*_TYPED, *VENDOR_PROTOCOLS))
            raise ValueError(f"is none of {known}")
        return protocol

    @property
    def targets(self) -> tuple[str, ...]:
        """For people to see: without a password."""
        if self.driver_volume_type != "vzstorage":
            return (self.export or self.driver_volume_type,)
        parts = VZSTORAGE_EXPORT.fullmatch(self.export or "")
        return (parts[1] if parts else self.driver_volume_type,)

    @property
    def export(self) -> str | None:
        if self.driver_volume_type not in MOUNTED_PROTOCOLS:
            return None
        return str(self.properties()["export"])

    @property
    def stays_until_unmapped(self) -> bool:
        """os-brick unmaps a PowerFlex volume by itself only where nobody told it this host's
        ``sdc_guid``, and of LightOS it takes back the note by which the namespace was reached."""
        if self.driver_volume_type == "scaleio":
            return "sdc_guid" in self.data.__pydantic_extra__
        return self.driver_volume_type == "lightos"

    @property
    def source_type(self) -> Literal["block", "file", "network"]:
        return "file" if self.export or self.driver_volume_type == "gpfs" else "block"


_TYPED = ("iscsi", "iser", "fibre_channel", "nvmeof", "nfs", "rbd", "local")


def _which(info: Any) -> str:
    protocol = (
        info.get("driver_volume_type")
        if isinstance(info, dict)
        else getattr(info, "driver_volume_type", None)
    )
    return protocol if protocol in _TYPED else "vendor"


AnyConnection = Annotated[
    Annotated[IscsiConnection, Tag("iscsi")]
    | Annotated[IscsiConnection, Tag("iser")]
    | Annotated[FibreChannelConnection, Tag("fibre_channel")]
    | Annotated[NvmeConnection, Tag("nvmeof")]
    | Annotated[NfsConnection, Tag("nfs")]
    | Annotated[RbdConnection, Tag("rbd")]
    | Annotated[LocalConnection, Tag("local")]
    | Annotated[VendorConnection, Tag("vendor")],
    Discriminator(_which),
]


def refuse_flat(info: Any) -> Any:
    """A clear word for the commonest mistake: the volume service's flat form."""
    if isinstance(info, dict) and "driver_volume_type" in info and "data" not in info:
        raise ValueError(
            "is in the volume service's flat form; the wire's is {driver_volume_type, data: {…}}: "
            "agent.bus.client.from_cinder() turns one into the other"
        )
    return info
