"""Benchmarks generated in the form of the published ones, without a download."""
