"""The fault corpus: broken files that the gate must stop, and sound ones that it must let through.

`python -m tests.faults` plants them, judges them with pytest as a user would, and counts.
"""
