"""The whole system in one command, without Docker or Java: what `reconciler dev` runs and `reconciler demo` drives."""
