"""Making a batch durable: brokers first, then the store, so that the store is never ahead."""

from __future__ import annotations

from streams.runner.batch import Batch
from streams.store.port import Checkpoint, Mark
from streams.store.producer import BatchWrite
from streams.store.recovery import OwnedPartition


def write_batch(owned: OwnedPartition, before: Checkpoint, batch: Batch, written_at: float) -> Checkpoint:
    """Writes what a batch makes, and gives the checkpoint after it. Blocking: for a thread. Raises Fenced, Undelivered."""
    mark = Mark(epoch=owned.mark.epoch, consumed=batch.consumed, now=batch.now, owner=owned.mark.owner)
    envelope = owned.entry_envelope
    # One after the other: each is copied into the producer's queue while the processor still has it, and then forgotten.
    history = ((key, None if entry is None else envelope.encode(key, entry)) for key, entry in batch.changes.entries)
    written = owned.producer.write(
        BatchWrite(batch.effects, batch.changes.heads, history, (envelope.mark_key, envelope.encode_mark(mark)))
    )
    checkpoint = Checkpoint(
        heads=written.heads_end or before.heads,
        history=written.history_end or before.history,
        mark=mark,
        written_at=written_at,
    )
    owned.table.persist(batch.changes, checkpoint)
    return checkpoint
