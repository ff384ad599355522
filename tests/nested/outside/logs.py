"""What the hypervisor has to say at the end of a run, in files.

tests/nested/logs/
    NAME/             of the machine of ``--keep NAME``
    last/, last-2/    of others; the second only while two runs go on at once
        agent.log …   of the run, see LOGS
        TEST/         of a test that ran outside
"""

import fcntl
import itertools
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.nested.outside.machine import Machine

PLACE = Path(__file__).parents[1] / "logs"

LOGS = {
    "agent.log": "journalctl --no-pager -o short-precise -u 'attachment-agent*'",
    "system.log": "journalctl --no-pager -o short-precise",
    "kernel.log": "dmesg",
    "libvirt.log": "tail -n +1 /var/log/libvirt/qemu/*.log",
    "state.txt": "attachctl operations --all; attachctl list; attachctl audit; "
    "iscsiadm -m session -P 3; multipath -ll; nvme list-subsys; lsblk; mount",
}


@contextmanager
def log_directory(name: str | None) -> Iterator[Path]:
    """Empty, and nobody else's as long as it is held."""
    PLACE.mkdir(exist_ok=True)
    for number in itertools.count(1):
        chosen = name or ("last" if number == 1 else f"last-{number}")
        with (PLACE / f".{chosen}.lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            place = PLACE / chosen
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            yield place
            return


def fetch_logs(found: Machine, place: Path) -> None:
    place.mkdir(exist_ok=True)
    for name, command in LOGS.items():
        found.get(f"({command}) 2>&1 || true", place / name)
    shutil.copy(found.console, place / "console.log")
