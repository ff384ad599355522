"""No storage call outside its locks: the volume's, then those of its targets (docs/locks.rst).

The simulated host asserts it of every call in every story (tests/world/storage.py), and
test_storage_locks.py of the real adapter. Here it is read from the source, for calls to come.
"""

import ast
from collections.abc import Iterator

from tests.unit.house.source import modules

WANTED = {
    "connect": {"volume", "targets"},
    "disconnect": {"volume", "targets"},
    "extend": {"volume", "targets"},
    "leave": {"targets"},  # an export, which is no volume's own
    "leave_subsystem": {"targets"},
}
"""The calls of ports.Connectors that change what others of a target have, and their locks."""


def _unlocked(node: ast.AST, held: frozenset[str] = frozenset()) -> Iterator[str]:
    """``connectors.connect(…)`` that is not within ``with locks.volume(…), locks.targets(…)``."""
    if isinstance(node, ast.With):
        held |= {_locks(item.context_expr) for item in node.items}
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        of = ast.unparse(node.func.value)
        if (
            of.split(".")[-1].strip("_") == "connectors"
            and not WANTED.get(node.func.attr, set()) <= held
        ):
            yield f"{node.lineno}: {of}.{node.func.attr}"
    for child in ast.iter_child_nodes(node):
        yield from _unlocked(child, held)


def _locks(taken: ast.expr) -> str:
    """``volume`` of ``host.locks.volume(…)``."""
    if not isinstance(taken, ast.Call) or not isinstance(taken.func, ast.Attribute):
        return ""
    return taken.func.attr if ast.unparse(taken.func.value).endswith("locks") else ""


def test_every_storage_call_is_made_under_its_locks() -> None:
    found = {module.relative: list(_unlocked(module.tree)) for module in modules("agent")}
    assert {name: calls for name, calls in found.items() if calls} == {}


def test_one_without_would_be_found() -> None:
    text = "with host.locks.volume(v):\n    host.connectors.connect(a)\n"
    assert list(_unlocked(ast.parse(text))) == ["2: host.connectors.connect"]
