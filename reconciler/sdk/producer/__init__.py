"""The producer: workflow steps tell what they do. Public names are exported by `reconciler.sdk`."""
