"""Drift: what differs between expected and actual state, and the smallest command that puts it right."""
