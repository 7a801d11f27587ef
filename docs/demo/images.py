"""Write the handwritten digits that scikit-learn ships as image files, one for each digit."""

# %%
from dataclasses import dataclass

from sklearn.datasets import load_digits

from runctx import Run, from_cli


@dataclass
class Config:
    count: int = 600


# %%
def main(cfg: Config):
    with Run(cfg) as run:
        digits = load_digits()
        some = zip(digits.images[: run.cfg.count], digits.target, strict=False)
        for number, (image, digit) in enumerate(some):
            height, width = image.shape
            header = f"P5 {width} {height} {image.max():.0f}\n"  # PGM
            pixels = image.astype("uint8").tobytes()
            (run.save_dir / f"{number:04}-{digit}.pgm").write_bytes(header.encode() + pixels)
        run.logger.info("{} images", number + 1)
    return run


# %%
if __name__ == "__main__":
    main(from_cli(Config))  # python images.py -o count=1797
