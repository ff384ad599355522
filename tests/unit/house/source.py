"""The project's own files, read once."""

import ast
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[3]

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """One Python file; ``name`` as it is imported."""

    path: Path
    name: str
    text: str
    tree: ast.Module

    @property
    def relative(self) -> str:
        return str(self.path.relative_to(ROOT))

    @property
    def layer(self) -> str:
        """``agent.guest.disk_xml`` is of guest, ``agent.errors`` of errors."""
        return self.name.split(".")[1] if "." in self.name else ""

    def functions(self) -> Iterator[tuple[str, Function]]:
        """(qualified name, definition), those within others too."""
        yield from _functions(self.tree, "")

    def top_names(self) -> Iterator[str]:
        """What can be imported from it, itself included."""
        yield self.name
        for node in self.tree.body:
            for part in ast.walk(node) if not isinstance(node, Function | ast.ClassDef) else [node]:
                if isinstance(part, Function | ast.ClassDef):
                    yield f"{self.name}.{part.name}"
                elif isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                    yield f"{self.name}.{part.id}"
                elif isinstance(part, ast.alias):
                    yield f"{self.name}.{part.asname or part.name}"

    def imports(self) -> Iterator[str]:
        """Every module that it names, wherever in it, but the future."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{self.relative}:{node.lineno}: a relative import"
                assert node.module is not None
                yield node.module
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _functions(node: ast.AST, outer: str) -> Iterator[tuple[str, Function]]:
    for child in ast.iter_child_nodes(node):
        name = outer
        if isinstance(child, Function | ast.ClassDef):
            name = f"{outer}.{child.name}".lstrip(".")
        if isinstance(child, Function):
            yield name, child
        yield from _functions(child, name)


@cache
def modules(*folders: str) -> tuple[Module, ...]:
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return tuple(_module(path) for path in paths)


def _module(path: Path) -> Module:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    text = path.read_text()
    return Module(path, name, text, ast.parse(text, str(path)))


@cache
def own_files() -> tuple[Path, ...]:
    """Everything that git tracks, or would; where there is no git, everything by its suffix."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listed.returncode == 0:
        return tuple(path for name in listed.stdout.split("\n") if (path := ROOT / name).is_file())
    folders = ("agent", "tests", "tools", "docs", "etc")
    return tuple(
        path
        for folder in folders
        for path in sorted((ROOT / folder).rglob("*"))
        if path.is_file()
        and re.fullmatch(r"\.(py|rst|sh|conf|sample|service|json|xml)", path.suffix)
    )


def text_of(path: Path) -> str:
    """Empty for what is no text."""
    try:
        return path.read_text()
    except UnicodeDecodeError:
        return ""
