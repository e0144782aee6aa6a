"""The operators of ML Programs, by what they do: one module each, with a `HANDLERS` table.

A handler takes a `Call` and returns a tensor, or a tuple of them if the operator has several
results. Floats come in as float32 and go out so; the evaluator rounds them to the declared type.
"""
