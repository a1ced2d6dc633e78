# Called for nearly each action that is folded.
cimport cython

@cython.locals(members=dict, mentioned=Py_ssize_t, path=str, tokens=tuple, name=str, base_set=dict, base_unset=list)
cpdef fold_flat(tree, number, dict written, dict before)
