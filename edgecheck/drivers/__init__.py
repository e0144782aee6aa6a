"""One module a runtime: load a model file, run it, time it, weigh it.

Drivers are sent to the process that runs the model, which needs NumPy and the runtime but not
edgecheck: they import nothing of it but `edgecheck.drivers.common`, which is sent with them. Not
for judging what comes out.
"""
