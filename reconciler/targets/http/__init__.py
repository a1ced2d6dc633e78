"""A target behind a REST interface."""
