"""Who runs next: one running operation an instance, in the order of acceptance.

Pure: it holds names, not threads. A parked operation gives its instance's turn away; a woken one
goes to the head of the queue. An event that comes while its operation runs is kept, so that the
wake-up between "looked" and "parked" is never lost. An operation on several instances takes one
turn after the other, never two at once; one that is to be closed unbegun steps aside.
"""

import heapq
from collections import deque
from dataclasses import dataclass, field
from itertools import count


@dataclass
class _Instance:
    """``parked`` is {operation: when to wake it}."""

    ready: deque[str] = field(default_factory=deque)
    running: str | None = None
    parked: dict[str, float] = field(default_factory=dict)
    stirred: bool = False


class Schedule:
    """Not thread-safe: its owner holds a lock."""

    def __init__(self) -> None:
        self._instances: dict[str, _Instance] = {}
        self._instance_of: dict[str, str] = {}
        self._accepted: dict[str, int] = {}
        self._count = count()
        self._alarms: list[tuple[float, str]] = []

    def accept(self, operation_id: str, instance_id: str) -> None:
        self._accepted[operation_id] = next(self._count)
        self._join(operation_id, instance_id)

    def take(self) -> list[str]:
        """Everything that may run now; each is running from here on."""
        taken = []
        for instance in self._instances.values():
            if instance.running is None and instance.ready:
                instance.running = instance.ready.popleft()
                instance.stirred = False
                taken.append(instance.running)
        return taken

    def park(self, operation_id: str, wake_at: float) -> None:
        instance = self._of(operation_id)
        assert instance.running == operation_id, f"{operation_id} parks without its turn"
        instance.running = None
        if instance.stirred:
            instance.ready.appendleft(operation_id)
        else:
            instance.parked[operation_id] = wake_at
            heapq.heappush(self._alarms, (wake_at, operation_id))

    def move(self, operation_id: str, instance_id: str) -> bool:
        """It runs, and needs this instance's turn next.  True: it has it; False: it queues."""
        if self._instance_of[operation_id] == instance_id:
            return True
        self._leave(operation_id)
        self._join(operation_id, instance_id)
        return False

    def queued(self) -> list[str]:
        """What waits for a turn."""
        return [one for instance in self._instances.values() for one in instance.ready]

    def is_queued(self, operation_id: str) -> bool:
        return operation_id in self._of(operation_id).ready

    def is_running(self, operation_id: str) -> bool:
        return self._of(operation_id).running == operation_id

    def step_aside(self, operation_id: str) -> None:
        """It is queued, and needs no instance's turn any more: it has one of its own."""
        assert self.is_queued(operation_id), f"{operation_id} does not wait for a turn"
        self._leave(operation_id)
        self._join(operation_id, operation_id)

    def close(self, operation_id: str) -> None:
        self._leave(operation_id)
        del self._instance_of[operation_id]
        del self._accepted[operation_id]

    def stir(self, instance_id: str) -> None:
        """Something happened to the instance: look again."""
        instance = self._instances.get(instance_id)
        if instance is None:
            return
        instance.stirred = True
        for operation_id in sorted(instance.parked, key=self._accepted.__getitem__, reverse=True):
            self._wake(instance, operation_id)

    def wake(self, operation_id: str) -> None:
        """What it waits for may have come: as if its instance had been stirred."""
        self.stir(self._instance_of[operation_id])

    def stir_all(self) -> None:
        for instance_id in list(self._instances):
            self.stir(instance_id)

    def is_parked(self, operation_id: str) -> bool:
        return operation_id in self._of(operation_id).parked

    def ring(self, now: float) -> None:
        """Wake what is due."""
        while self._alarms and self._alarms[0][0] <= now:
            wake_at, operation_id = heapq.heappop(self._alarms)
            if self._is_set(wake_at, operation_id):
                self._wake(self._of(operation_id), operation_id)

    def next_alarm(self) -> float | None:
        while self._alarms and not self._is_set(*self._alarms[0]):
            heapq.heappop(self._alarms)
        return self._alarms[0][0] if self._alarms else None

    def _is_set(self, wake_at: float, operation_id: str) -> bool:
        """Alarms of what was woken or closed before stay in the heap, and mean nothing."""
        instance_id = self._instance_of.get(operation_id)
        return instance_id is not None and (
            self._instances[instance_id].parked.get(operation_id) == wake_at
        )

    def _wake(self, instance: _Instance, operation_id: str) -> None:
        del instance.parked[operation_id]
        instance.ready.appendleft(operation_id)

    def _join(self, operation_id: str, instance_id: str) -> None:
        self._instance_of[operation_id] = instance_id
        self._instances.setdefault(instance_id, _Instance()).ready.append(operation_id)

    def _leave(self, operation_id: str) -> None:
        instance_id = self._instance_of[operation_id]
        instance = self._instances[instance_id]
        if instance.running == operation_id:
            instance.running = None
        instance.parked.pop(operation_id, None)
        if operation_id in instance.ready:
            instance.ready.remove(operation_id)
        if not (instance.running or instance.ready or instance.parked):
            del self._instances[instance_id]

    def _of(self, operation_id: str) -> _Instance:
        return self._instances[self._instance_of[operation_id]]
