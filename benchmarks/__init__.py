"""Scripts that measure; each runs by itself. What they share is in :mod:`benchmarks.tools`."""
