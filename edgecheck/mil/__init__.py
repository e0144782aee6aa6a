"""The reference executor of Core ML's ML Programs: what a saved .mlpackage computes, in PyTorch.

It runs on any machine and shows what a converter and quantizer made of a model, with fp16 storage
rounded after each operator. It can't show what Apple's hardware makes of it: neither the numerics
of the Neural Engine or a GPU, nor latency, memory or placement.
"""
