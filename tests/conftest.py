"""Registers the fixtures of tests/support for every test."""

pytest_plugins = ["tests.support.no_skips", "tests.support.fixtures"]
