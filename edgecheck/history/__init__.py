"""Past results: what is kept of a run, where, and how two runs or a series of them compare.

Not for judging a single run: that is `edgecheck.checks`; not for pytest: see `edgecheck.plugin`.
"""
