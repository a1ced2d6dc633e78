"""The reversal consumer: a service obeys the reconciler. Public names are exported by `reconciler.sdk`."""
