"""pytest's door: hooks, options, collection, the run's state, and the Conformance class."""
