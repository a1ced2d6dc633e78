"""Serving a target: the reversal consumer of the SDK hosted over an adapter, for systems without a service of their own."""
