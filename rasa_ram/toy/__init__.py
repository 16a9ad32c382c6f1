"""The paper in miniature: drawn scenes, their words, and a RAM small enough for two CPU cores."""
