"""Notebooks as products: built, executed, reproduced, reported, and the README filled from their
rows.
"""
