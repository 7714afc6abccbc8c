"""Paths, cache and saved rows: every file that is read or written, and the code behind a number.

Nothing here imports torch.
"""
