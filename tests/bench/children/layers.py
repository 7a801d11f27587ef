"""The configurations that both sides get."""

PRIMARY = """\
seed: 7
epochs: 90
name: baseline
warm_up: ${epochs}
log:
  every: 50
  level: info
  folder: logs/${name}
  fields: [loss, accuracy, lr]
opt:
  name: sgd
  lr: 0.1
  momentum: 0.9
  weight_decay: 0.0001
  nesterov: true
schedule:
  name: cosine
  steps: ${epochs}
  floor: 0.00001
  warm_up: {epochs: 5, factor: 0.01, mode: linear}
loss:
  name: cross_entropy
  smoothing: 0.1
checkpoint: {every: 10, keep: 3, best: accuracy, mode: max}
"""

MODEL = """\
name: resnet50
depth: 50
width: 64
classes: ${data.classes}
dropout: 0.0
stem: {kernel: 7, stride: 2, pool: true}
norm: {name: batch, eps: 0.00001, momentum: 0.1}
blocks: [3, 4, 6, 3]
lr: ${opt.lr}
"""

DATA = """\
name: imagenet
root: /data/imagenet
classes: 1000
size: 224
workers: 8
batch_size: 256
mean: [0.485, 0.456, 0.406]
std: [0.229, 0.224, 0.225]
augment: {flip: 0.5, crop: 0.8, jitter: 0.4}
lr: 0.001
"""

FILES = {"config.yaml": PRIMARY, "model/resnet50.yaml": MODEL, "data/imagenet.yaml": DATA}
"""A primary configuration and two groups."""

OVERRIDES = ["opt.lr=0.3", "epochs=30", "data.batch_size=128", "model.norm.eps=0.001", "name=quick"]


def large(layer, every):
    """One in `every` of 100 mappings of 10 mappings of 10 keys; one value in twenty refers to another key."""
    return {
        f"part{i}": {f"group{j}": {f"key{k}": _value(layer, i, j, k) for k in range(10)} for j in range(10)}
        for i in range(0, 100, every)
    }


def _value(layer, i, j, k):
    if k == 9 and j % 2:
        return "${part0.group0.key1}"
    return f"text {i}" if k % 3 == 0 else 10_000 * layer + 100 * i + 10 * j + k


LARGE = [large(0, 1), large(1, 2), large(2, 3)]
"""Three layers; the lowest has 10 000 leaves."""
