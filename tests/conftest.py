"""Registers what tests/support offers to every test."""

pytest_plugins = [
    "tests.support.properties",
    "tests.support.no_skips",
    "tests.support.compiled",
    "tests.support.fixtures",
]
