"""Predictors: taggers, baselines and files of predictions, each as scores for the classes of a benchmark."""
