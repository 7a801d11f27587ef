from runctx import derived

seed = 0
data = {"name": "MNIST", "batch_size": 128, "workers": 2}
model = {"hidden": [256, 128], "dropout": 0.5}
opt = {"name": "AdamW", "lr": derived(lambda c: 0.01 * c.data.batch_size / 128)}
sched = {"_base_": "schedule.py"}
log = {"save_interval": derived(lambda c: round(0.2 * c.sched.epochs))}
