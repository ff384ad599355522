"""Each change to the host, idempotent both ways. A step holds no ``try`` and remembers nothing."""
