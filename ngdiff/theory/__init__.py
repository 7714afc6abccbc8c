"""Quadratic problems, the paper's theorems as functions, and slow references to hold the fast code
against.
"""
