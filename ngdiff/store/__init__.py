"""Files: paths, the verified cache, saved rows and stamps, the code a number depends on.

Nothing here imports torch.
"""
