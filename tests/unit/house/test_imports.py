"""Imports go one way (docs/index.rst), the core does no I/O, and nothing imports in a circle."""

import subprocess
import sys
from collections.abc import Iterator, Mapping

import pytest

from tests.unit.house.source import Module, modules

CORE = (
    "errors",
    "model",
    "ports",
    "guest",
    "journal",
    "saga",
    "steps",
    "operations",
    "admission",
)

MAY_SEE: dict[str, tuple[str, ...]] = {
    "errors": (),
    "model": ("errors",),
    "ports": ("errors", "model"),
    "conf": ("errors",),
    "guest": ("errors", "model", "ports"),
    "journal": ("errors", "model", "ports"),
    "saga": ("errors", "model", "ports", "guest", "journal"),
    "steps": ("errors", "model", "ports", "guest", "journal", "saga"),
    "operations": ("errors", "model", "ports", "guest", "journal", "saga", "steps"),
    "admission": (*CORE[:-1],),
    "host": ("errors", "model", "ports"),
    "bus": ("errors", "model", "ports"),
    "service": (*CORE, "conf", "host", "bus"),
    "cli": (*CORE, "conf", "host", "bus", "service"),
}
"""Besides itself."""

PURE = {
    "base64",
    "collections",
    "contextlib",
    "dataclasses",
    "datetime",
    "enum",
    "functools",
    "hashlib",
    "heapq",
    "itertools",
    "json",
    "logging",
    "lxml",
    "math",
    "pydantic",
    "re",
    "string",
    "typing",
    "uuid",
}
"""What a layer that decides may use. Nothing here opens a file, a socket or a clock."""

ADAPTED: dict[str, tuple[str, ...]] = {
    "libvirt": ("host",),
    "libvirt_qemu": ("host",),
    "os_brick": ("host",),
    "oslo_messaging": ("bus", "service", "cli"),
    "oslo_config": ("conf", "service", "cli"),
    "sqlite3": ("journal", "cli"),
    "lxml": ("guest", "host"),
    "rich": ("cli",),
}
"""Which layers may name a third party (or its errors); the others have a port for it."""


@pytest.mark.parametrize("module", modules("agent"), ids=lambda module: module.name)
class TestOneWay:
    def test_it_sees_only_what_is_below(self, module: Module) -> None:
        if not module.layer:
            return
        allowed = {module.layer, *MAY_SEE[module.layer]}
        seen = {name.split(".")[1] for name in module.imports() if name.startswith("agent.")}
        assert seen <= allowed, f"{module.name} sees too much"
        assert not any(name.startswith(("tests", "tools")) for name in module.imports())

    def test_what_decides_does_no_io(self, module: Module) -> None:
        if module.layer not in CORE or module.layer == "journal":
            return
        seen = {name.split(".")[0] for name in module.imports()} - {"agent"}
        assert seen <= PURE, f"{module.name}: reach the world through a port"

    def test_a_third_party_has_one_home(self, module: Module) -> None:
        for name in {name.split(".")[0] for name in module.imports()}:
            if name in ADAPTED:
                assert module.layer in ADAPTED[name], f"{module.name} imports {name}"


def test_every_layer_has_its_rule() -> None:
    assert {module.layer for module in modules("agent") if module.layer} == set(MAY_SEE)


def test_what_is_imported_of_ours_is_there() -> None:
    """Of tests and tools most run only beside a real libvirt, and nobody checks their types."""
    ours = modules("agent", "tests", "tools")
    known = {name for module in ours for name in module.top_names()}
    missing = [
        f"{module.relative}: {name}"
        for module in ours
        for name in module.imports()
        if name.split(".")[0] in ("agent", "tests", "tools") and name not in known
    ]
    assert missing == []


def test_nothing_imports_in_a_circle() -> None:
    names = {module.name for module in modules("agent")}
    graph = {
        module.name: sorted({name for name in module.imports() if name in names} - {module.name})
        for module in modules("agent")
    }
    assert list(_circles(graph)) == []


def test_a_circle_would_be_found() -> None:
    graph = {"a": ["b"], "b": ["c"], "c": ["a", "d"], "d": []}
    assert list(_circles(graph)) == [("a", "b", "c", "a")]


def test_nothing_loads_what_it_does_not_name() -> None:
    """The core can be used without libvirt, os-brick and a broker installed."""
    program = (
        "import sys, agent.operations, agent.saga.settle, agent.journal.store\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert not {"libvirt", "os_brick", "oslo_messaging", "oslo_config"} & set(loaded.stdout.split())


def _circles(graph: Mapping[str, list[str]]) -> Iterator[tuple[str, ...]]:
    """Each as the path that closes it; depth first, every module once."""
    done: set[str] = set()

    def follow(name: str, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        if name in path:
            yield (*path[path.index(name) :], name)
        elif name not in done:
            for other in graph[name]:
                yield from follow(other, (*path, name))
            done.add(name)

    for name in graph:
        yield from follow(name, ())
