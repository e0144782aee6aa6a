"""Child processes, the machine's lock, and results that are made once a run."""
