"""Notebooks as products: built, executed, reproduced, reported; the README filled from rows."""
