"""What was asked, promised and intended. What is *true* is asked of the host (docs/journal.rst).

One SQLite file, written only by the daemon::

    <state_path>/journal.sqlite        operations, attachments, fences, quarantine, outbox
    <state_path>/journal.sqlite-wal    the write-ahead log, folded in by SQLite
    <state_path>/daemon.lock           flock of the one daemon; attachctl opens read-only

A change is durable when ``Journal.write`` returns: WAL with ``synchronous=FULL``, and the
notification that tells of it is in the same transaction. Nothing here asks the host anything.
"""
