"""Adapters to the machine: the only place that calls libvirt, os-brick and the kernel."""
