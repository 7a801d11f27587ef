"""Measure one image of a digit: how much ink there is, where, how symmetric it is, and how many holes it has."""

# %%
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from runctx import Run, from_cli


@dataclass
class Config:
    input: str = "${latest:images}/0000-0.pgm"  # of the newest run of that stage that is done
    ink: int = 8  # grey value from which on a pixel counts as ink


def load(path):
    """The pixels of a PGM image."""
    with open(path, "rb") as file:
        _, width, height, _ = file.readline().split()
        return np.frombuffer(file.read(), np.uint8).reshape(int(height), int(width))


# %%
def main(cfg: Config):
    with Run(cfg, inputs=[cfg.input]) as run:
        image = load(run.cfg.input).astype(int)
        rows, columns = np.indices(image.shape)
        _, patches = ndimage.label(np.pad(image < run.cfg.ink, 1, constant_values=True))
        return {
            "mass": int(image.sum()),
            "row": float((rows * image).sum() / image.sum()),
            "column": float((columns * image).sum() / image.sum()),
            "symmetry": float(1 - np.abs(image - image[:, ::-1]).sum() / (2 * image.sum())),
            "holes": patches - 1,  # for one patch is what surrounds the digit
        }


# %%
if __name__ == "__main__":
    print(main(from_cli(Config)))  # python measure.py -o input=other.pgm
