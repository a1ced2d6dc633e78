"""History of a resource: what is expected of it, who says so, and what would be expected without some of it.

`tree` is the expected state, `entry` one action as the history keeps it, `fold` takes actions in, `replay` is the
definition of undo, written to be read: the faster `fold` and `undo` are tested against it.
"""
