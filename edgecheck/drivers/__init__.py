"""One module a runtime: load a model file, run it, time it, weigh it.

Drivers are sent to the process that runs the model, which needs NumPy and the runtime but not
edgecheck: they import nothing of it but each other, as far as `Target.drivers` lists what is sent.
Not for judging what comes out.
"""
