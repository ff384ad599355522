"""The agent as systemd runs it on this machine, and its configuration."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab import dying_agent
from tests.nested.inside.leftovers import run

UNIT = "attachment-agent"
STATE_PATH = Path("/var/lib/attachment-agent")
LOCK_PATH = f"{STATE_PATH}/os-brick"
CONFIGURATION = Path("/etc/attachment-agent/attachment-agent.conf")


class Agent:
    def __init__(self) -> None:
        self._default = CONFIGURATION.read_text()
        self._now = self._default

    def configure(self, **storage: object) -> None:
        """Options of [storage]; the agent is started again if that changes something."""
        options = "".join(f"{name} = {value}\n" for name, value in storage.items())
        wanted = f"{self._default}{options}"
        if wanted != self._now:
            CONFIGURATION.write_text(wanted)
            self._now = wanted
            self.restart()

    def restart(self) -> None:
        run("systemctl", "restart", UNIT)

    def kill(self) -> None:
        """SIGKILL; systemd starts it again."""
        run("systemctl", "kill", "--kill-whom=main", "--signal=KILL", UNIT)

    @contextmanager
    def mortal(self) -> Iterator[None]:
        """Meanwhile the unit runs the agent that dies by order."""
        dying = Path(dying_agent.__file__)
        drop_in = Path(f"/run/systemd/system/{UNIT}.service.d/mortal.conf")
        drop_in.parent.mkdir(parents=True, exist_ok=True)
        python = f"/opt/{UNIT}/bin/python"
        drop_in.write_text(
            f"[Service]\nExecStart=\nExecStart={python} {dying} --config-file {CONFIGURATION}\n"
        )
        try:
            self._reload()
            yield
        finally:
            drop_in.unlink()
            self._reload()

    def _reload(self) -> None:
        """What runs is what the unit says now."""
        run("systemctl", "daemon-reload")
        self.restart()

    def stop(self) -> None:
        run("systemctl", "stop", UNIT)

    def start(self) -> None:
        run("systemctl", "start", UNIT)

    @property
    def pid(self) -> int:
        return int(run("systemctl", "show", "--value", "--property=MainPID", UNIT))

    def log(self) -> str:
        return run("journalctl", "--no-pager", "-u", UNIT)
