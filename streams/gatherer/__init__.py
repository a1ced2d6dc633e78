"""The gatherer: a service inside the worker that answers rollbacks' questions for the partitions that the worker owns.

A thread of its own takes what the table has folded of the ledger, reads what is missing of it and the questions, and keeps an
index of the ledger in a RocksDB of its own; the event loop reads what is asked about from the table, and sends the answers.
Folding waits for none of it.
"""
