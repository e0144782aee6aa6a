"""Pure functions from numbers to verdicts: no I/O, no pytest, no target's name."""
