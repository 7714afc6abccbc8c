"""Time and memory, measured: `ngdiff bench`."""
