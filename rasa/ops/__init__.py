"""Functions on plain arrays: boxes, masks, run lengths, suppression."""
