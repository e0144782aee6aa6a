"""The user's code and data, in a child process: programs, data files, predictions, reference runs.

`client` is the parent's side, `worker` the child's.
"""
