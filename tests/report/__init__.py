"""Tests of `edgecheck.report`."""
