"""The embedded default: models whose weights ship inside packages on the Python package index."""
