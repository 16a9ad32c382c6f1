"""Readers and writers: images, results and annotation formats."""
