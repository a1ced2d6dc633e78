"""Targets whose resources are rows: what PostgreSQL and SQLite share, and each of them."""
