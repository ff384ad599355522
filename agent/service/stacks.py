"""Where every thread is, for people (SIGUSR1).

Rejected: ``faulthandler.register``. It reads the frames of running threads from within the signal,
without the interpreter's lock, and has taken an agent down that was busy (tests/nested). For who
is dying anyway ``faulthandler.enable`` is right: systemd's watchdog ends us with SIGABRT.
"""

import sys
import threading
import traceback


def thread_stacks() -> str:
    """One paragraph a thread, innermost call last."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return "\n".join(
        f"thread {names.get(ident, ident)}:\n{''.join(traceback.format_stack(frame))}"
        for ident, frame in sys._current_frames().items()
    )
