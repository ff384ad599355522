"""The agent as systemd runs it on this machine, and its configuration."""

from pathlib import Path

from tests.nested.inside.leftovers import run

UNIT = "attachment-agent"
LOCK_PATH = "/var/lib/attachment-agent/os-brick"
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

    def stop(self) -> None:
        run("systemctl", "stop", UNIT)

    def start(self) -> None:
        run("systemctl", "start", UNIT)

    @property
    def pid(self) -> int:
        return int(run("systemctl", "show", "--value", "--property=MainPID", UNIT))

    def log(self) -> str:
        return run("journalctl", "--no-pager", "-u", UNIT)
