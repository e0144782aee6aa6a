"""Past results: what is kept of a run, where, and how two runs or a series of them compare."""
