"""The whole system in one process under a virtual clock: the real machines and runner, and around them all that can fail."""
