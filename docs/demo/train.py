"""Train a softmax classifier on the digits that the latest `prepare` run wrote."""

# %%
import json
from dataclasses import dataclass

import numpy as np

from runctx import Run, from_cli


@dataclass
class Config:
    input: str = "${latest:prepare}"  # folder of the newest run of that stage that is done
    lr: float = 0.5
    epochs: int = 60


def load(path):
    table = np.loadtxt(path, delimiter=",", skiprows=1, dtype=int)
    return table[:, 1:] / 16, table[:, 0]


# %%
def main(cfg: Config):
    with Run(cfg, inputs=[cfg.input], seed=0) as run:
        x, y = load(f"{run.cfg.input}/train.csv")
        weights = np.zeros((64, 10))
        for epoch in range(run.cfg.epochs):
            scores = np.exp(x @ weights)
            share = scores / scores.sum(axis=1, keepdims=True)
            loss = -np.log(share[np.arange(len(y)), y]).mean()
            weights -= run.cfg.lr * x.T @ (share - np.eye(10)[y]) / len(y)
            run.log_async(loss=loss, step=epoch)
            if epoch % 20 == 0:
                run.logger.info("epoch {}: loss {:.3f}", epoch, loss)
        x, y = load(f"{run.cfg.input}/test.csv")
        accuracy = float(((x @ weights).argmax(axis=1) == y).mean())
        run.log_async(accuracy=accuracy)
        run.logger.info("accuracy {:.3f}", accuracy)
        np.save(run.save_dir / "weights.npy", weights)
        (run.save_dir / "result.json").write_text(json.dumps({"accuracy": accuracy, "loss": float(loss)}))
    return run


# %%
if __name__ == "__main__":
    main(from_cli(Config))  # python train.py -o lr=0.3
