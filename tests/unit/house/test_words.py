"""One word, one meaning: names that say nothing, names that say it twice, and names of places."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.house.source import ROOT, Module, modules, own_files, text_of

SAYS_NOTHING = re.compile(
    r"(?:^|_)(?:utils?|common|managers?|helpers?|misc|stuff)(?:$|_)|^base_|_impl$"
)

CLASS_SAYS_NOTHING = re.compile(r"^(?:Base|Abstract)[A-Z]|(?:Manager|Helper|Utils?|Impl|Base)$")

SYNONYMS = {
    r"vms?|vm_.*|virtual_machine|machine_id|guest_id|server_id|domain_(id|uuid)|instance_uuid": (
        "instance_id; domain is libvirt's object, guest is what runs in it"
    ),
    r"vol|vol_.*|volume_uuid|lun_id": "volume_id",
    r"bdm|attachment_uuid|connection_id|attach_id": "attachment_id",
    r"op|op_id|task_id|job_id|request_uuid": "operation_id",
    r"conn_info|connection_properties": "connection",
    r"mountpoint|device_name|dev_name|disk_dev": "target_dev",
    r"timeout|size|delay|interval|retention|period|duration|ttl|bandwidth": (
        "the unit goes into the name: size_bytes, timeout_seconds"
    ),
    r".*(?<!bytes)(?<!iops)_(secs?|ms|msec|s|mb|gb|kb)": "_seconds, _bytes, _mib, in full",
}
"""What an argument or field may not be called, and what it is called instead."""

NAMED_BY_OTHERS = {
    "agent/model/connection.py": {"vol_uuid"},  # os-brick's nvmeof connector
    "agent/service/systemd.py": {"ServiceManager"},  # systemd's own word for itself
}

AGENT = modules("agent")

MODULES = pytest.mark.parametrize("module", AGENT, ids=lambda module: module.name)


@MODULES
def test_names_that_say_nothing(module: Module) -> None:
    assert not SAYS_NOTHING.search(module.name.rsplit(".", 1)[-1])
    classes = {node.name for node in ast.walk(module.tree) if isinstance(node, ast.ClassDef)}
    functions = {name.rsplit(".", 1)[-1].strip("_") for name, _ in module.functions()}
    wrong = {name for name in classes if CLASS_SAYS_NOTHING.search(name)}
    wrong |= {name for name in functions if SAYS_NOTHING.search(name)}
    assert wrong <= NAMED_BY_OTHERS.get(module.relative, set())


@MODULES
def test_names_that_have_another_name_here(module: Module) -> None:
    for line, name in _defined(module.tree):
        for synonym, ours in SYNONYMS.items():
            if re.fullmatch(synonym, name.strip("_").lower()):
                allowed = NAMED_BY_OTHERS.get(module.relative, set())
                assert name in allowed, f"{module.relative}:{line}: {name}: {ours}"


@MODULES
def test_what_people_read_says_instance(module: Module) -> None:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            assert not re.search(r"\bVMs?\b|\bvirtual machine", node.value), (
                f"{module.relative}:{node.lineno}"
            )


def test_work_that_is_left_has_an_issue() -> None:
    marks = "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK"))
    pattern = re.compile(rf"\b(?:{marks})\b(?!.*#\d+)")
    assert list(_lines_with(pattern)) == []


def test_nothing_names_the_place_where_it_was_written() -> None:
    """The project moves; where this copy of it happens to stand is nobody's business."""
    places = {str(ROOT)}
    if len(ROOT.parent.parts) > 1 and ROOT.parent not in map(Path, ("/root", "/home", "/tmp")):
        places.add(f"{ROOT.parent}/")
    pattern = re.compile("|".join(rf"(?<![\w.}}/-]){re.escape(place)}" for place in places))
    assert list(_lines_with(pattern)) == []


def _lines_with(pattern: re.Pattern[str]) -> Iterator[str]:
    for path in own_files():
        for number, line in enumerate(text_of(path).splitlines(), start=1):
            if pattern.search(line):
                yield f"{path.relative_to(ROOT)}:{number}: {line.strip()}"


def _defined(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, name) of the arguments of functions and the fields of classes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            yield node.lineno, node.arg
        if isinstance(node, ast.ClassDef):
            for field in node.body:
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                    yield field.lineno, field.target.id
