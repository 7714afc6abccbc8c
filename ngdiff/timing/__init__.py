"""Time and memory: measured, with the rules for the learning rate, by `ngdiff bench`."""
