"""Words and tables for people on one side, JSON for programs on the other; never both.

Results go to standard output, everything else (progress, notes, troubles) to standard error.
No colour where the stream is not a terminal (or NO_COLOR is set).
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import datetime
from typing import Any, Literal, Protocol, TextIO, cast

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

SHORTEST_ID = 8
FEW_MORE = 4
"""Characters that are not worth cutting off an id."""

UNLIMITED_WIDTH = 1000

GAP = 2
"""Blanks between two columns of a table."""

LAST_COLUMN_WIDTH = 24
"""What the last column of a table gets at least."""


class Unwritten(Exception):
    """What is to be shown cannot be: the disk is full, or the reader has gone."""

    def __init__(self, error: OSError) -> None:
        super().__init__(error)
        self.error = error


class Writing:
    """A stream of which only writing can fail with Unwritten: all else is the command's trouble."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with _writing():
            return self._stream.write(text)

    def flush(self) -> None:
        with _writing():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unwritten(error) from error


class Tell(Protocol):
    def __call__(self, text: str, moving: str = "") -> None: ...


class Screen:
    """``wide``: ids in full and lines as long as they are; else tables of the screen's width.

    Everything that writes raises Unwritten."""

    def __init__(
        self,
        out: TextIO,
        err: TextIO,
        *,
        as_json: bool = False,
        wide: bool = False,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._out = cast("TextIO", Writing(out))
        told = cast("TextIO", Writing(err))
        self._console = Console(file=self._out, highlight=False, markup=False, emoji=False)
        self._error = Console(file=told, highlight=False, markup=False, emoji=False, soft_wrap=True)
        if wide:
            self._console.width = UNLIMITED_WIDTH
        self.as_json = as_json
        self.wide = wide
        self._now = now

    # results

    def json(self, value: Mapping[str, Any]) -> None:
        self._out.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")

    def text(self, text: str) -> None:
        """As it is, however long its lines are."""
        self._out.write(text.rstrip("\n") + "\n")

    def heading(self, text: str) -> None:
        self._print(Text(text, style="bold"))

    def table(
        self,
        headers: Sequence[str],
        rows: Sequence[Sequence[str]],
        empty: str,
        overflow: Literal["fold", "ellipsis"] = "fold",
    ) -> None:
        """The last column takes what room is left; ``empty`` is said where there is no row."""
        if not rows:
            self.note(empty)
            return
        table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
        for header in headers[:-1]:
            table.add_column(header, no_wrap=True)
        table.add_column(headers[-1])
        for *cells, last in rows:
            no_wrap = overflow == "ellipsis"  # of the column, it would cut all columns instead
            table.add_row(*cells, Text(last, overflow=overflow, no_wrap=no_wrap))
        natural = [
            max(cell_len(text) for text in column) + GAP
            for column in list(zip(headers, *rows, strict=True))[:-1]
        ]
        self._print(table, at_least=sum(natural) + LAST_COLUMN_WIDTH)

    def fields(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Name and value, line by line, indented."""
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(no_wrap=True, style="dim")
        grid.add_column(overflow="fold")
        for name, value in pairs:
            grid.add_row(f"  {name}", value)
        self._print(grid)

    def _print(self, renderable: object, at_least: int = 0) -> None:
        """Without the blanks with which rich fills its cells. Of a width below ``at_least`` rich
        would cut ids, and leave columns out: the terminal breaks the lines instead."""
        width = max(self._console.width, at_least)
        with self._console.capture() as captured:
            self._console.print(renderable, width=width)
        for line in captured.get().splitlines():
            self._out.write(line.rstrip() + "\n")

    # what is said beside them

    def note(self, text: str) -> None:
        self._error.print(text)

    def trouble(self, text: str) -> None:
        self._error.print(Text.assemble(("attachctl: ", "bold red"), text))

    @contextmanager
    def progress(self) -> Iterator["Tell"]:
        """Tell what goes on, as often as you like: each change is one line; silent with --json.

        On a terminal the present state is a line that moves, and stays once it is past; how far it
        is (the second argument) is shown there alone."""
        if self.as_json:
            yield lambda _text, _moving="": None
            return
        status = self._error.status("") if self._error.is_terminal else None
        said = ""

        def tell(text: str, moving: str = "") -> None:
            nonlocal said
            if status is not None:
                if said and text != said:
                    self.note(said)
                status.update(Text(f"{moving} {text}".lstrip()))
            elif text != said:
                self.note(text)
            said = text

        with status or nullcontext():
            yield tell

    # how values are written

    def short(self, ids: Sequence[str | None]) -> Callable[[str | None], str]:
        """How each of ``ids`` is written: in full if wide, else as far as they differ."""
        if self.wide:
            return lambda wanted: wanted or "-"
        known = {one for one in ids if one}
        length = next(
            length
            for length in range(SHORTEST_ID, 100)
            if len({one[:length] for one in known}) == len(known)
        )
        return lambda wanted: _cut(wanted, length) if wanted else "-"

    def ago(self, moment: str | float | None) -> str:
        """How long ago, roughly: for tables."""
        seconds = None if moment is None else self._now() - _epoch(moment)
        return "-" if seconds is None else _roughly(seconds)

    def moment(self, moment: str | float | None) -> str:
        """In the operator's own time zone, and how long ago."""
        if moment is None:
            return "-"
        local = datetime.fromtimestamp(_epoch(moment)).astimezone()
        return f"{local:%Y-%m-%d %H:%M:%S %Z} ({self.ago(moment)} ago)"


def flat(value: object, name: str = "") -> Iterator[tuple[str, str]]:
    """Nested values as dotted names, plain inner ones (an address, an identity) in one line; what
    is null or empty is left out."""
    if name and isinstance(value, Mapping) and all(isinstance(v, str) for v in value.values()):
        if value:
            yield name, " ".join(f"{key}={inner}" for key, inner in value.items())
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from flat(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        if any(isinstance(inner, Mapping | list | tuple) for inner in value):
            for number, inner in enumerate(value):
                yield from flat(inner, f"{name}[{number}]")
        elif value:
            yield name, ", ".join(plain(inner) for inner in value)
    elif value is not None:
        yield name, plain(value)


def plain(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)


def _cut(one: str, length: int) -> str:
    return one if len(one) <= length + FEW_MORE else one[:length]


def _epoch(moment: str | float) -> float:
    return datetime.fromisoformat(moment).timestamp() if isinstance(moment, str) else moment


def _roughly(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
