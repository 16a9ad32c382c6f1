"""Training data: schema, data sets, augmentation and cleaning."""
