"""The agent as its own process, configured for the lab, and known to be ready by sd_notify."""

import configparser
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.lab.patience import PATIENCE, LabError

Options = Mapping[str, Mapping[str, object]]

# The agent does not outlive the thread that started it, however that ends.
_NO_OUTLIVING = ("setpriv", "--pdeathsig", "KILL")
_START_SECONDS = 60 * PATIENCE
_STOP_SECONDS = 60 * PATIENCE


class AgentProcess:
    """One agent. Its journal and configuration stay over stop, kill and start.

    ``options`` are further options by section, over those that the lab gives.
    ``program`` is what the next start() runs; ``--config-file`` and the file's path are added.
    """

    def __init__(
        self,
        directory: Path,
        *,
        host: str,
        transport_url: str,
        libvirt_uri: str,
        allowed_paths: Sequence[str] = ("/dev",),
        options: Options | None = None,
        environment: Mapping[str, str] | None = None,
        program: Sequence[str] | None = None,
    ) -> None:
        self.host = host
        self.libvirt_uri = libvirt_uri
        self.directory = directory
        self.config_file = directory / "agent.conf"
        self.state_path = directory / "state"
        self.log_file = directory / "agent.log"
        self.output_file = directory / "output"
        self.environment = dict(environment or {})
        self.statuses: list[str] = []
        self.program = list(program or [str(Path(sys.executable).with_name("attachment-agent"))])
        self._process: subprocess.Popen[bytes] | None = None
        self._notices: socket.socket | None = None
        self.state_path.mkdir(parents=True)
        lock_path = str(directory / "locks")
        self.configure(
            {
                "DEFAULT": {
                    "host": host,
                    "transport_url": transport_url,
                    "state_path": str(self.state_path),
                    "log_file": str(self.log_file),
                    "debug": "true",
                },
                "libvirt": {"uri": libvirt_uri},
                "local": {"allowed_paths": ",".join(allowed_paths)},
                "oslo_concurrency": {"lock_path": lock_path},
                "os_brick": {"lock_path": lock_path},
            },
            options or {},
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def configure(self, *layers: Options) -> None:
        """Write these options over those that the configuration file has; read at start()."""
        file = configparser.RawConfigParser(default_section="")
        file.optionxform = str  # type: ignore[assignment,method-assign]  # names as they are
        file.read(self.config_file)
        for layer in layers:
            for section, options in layer.items():
                if not file.has_section(section):
                    file.add_section(section)
                for name, value in options.items():
                    file.set(section, name, str(value))
        with self.config_file.open("w") as target:
            file.write(target)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs, or was never started; negative for the signal that killed it."""
        return None if self._process is None else self._process.poll()

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, *, environment: Mapping[str, str] | None = None, wait: bool = True) -> None:
        """Start it; back when it has said READY=1. ``environment`` is for this start only."""
        if self.is_running():
            raise LabError(f"the agent of {self.host} runs already")
        self.statuses = []
        address = self._listen()
        with self.output_file.open("ab") as output:
            self._process = subprocess.Popen(
                [*_NO_OUTLIVING, *self.program, "--config-file", str(self.config_file)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={
                    **os.environ,
                    **self.environment,
                    **(environment or {}),
                    "NOTIFY_SOCKET": str(address),
                },
                start_new_session=True,
            )
        if wait:
            self.wait_ready()

    def _listen(self) -> Path:
        address = self.directory / "notify"
        address.unlink(missing_ok=True)
        if self._notices is not None:
            self._notices.close()
        self._notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notices.bind(str(address))
        return address

    def wait_ready(self, *, seconds: float = _START_SECONDS) -> None:
        """Back when it has said READY=1. What it says on the way is in statuses."""
        self.wait_notice("READY=1", seconds=seconds)

    def wait_connected(self, *, seconds: float = _START_SECONDS) -> None:
        """Back when it has said that libvirt and the broker are there: its queues are too."""
        told = f"STATUS=connected to {self.libvirt_uri}; connected to the broker"
        self.wait_notice(told, seconds=seconds)

    def wait_notice(self, notice: str, *, seconds: float) -> None:
        """Back when it has told the service manager this line since start()."""
        assert self._notices is not None, "start it first"
        if notice in self.statuses:
            return
        deadline = time.monotonic() + seconds
        self._notices.settimeout(0.1)
        while time.monotonic() < deadline:
            try:
                lines = self._notices.recv(65536).decode().splitlines()
            except TimeoutError:
                if not self.is_running():
                    break
                continue
            self.statuses += lines
            if notice in lines:
                return
        raise LabError(
            f"the agent of {self.host} did not say {notice} within {seconds:g} s "
            f"(exit code {self.exit_code}):\n{self.last_words()}"
        )

    def last_words(self) -> str:
        texts = (
            file.read_text(errors="replace")[-3000:]
            for file in (self.output_file, self.log_file)
            if file.exists()
        )
        return "\n".join(texts)

    def wait(self, *, seconds: float = _STOP_SECONDS) -> int:
        """Its exit code, when it ends by itself."""
        assert self._process is not None, "start it first"
        try:
            return self._process.wait(timeout=seconds)
        except subprocess.TimeoutExpired as error:
            raise LabError(f"the agent of {self.host} still runs after {seconds:g} s") from error

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None, "start it first"
        self._process.send_signal(number)

    def stop(self, *, seconds: float = _STOP_SECONDS) -> int:
        """SIGTERM; its exit code."""
        self.send(signal.SIGTERM)
        return self.wait(seconds=seconds)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.send(signal.SIGKILL)
        self.wait()

    def restart(self, *, environment: Mapping[str, str] | None = None) -> None:
        """stop() where it runs, then start()."""
        if self.is_running():
            self.stop()
        self.start(environment=environment)

    def close(self) -> None:
        """End it, by force where SIGTERM does not help within 10 s."""
        if self.is_running():
            with contextlib.suppress(LabError):
                self.stop(seconds=10)
            if self.is_running():
                self.kill()
        if self._notices is not None:
            self._notices.close()
            self._notices = None
