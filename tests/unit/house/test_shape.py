"""Sizes, exceptions and waits. What is listed here has a reason; an entry without one goes."""

import ast
from collections.abc import Iterator

import pytest

from tests.unit.house.source import Function, Module, modules

FILE_LINES = 400
FUNCTION_LINES = 60

LONG_FILES = {
    "agent/model/connection.py": "one class for each protocol: they are read side by side",
    "agent/ports.py": "every port of the core: what a host must be is read in one place",
}

LONG_FUNCTIONS: dict[str, str] = {}
"""{file: function: reason}"""

BROAD_EXCEPTS = {
    "agent/bus/endpoints.py:_guarded": "the bus's edge: a defect is answered as a value",
    "agent/journal/store.py:Journal._apply": "raised again in the thread that queued the change",
    "agent/saga/settle.py:Settler._ask": "a defect of ours must not lose the operation",
    "agent/service/killable.py:_connect": "answered as a problem: silence would mean a sick array",
    "agent/service/lost.py:LostVolumes._try": "the thread's top: the volume is tried again",
    "agent/service/turns.py:do_all": "the others have their turn, and it is raised as Internal",
    "agent/service/turns.py:Turns._run": "the thread's top: it is tried at the next turn",
    "agent/service/workers.py:Workers._step_or_wait": "the thread's top: the operation waits",
}
"""Who may catch everything and go on. Who raises again at the end needs no entry."""

SLEEPS = {
    "agent/host/locks.py:FileLocks._take": "a thread in flock(2) cannot be told to give up",
    "agent/host/brick_locks.py:OsBrickLocks._wait_for_other": "os-brick's lock tells nobody",
    "agent/host/libvirt_loop.py:EventLoop._run": "libvirt's loop failed: not again at once",
}
"""Who waits for nothing but time."""

AGENT = modules("agent")


@pytest.mark.parametrize("module", modules("agent", "tools"), ids=lambda module: module.relative)
def test_a_file_is_read_in_one_sitting(module: Module) -> None:
    lines = module.text.count("\n")
    if module.relative in LONG_FILES:
        assert lines > FILE_LINES, f"{module.relative} needs no reason any more"
    else:
        assert lines <= FILE_LINES, f"{module.relative}: split it, or list it with the reason"


def test_a_function_is_seen_at_once() -> None:
    everything = modules("agent", "tools", "tests")
    long = {
        f"{module.relative}:{name}"
        for module in everything
        for name, function in module.functions()
        if _lines(function) > FUNCTION_LINES
    }
    assert long == set(LONG_FUNCTIONS), "split it, or list it with the reason"


def test_who_catches_everything() -> None:
    found = {
        f"{module.relative}:{name}"
        for module in AGENT
        for name, handler in _handlers(module)
        if _is_broad(handler) and not isinstance(handler.body[-1], ast.Raise)
    }
    assert found == set(BROAD_EXCEPTS), "name what you catch, or list it with the reason"


def test_who_sleeps() -> None:
    found = {
        f"{module.relative}:{name}"
        for module in AGENT
        for name, function in module.functions()
        for node in _own_nodes(function)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("time.sleep", "sleep")
    }
    assert found == set(SLEEPS), "wait for the event, or list it with the reason"


@pytest.mark.parametrize("module", AGENT, ids=lambda module: module.name)
def test_a_module_says_what_it_is_for(module: Module) -> None:
    assert not module.text.strip() or ast.get_docstring(module.tree)


def test_no_test_patches_our_own_names() -> None:
    """A test that replaces a private name restates the code; ports are there to be implemented."""
    for module in modules("tests"):
        names = set(module.imports())
        assert not {"mock", "unittest.mock"} & names, module.relative


def _lines(function: Function) -> int:
    assert function.end_lineno is not None
    return function.end_lineno - function.lineno + 1


def _handlers(module: Module) -> Iterator[tuple[str, ast.ExceptHandler]]:
    for name, function in module.functions():
        for node in _own_nodes(function):
            if isinstance(node, ast.ExceptHandler):
                yield name, node


def _own_nodes(function: Function) -> Iterator[ast.AST]:
    """Without those of functions within it: they have entries of their own."""
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, Function):
            waiting.extend(ast.iter_child_nodes(node))


def _is_broad(handler: ast.ExceptHandler) -> bool:
    caught = handler.type
    if caught is None:
        return True
    parts = caught.elts if isinstance(caught, ast.Tuple) else [caught]
    return any(ast.unparse(part) in ("Exception", "BaseException") for part in parts)
