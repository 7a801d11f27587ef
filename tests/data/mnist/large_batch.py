_base_ = "base.py"

data = {"batch_size": 256}
sched = {"epochs": 15}
