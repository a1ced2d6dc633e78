"""Contracts: the machine-enforced rules for one resource type, and the YAML files that they are written in.

``model`` holds the typed values that the rest of the core asks; ``loader`` makes them of files; ``cel`` evaluates the
expressions inside; ``schema``, ``lint`` and ``explain`` are for whoever writes one.
"""
