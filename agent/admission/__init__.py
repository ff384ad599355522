"""Is a command accepted? By the books of this host, in the transaction that writes it down."""
