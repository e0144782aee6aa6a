"""Tests of `edgecheck.checks`."""
