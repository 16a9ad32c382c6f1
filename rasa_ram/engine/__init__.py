"""The data engine: captions to tags, more tags by a trained model, and their cleaning."""
