"""Scenarios: what authors of contracts expect of them, in files beside the contracts, and whether it is so.

``form`` reads the files, ``trial`` runs a case through what the commands `fold`, `diff`, `plan` and `apply` compute and says
where the result differs, ``difference`` compares.
"""
