"""Sphinx: ``python -m sphinx -W -b html docs docs/_build/html``."""

project = "libvirt attachment agent"
project_copyright = "the libvirt attachment agent's authors"
exclude_patterns = ["_build"]
html_theme = "alabaster"
html_show_sourcelink = False
