"""Toy problems: quadratics and the paper's theorems, with slow references to test against."""
