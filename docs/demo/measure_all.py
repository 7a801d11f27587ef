"""Measure every image that the latest `images` run wrote: on all cores, or anywhere else, under one lock."""

# %%
import csv
from dataclasses import dataclass
from pathlib import Path

import measure

from runctx import Run, from_cli
from runctx.launchers import Slurm


@dataclass
class Config(measure.Config):
    folder: str = "${latest:images}"
    launcher: str = "joblib"  # or threading, serial, slurm


# %%
def main(cfg: Config):
    with Run(cfg, inputs=[cfg.folder]) as run:
        images = sorted(map(str, Path(run.cfg.folder).glob("*.pgm")))
        where = run.cfg.launcher
        if where == "slurm":
            where = Slurm(time="00:10:00", workers=2, cpus=2)
        measures = run.map(measure.main, images, into="input", launcher=where)

        with open(run.save_dir / "measures.csv", "w") as file:
            table = csv.DictWriter(file, ["image", *measures[0]])
            table.writeheader()
            for image, each in zip(images, measures, strict=True):
                table.writerow({"image": Path(image).name} | each)
        holes = [each["holes"] for each in measures]
        run.logger.info("{} images; {} with two holes", len(images), holes.count(2))
    return run


# %%
if __name__ == "__main__":
    main(from_cli(Config))  # python measure_all.py -o launcher=slurm
