"""Saved files: paths, the cache, rows, and the code behind a number.

Nothing here imports torch.
"""
