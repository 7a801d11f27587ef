"""Warm up, then anneal; it knows nothing of where it is mounted."""

from runctx import derived

epochs = 30
warm_up = {"name": "LinearLR", "epochs": derived(lambda c: round(0.1 * c.epochs))}
main = {"name": "CosineAnnealingLR", "T_max": derived(lambda c: c.epochs - c.warm_up.epochs)}
