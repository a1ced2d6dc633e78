"""Deduplication for targets without transactions: what was tried and what was decided is kept beside them."""
