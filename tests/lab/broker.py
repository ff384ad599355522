"""A private RabbitMQ on free ports of the loopback address.

    <directory>/
        home/        .erlang.cookie: made anew by each broker, so that none joins another
        mnesia/      queues and messages; kept over stop, kill and start
        log/         the node's log, and what it printed at start
        rabbitmq.conf, enabled_plugins

The machine's own broker, its epmd and its files under /etc and /var are not touched.
"""

import contextlib
import os
import random
import signal
import socket
import ssl
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.lab.certificates import Certificate
from tests.lab.enclosure import Enclosure, Inside
from tests.lab.patience import PATIENCE, LabError, wait_until

# Debian's /usr/sbin/rabbitmq-server would change to the machine's rabbitmq user and directory.
_PROGRAM = "/usr/lib/rabbitmq/bin/rabbitmq-server"

_CONF = """
log.file.level = warning
disk_free_limit.absolute = 50MB
vm_memory_high_watermark.absolute = 1GB
"""

_TLS_ONLY = """
listeners.tcp = none
listeners.ssl.1 = 127.0.0.1:{port}
ssl_options.cacertfile = {certificate.authority}
ssl_options.certfile = {certificate.file}
ssl_options.keyfile = {certificate.key}
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = true
default_vhost = attachments
default_user = attachment-agent
default_pass = not-a-password
"""

# No spinning schedulers: the guests need the processors.
_ERLANG = (
    "-noinput +sbwt none +sbwtdcpu none +sbwtdio none +S 2:2 "
    "-kernel inet_dist_use_interface {127,0,0,1}"
)

_AMQP_0_9_1 = b"AMQP\x00\x00\x09\x01"
_METHOD_FRAME = 1  # the broker's Connection.Start; another version is answered by a header


class Broker:
    """RabbitMQ with the user guest. Closing it ends every process it started.

    With a ``certificate`` it takes nothing but TLS, from whoever shows one of the same authority,
    and has a virtual host and a user of their own."""

    def __init__(self, directory: Path, *, certificate: Certificate | None = None) -> None:
        self.directory = directory
        self._ports = [_Port() for _ in range(3)]
        self.port, self._distribution_port, self._epmd_port = (port.number for port in self._ports)
        self._certificate = certificate
        login = "guest:guest@127.0.0.1:{}//"
        if certificate is not None:
            login = "attachment-agent:not-a-password@127.0.0.1:{}/attachments"
        self.url = f"rabbit://{login.format(self.port)}"
        self._enclosure = Enclosure("rabbitmq")
        self._server: Inside | None = None

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def open(self, *, wait: bool = True) -> None:
        """Make its place and start it; without ``wait``, call wait_ready() before use."""
        for name in ("home", "mnesia", "log"):
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        (self.directory / "rabbitmq.conf").write_text(self._configuration())
        (self.directory / "enabled_plugins").write_text("[].\n")
        self._enclosure.open()
        try:
            self._start()
            if wait:
                self.wait_ready()
        except BaseException:
            self._enclosure.close()
            raise

    def _configuration(self) -> str:
        if self._certificate is None:
            return _CONF
        return _CONF + _TLS_ONLY.format(port=self.port, certificate=self._certificate)

    def close(self) -> None:
        self._server = None
        self._enclosure.close()
        for port in self._ports:
            port.close()

    def start(self) -> None:
        """Start it again after stop() or kill(); back when it answers."""
        if self._server is not None and self._server.is_alive():
            raise LabError("the broker runs already")
        self._start()
        self.wait_ready()

    def _start(self) -> None:
        with (self.directory / "log" / "output").open("ab") as output:
            self._server = self._enclosure.start([_PROGRAM], output=output, env=self._environment())

    def stop(self) -> None:
        """End it in good order: what is durable is on disk."""
        assert self._server is not None
        self._server.send(signal.SIGTERM)
        self._server.wait(seconds=60)

    def kill(self) -> None:
        """SIGKILL."""
        assert self._server is not None
        self._server.kill()

    def restart(self) -> None:
        self.stop()
        self.start()

    @property
    def pid(self) -> int:
        assert self._server is not None
        return self._server.pid

    def control(self, *words: str) -> str:
        """What rabbitmqctl says to that."""
        argv = [f"{_PROGRAM.removesuffix('-server')}ctl", "--quiet", *words]
        return self._enclosure.run(argv, seconds=60 * PATIENCE, env=self._environment())

    def wait_ready(self) -> None:
        """Back when the broker takes connections. LabError after 60 s, or when it has ended."""
        wait_until(self._answers, "RabbitMQ answers", seconds=60, pause_seconds=0.1)

    def _answers(self) -> bool:
        assert self._server is not None
        if not self._server.is_alive():
            said = (self.directory / "log" / "output").read_text(errors="replace")
            raise LabError(f"RabbitMQ ended; its last words:\n{said[-2000:]}")
        address = ("127.0.0.1", self.port)
        with (
            contextlib.suppress(OSError),
            self._greeted(socket.create_connection(address, timeout=2)) as connection,
        ):
            connection.sendall(_AMQP_0_9_1)
            return connection.recv(1) == bytes([_METHOD_FRAME])
        return False

    def _greeted(self, connection: socket.socket) -> socket.socket:
        """TLS where that is spoken."""
        mine = self._certificate
        if mine is None:
            return connection
        context = ssl.create_default_context(cafile=str(mine.authority))
        context.load_cert_chain(mine.file, mine.key)
        return context.wrap_socket(connection, server_hostname="127.0.0.1")

    def _environment(self) -> dict[str, str]:
        place = str(self.directory)
        plain = {"RABBITMQ_NODE_PORT": str(self.port)}  # stronger than the configuration
        return {
            **({} if self._certificate else plain),
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            "HOME": f"{place}/home",
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self._epmd_port),
            "RABBITMQ_ALLOW_INPUT": "true",  # no shell between us and the node
            "RABBITMQ_CONF_ENV_FILE": f"{place}/rabbitmq-env.conf",  # there is none
            "RABBITMQ_CONFIG_FILE": f"{place}/rabbitmq.conf",
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{place}/enabled_plugins",
            "RABBITMQ_LOG_BASE": f"{place}/log",
            "RABBITMQ_MNESIA_BASE": f"{place}/mnesia",
            "RABBITMQ_NODENAME": f"lab{os.getpid()}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_PID_FILE": f"{place}/pid",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": _ERLANG,
        }


class _Port:
    """A port that nobody listens on now, and that no other broker of any test chooses before
    close(): this one listens there seconds later, and not while it is stopped.

    An abstract socket of its name says so, which goes with its owner. The kernel gives none of
    these ports to who asks for any, as clients do (net.ipv4.ip_local_port_range)."""

    def __init__(self) -> None:
        for _ in range(100):
            self.number = random.randrange(20_000, 30_000)
            self._claim = socket.socket(socket.AF_UNIX)
            try:
                self._claim.bind(f"\0ua-port-{self.number}")
                socket.create_server(("127.0.0.1", self.number)).close()
            except OSError:
                self._claim.close()
                continue
            return
        raise LabError("no port is free")

    def close(self) -> None:
        self._claim.close()
