"""Pure: libvirt's domain XML as facts, and our disk as XML. No libvirt here."""
