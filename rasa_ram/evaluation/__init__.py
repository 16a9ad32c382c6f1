"""Evaluation of taggers against images whose tags are known."""
