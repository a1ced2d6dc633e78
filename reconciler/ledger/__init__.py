"""The ledger: every action at every stage, as it stands in `workflow.actions`, held against what the table kept of it.

``checking`` finds gaps, edits, insertions and swaps by the hash chain (`reconciler.history.chain`); ``export`` writes the
ledger into a file that can be checked by itself; ``telling`` shows it to people.
"""
