"""A model as others use it: a folder with its weights, classes, prompts, model card, and the code that predicts."""
