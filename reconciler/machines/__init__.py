"""The state machines that decide everything: pure functions from a state and an event to a new state and effects."""
