"""Three-way merge of an undo with reality: expected before, expected after, actual."""
