"""What all runners share: running, timing, weighing and tracing a model file.

They are sent to the process that runs the model, which needs NumPy and the runtime, but not
edgecheck: they import nothing of it but each other.
"""
