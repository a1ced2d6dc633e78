"""A target whose resources are Redis hashes: each top-level member of a resource is a hash field with JSON text."""
