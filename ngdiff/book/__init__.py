"""Notebooks as products: built, executed, reproduced, reported; pages filled from rows."""
