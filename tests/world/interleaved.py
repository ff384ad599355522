"""Two operations at once, one instant at a time: who goes on is decided beforehand.

Each operation has a thread, and only the one that has the turn runs. It gives the turn away at
the calls of ports that ``switches`` names, where the other holds the lock that it wants, and when
it has nothing to do.
"""

import threading
from dataclasses import dataclass, field

from tests.world.story import Ask
from tests.world.world import World

DEADLINE_SECONDS = 60.0
"""For a thread to get its turn: a sweep that hangs ends, and says so."""


@dataclass(frozen=True)
class Interleaved:
    """An act of a story: both are asked and run; the first begins.

    ``switches``: after how many calls of its own each turn ends; after the last one each runs to
    its end. ``made`` are those that came before an end did. A request may be refused: which of
    two comes first may decide that."""

    pair: tuple[Ask, Ask]
    switches: tuple[int, ...] = ()
    made: list[int] = field(default_factory=list)

    def __call__(self, world: World) -> None:
        sides = _Sides(world, self)
        world.instants.watch = sides.watch
        world.locks.wait = sides.wait_for
        try:
            sides.run()
        finally:
            world.instants.watch = lambda name: None


@dataclass
class _Sides:
    world: World
    act: Interleaved
    turn: int = 0
    calls: list[int] = field(default_factory=lambda: [0, 0])
    over: set[int] = field(default_factory=set)
    errors: list[BaseException] = field(default_factory=list)
    is_asking: bool = False

    def __post_init__(self) -> None:
        self._changed = threading.Condition()
        self._side_of: dict[int, int] = {}

    def run(self) -> None:
        threads = [threading.Thread(target=self._live, args=(side,)) for side in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE_SECONDS)
            assert not thread.is_alive(), "two operations wait for each other"
        if self.errors:
            raise self.errors[0]

    def watch(self, name: str) -> None:
        """Before each instant; at calls of ports the turn may end."""
        side = self._side_of.get(threading.get_ident())
        if side is None or self.is_asking or not _is_call(name):
            return
        switches = self.act.switches
        made = self.act.made
        if len(made) < len(switches) and self.calls[side] >= switches[len(made)]:
            made.append(self.calls[side])
            self.calls[side] = 0
            self._give_turn(side)
        self.calls[side] += 1

    def wait_for(self, lock: str) -> None:
        side = self._side_of[threading.get_ident()]
        assert 1 - side not in self.over, f"{lock} is held, and its holder waits for nothing"
        self._give_turn(side)

    def _live(self, side: int) -> None:
        self._side_of[threading.get_ident()] = side
        try:
            self._take_turn(side)
            if not self.errors:
                self._ask_and_run(side)
        except BaseException as error:  # noqa: BLE001 - raised again by run, in the test's thread
            self.errors.append(error)
        finally:
            with self._changed:
                self.over.add(side)
                self.turn = 1 - side
                self._changed.notify_all()

    def _ask_and_run(self, side: int) -> None:
        ask = self.act.pair[side]
        self.is_asking = True
        answer = ask.send(self.world)
        self.is_asking = False
        assert answer["state"] != "refused" or answer["error"]["retriable"], answer
        while self.world.tasks.do_next(str(ask.request["request_id"])):
            pass

    def _give_turn(self, side: int) -> None:
        with self._changed:
            if 1 - side in self.over:
                return
            self.turn = 1 - side
            self._changed.notify_all()
        self._take_turn(side)

    def _take_turn(self, side: int) -> None:
        with self._changed:
            came = self._changed.wait_for(lambda: self.turn == side, DEADLINE_SECONDS)
        assert came, "the other operation does not go on"


def _is_call(name: str) -> bool:
    """A call of any port, the journal's writes among them; what follows it is its end."""
    return not name.startswith("after ")
