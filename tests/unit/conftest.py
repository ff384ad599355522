"""How property tests run: no clock decides, and a failure can be repeated."""

from hypothesis import settings

# A loaded machine is slow; print_blob gives the line that repeats what failed.
settings.register_profile("house", deadline=None, print_blob=True)
settings.load_profile("house")
