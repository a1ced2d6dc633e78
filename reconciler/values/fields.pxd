# Called twice for each action that is read.
cpdef dict fields_from_text(bytes text)
