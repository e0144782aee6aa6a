"""The tests of edgecheck itself, laid out as the package is."""
