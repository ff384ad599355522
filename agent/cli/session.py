"""One run of attachctl: which host it is about, and how that is asked.

The agent is asked over the bus. Where it cannot be, and this is its host, what the journal holds
is read from the file instead; whoever looks is told so, as the daemon may be at work meanwhile.
"""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from agent.bus.client import AgentClient, Unreachable
from agent.cli.screen import Screen
from agent.cli.trouble import Exit, Trouble, usage
from agent.conf import Settings
from agent.errors import Invalid
from agent.journal.book import Book
from agent.journal.store import FILE_NAME, open_read_only

Found = TypeVar("Found")

Connect = Callable[[], AgentClient]


class Session:
    """``host`` None: the configuration's own. ``offline``: never ask the agent."""

    def __init__(
        self,
        settings: Settings,
        connect: Connect,
        screen: Screen,
        *,
        host: str | None = None,
        offline: bool = False,
    ) -> None:
        self.settings = settings
        self.screen = screen
        self.host = host or settings.host
        self._connect = connect
        self._offline = offline
        self._reads_journal = offline
        self._client: AgentClient | None = None
        if offline and self.host != settings.host:
            raise usage(
                f"--offline reads the journal of this host, {settings.host}: run attachctl on "
                f"{self.host} for that of {self.host}"
            )

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def agent(self) -> AgentClient:
        """Raises Unreachable; Trouble (usage) when offline."""
        if self._offline:
            raise usage(
                "this needs the agent: only list, show, operations, quarantine list and audit "
                "work with --offline"
            )
        if self._client is None:
            try:
                self._client = self._connect()
            except Invalid as error:
                raise usage(f"the configuration cannot be used: {error.detail}") from None
        return self._client

    @property
    def source(self) -> str:
        """Where what was read comes from: ``agent`` or ``journal``."""
        return "journal" if self._reads_journal else "agent"

    def read(self, ask: Callable[[AgentClient], Found], look: Callable[[Book], Found]) -> Found:
        """What the agent says, or else what stands in its journal.

        Raises Unreachable, Refused, Trouble."""
        if not self._reads_journal:
            try:
                return ask(self.agent())
            except Unreachable as error:
                if self.host != self.settings.host:
                    raise
                self._turn_to_journal(error)
        return self.look(look)

    def look(self, question: Callable[[Book], Found]) -> Found:
        """What stands in the journal.  Raises Trouble."""
        directory = self.settings.state_path
        _open_once(directory / FILE_NAME)
        try:
            return question(open_read_only(directory))
        except (sqlite3.Error, ValueError) as error:
            raise _unreadable(directory / FILE_NAME, f"{error}") from None

    def _turn_to_journal(self, error: Unreachable) -> None:
        self._reads_journal = True
        self.screen.note(f"note: {error}")
        self.screen.note(
            f"note: this is what the agent wrote last, read from {self.settings.state_path}"
        )


def _open_once(file: Path) -> None:
    """Say clearly what SQLite calls "unable to open database file"."""
    try:
        file.open("rb").close()
    except FileNotFoundError:
        raise _unreadable(
            file, "it is not there: no agent has run here with this configuration"
        ) from None
    except PermissionError:
        raise _unreadable(file, "only root may: try again with sudo") from None
    except OSError as error:
        raise _unreadable(file, f"{error.strerror}") from None


def _unreadable(file: Path, why: str) -> Trouble:
    return Trouble(Exit.UNREACHABLE, "unreachable", f"the journal {file} cannot be read: {why}")
