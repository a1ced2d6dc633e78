"""What a batch did, in numbers: the metrics are fed from these once a batch, never once a record."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class BatchCounts:
    """Counts of one batch."""

    folded: int = 0
    replayed: int = 0
    forwarded: int = 0
    dead_letters: dict[str, int] = field(default_factory=dict)
    """By reason: decode, null, key, partition, instant, kind, rejected, bug."""
    effects: dict[str, int] = field(default_factory=dict)
    """By the name of the effect."""
    entries: int = 0

    def dead_letter(self, reason: str) -> None:
        """Counts one."""
        self.dead_letters[reason] = self.dead_letters.get(reason, 0) + 1

    def effect(self, name: str, count: int = 1) -> None:
        """Counts so many."""
        self.effects[name] = self.effects.get(name, 0) + count

    def entry(self, count: int = 1) -> None:
        """Counts so many new entries of the history."""
        self.entries += count
        self.effect("AppendHistory", count)
