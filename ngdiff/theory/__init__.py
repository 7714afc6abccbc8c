"""Quadratic problems, the paper's theorems as functions, and slow references to test against."""
