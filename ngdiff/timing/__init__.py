"""Time and memory, and rules for the learning rate, measured: `ngdiff bench`."""
