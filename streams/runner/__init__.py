"""The generic batch runner: raw records in, states and effects out, with everything that can't be used put aside."""
