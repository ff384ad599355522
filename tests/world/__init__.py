"""The simulated host: every port of agent/ports.py, faithful to what was seen of the real ones.

It can be stopped at every instant, restarted, made to fail and made to grant everything; it is
deterministic, and time passes only when it is told so. It asserts what no host may suffer: a
device that goes while a guest uses it, a storage call without its locks, a lock held over a call
to a guest.
"""

from tests.world.instants import Crash, Fault, Instants
from tests.world.world import World

__all__ = ["Crash", "Fault", "Instants", "World"]
