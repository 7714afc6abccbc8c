"""Quadratic problems and the paper's theorems: as functions, with slow references to test against."""
