"""Learning: data, the embedded mini world, open_clip models, training and evaluation. Knows no store and no Ray."""
