"""What every noun is: frozen, parsed once, strict about its fields, silent about secrets."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SecretStr,
    SerializationInfo,
    StrictInt,
    StrictStr,
    StringConstraints,
    ValidationError,
    ValidationInfo,
)

from agent.errors import Invalid

_REVEAL = {"reveal": True}

_ASKED = {"asked": True}
"""Somebody asks for it: what he may not wish is refused, and what was stored may be read back."""


def is_asked(info: ValidationInfo) -> bool:
    return info.context == _ASKED


def dump_secret(secret: SecretStr, info: SerializationInfo) -> str:
    revealed = isinstance(info.context, dict) and info.context == _REVEAL
    return secret.get_secret_value() if revealed else "***"


def _lower_uuid(value: object) -> object:
    if isinstance(value, str) and not _UUID.fullmatch(value):
        raise ValueError("must be a lower-case uuid like 7a8fa66e-2af6-41d4-a3e0-4351ce33ce73")
    return value


_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

SECRET_NAME = re.compile(
    r"passw|passphrase|pwd|keyring|secret(?!_(uuid|type|file))|token|credential"
    r"|(api|private|access)_?key",
    re.I,
)
"""Fields of which a text is a secret, whoever sends them."""

Secret = Annotated[SecretStr, PlainSerializer(dump_secret, return_type=str)]
"""Shows as ``***`` in repr, logs and dumps, except in :meth:`Value.reveal`."""

Id = Annotated[StrictStr, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
"""libvirt silently drops aliases with other characters (docs/identity.rst)."""

Uuid = Annotated[
    StrictStr,
    BeforeValidator(_lower_uuid),
    Field(json_schema_extra={"pattern": f"^{_UUID.pattern}$"}),
]
LARGEST = 2**63 - 1
"""The largest number that SQLite and libvirt hold; JSON knows no limit."""

Count = Annotated[StrictInt, Field(ge=0, le=LARGEST)]
Positive = Annotated[StrictInt, Field(ge=1, le=LARGEST)]


class Value(BaseModel):
    """A frozen noun. Unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    @classmethod
    def parse(cls, payload: object) -> Self:
        """The noun in ``payload`` (JSON-like).  Raises Invalid, naming every wrong field."""
        if not isinstance(payload, Mapping):
            raise Invalid(f"expected an object with named fields, got {type(payload).__name__}")
        for place in _unwritable(payload, ()):
            raise Invalid(f"{place}: has a character that neither XML nor a path can hold")
        try:
            return cls.model_validate(payload, context=_ASKED)
        except ValidationError as error:
            raise Invalid(_explain(error, payload)) from None

    def public(self) -> dict[str, Any]:
        """JSON-like, secrets masked: for answers, logs, the operator's eyes."""
        return self.model_dump(mode="json", exclude_unset=True, by_alias=True)

    def reveal(self) -> dict[str, Any]:
        """JSON-like with its secrets: for the 0600 journal and for os-brick, nobody else."""
        return self.model_dump(mode="json", exclude_unset=True, by_alias=True, context=_REVEAL)


def without_secrets(part: Any, name: str = "") -> Any:
    """A copy of JSON-like ``part`` in which texts of secret fields, at any depth, are ``***``."""
    if isinstance(part, str) and SECRET_NAME.search(name):
        return "***"
    if isinstance(part, dict):
        return {key: without_secrets(inner, str(key)) for key, inner in part.items()}
    if isinstance(part, list | tuple):
        return [without_secrets(inner, name) for inner in part]
    return part


UNWRITABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
"""Characters that neither XML nor a path can hold."""


def _unwritable(part: object, place: tuple[str, ...]) -> Iterator[str]:
    """The places of texts that lxml, or the kernel, would refuse half way through."""
    if isinstance(part, str) and UNWRITABLE.search(part):
        yield ".".join(place)
    if isinstance(part, Mapping):
        for name, inner in part.items():
            yield from _unwritable(inner, (*place, str(name)))
    if isinstance(part, list | tuple):
        for number, inner in enumerate(part):
            yield from _unwritable(inner, (*place, str(number)))


def _explain(error: ValidationError, payload: object) -> str:
    """One line per wrong field. Never shows what was sent: it may be a password."""
    lines = []
    for fault in error.errors(include_input=False, include_url=False):
        missing = fault["loc"][-1:] if fault["type"] == "missing" else ()
        inside = fault["loc"][: len(fault["loc"]) - len(missing)]
        place = ".".join((*_place(inside, payload), *map(str, missing))) or "request"
        message = fault["msg"].removeprefix("Value error, ")
        if fault["type"] in _NO_OBJECT:
            message = "must be an object with named fields"
        lines.append(f"{place}: {message}")
    return "; ".join(lines)


def _place(loc: Sequence[int | str], payload: object) -> Iterator[str]:
    """As the sender wrote it: without the names that pydantic gives the forms of a field."""
    part = payload
    for number, name in enumerate(loc):
        is_written = isinstance(part, list | tuple) or (isinstance(part, Mapping) and name in part)
        if number and not is_written:
            continue
        yield str(name)
        if isinstance(part, Mapping):
            part = part.get(name)
        elif isinstance(part, list | tuple) and isinstance(name, int):
            part = part[name] if name < len(part) else None


_NO_OBJECT = frozenset(("dict_type", "model_type", "model_attributes_type"))
"""Faults for which pydantic names the class."""
