"""Write the handwritten digits that scikit-learn ships as two CSV files: one to train on, one to test on."""

# %%
from dataclasses import dataclass

import numpy as np
from sklearn.datasets import load_digits

from runctx import Run


@dataclass
class Config:
    test_share: float = 0.25
    shuffle_seed: int = 0


# %%
def main(cfg: Config = Config()):  # noqa: B008 - a default that is never modified
    with Run(cfg, seed=cfg.shuffle_seed) as run:
        digits = load_digits()
        table = np.column_stack([digits.target, digits.data]).astype(int)
        np.random.shuffle(table)
        cut = int(len(table) * (1 - run.cfg.test_share))
        header = ",".join(["digit", *(f"pixel{i}" for i in range(64))])
        for name, rows in {"train": table[:cut], "test": table[cut:]}.items():
            np.savetxt(
                run.save_dir / f"{name}.csv", rows, fmt="%d", delimiter=",", header=header, comments=""
            )
            run.logger.info("{}.csv: {} digits", name, len(rows))
    return run


# %%
if __name__ == "__main__":
    main()
