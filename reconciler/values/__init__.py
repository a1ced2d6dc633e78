"""Values: JSON as the product means it, pointers into it, instants, resource keys, normalisers.

The lowest room of the house: everything else imports from here, and nothing here imports anything of ours.
"""
