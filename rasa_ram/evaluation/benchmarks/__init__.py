"""Benchmarks of tagging: readers of the published annotation files, one per family of formats."""
