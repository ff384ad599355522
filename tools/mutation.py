"""What a planted bug is."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutation:
    """``before`` is in ``file`` exactly once, and becomes ``after``."""

    bug: str
    file: str
    before: str
    after: str
