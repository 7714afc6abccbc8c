"""Notebooks and pages: built, executed, reproduced, and filled from rows."""
