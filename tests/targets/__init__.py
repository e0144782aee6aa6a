"""Tests of the targets, on the real converters."""
