"""Tests of the runtime drivers, on the real runtimes."""
