"""Published benchmarks, from the hub or a folder."""
