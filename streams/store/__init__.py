"""The table of one partition: heads, history and a checkpoint, in RocksDB or in memory, and their changelog topics."""
