"""The configuration of 20 keys that every tool records."""

SETTINGS = {
    "seed": 7,
    "epochs": 20,
    "batch_size": 64,
    "lr": 0.1,
    "momentum": 0.9,
    "weight_decay": 0.0001,
    "warmup": 500,
    "schedule": "cosine",
    "optimizer": "sgd",
    "nesterov": True,
    "clip": 1.0,
    "dropout": 0.25,
    "width": 256,
    "depth": 18,
    "activation": "relu",
    "norm": "batch",
    "augment": False,
    "dataset": "digits",
    "workers": 4,
    "note": "a run that does nothing",
}
