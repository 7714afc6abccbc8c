"""Tests: one folder a folder of the package, and what they share in `helpers`."""
