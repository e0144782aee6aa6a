"""Model files: who makes them, and the cache that keeps them between runs."""
