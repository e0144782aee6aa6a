"""Where models run: one module a kind of device.

A device starts drivers (`edgecheck.drivers`) and speaks to them. Not for judging what they measure.
"""
