"""A guest that writes without a pause, wherever it is."""

import itertools
import threading

from tests.lab.guest import Guest, GuestSilent
from tests.lab.patience import wait_until
from tests.lab.two_hypervisors import TwoHypervisors


class Writer(threading.Thread):
    """Lets the guest write one word after the other, on whichever side it is, until it is over."""

    def __init__(self, two: TwoHypervisors, guest: Guest, disk: str) -> None:
        super().__init__()
        self._two = two
        self._guest = guest
        self._disk = disk
        self._over = threading.Event()
        self.written = 0

    def run(self) -> None:
        for number in itertools.count():
            if self._over.is_set():
                return
            self._write(number)
            self.written = number + 1

    def _write(self, number: int) -> None:
        """The line may be cut by the move: what was asked is asked again on the other side."""

        def is_written() -> bool:
            try:
                self._guest.write(self._disk, f"word-{number}", offset_mib=number % 8)
            except GuestSilent:
                self._two.find(self._guest)
                return False
            return True

        wait_until(is_written, f"word {number} is written", seconds=60)

    def stop(self) -> None:
        self._over.set()
        self.join()
