"""A run inside a job of Hydra says what Hydra's command line set, and which groups it chose."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from runctx import Run, compose

SCRIPT = """
import json
from dataclasses import dataclass, field
import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from runctx import Run

@dataclass
class Opt:
    name: str = "sgd"
    lr: float = 0.1

ConfigStore.instance().store(name="opt_schema", node=Opt)

@hydra.main(version_base=None, config_path="conf", config_name="config")
def main(cfg: DictConfig) -> None:
    with Run(cfg, console=False) as run:
        pass
    with Run({"lr": 0.5, "other": 1}, stage="other", console=False) as other:
        pass
    origins = {key: [(said.layer, said.where, said.value) for said in all] for key, all in run.origins.items()}
    print(json.dumps([run.stage, run.lock.choices, origins, len(other.origins)]))

if __name__ == "__main__":
    main()
"""


@pytest.fixture
def job(tmp_path: Path):
    """Runs the script with these arguments; one list for each job."""
    for name, text in {
        "train.py": SCRIPT,
        "pyproject.toml": "",
        "conf/config.yaml": "defaults: [{model: small}, _self_]\nlr: 0.1\nepochs: 5\nsizes: [1, 2]\nname: a\n"
        "api_key: abcdefgh\nopt: {name: sgd, betas: [0.9, 0.99]}\n",
        "conf/model/small.yaml": "width: 8\ndepth: 2\n",
        "conf/model/large.yaml": "width: 64\ndepth: 4\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    def run(*arguments: str) -> list[list]:
        command = [sys.executable, "-W", "ignore", "train.py", *arguments]
        quiet = {**os.environ, "HYDRA_FULL_ERROR": "1"}
        ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, env=quiet)
        assert ended.returncode == 0, ended.stderr
        return [json.loads(line) for line in ended.stdout.splitlines() if line.startswith('["train"')]

    return run


def test_overrides_and_choices(job) -> None:
    """Each override is the origin of its keys, with its position; what files say is the program's, as before."""
    arguments = ["lr=0.3", "model=large", "sizes=[3,4]", "+new.x='a b'", "model.width=9", "opt={name: adam}"]
    ((_, choices, origins, others),) = job(*arguments, "api_key=hijklmno", "~name")
    assert choices == {"model": "large"}
    overridden = {key: said[0] for key, said in origins.items() if said[0][0] == "override"}
    assert overridden == {
        "lr": ["override", "argument 1", 0.3],
        "sizes": ["override", "argument 3", [3, 4]],
        "new.x": ["override", "argument 4", "a b"],
        "model.width": ["override", "argument 5", 9],
        "opt.name": ["override", "argument 6", "adam"],
        "api_key": ["override", "argument 7", "<redacted>"],
    }
    assert {origins[key][0][0] for key in ("epochs", "opt.betas", "model.depth")} == {"program"}
    assert others == 0  # of a configuration that is not the job's


def test_jobs_of_a_sweep(job) -> None:
    """Each job of a sweep has its own values and choices."""
    jobs = job("-m", "lr=0.2,0.4", "model=small,large", "epochs=7")
    assert [(origins["lr"][0], choices["model"]) for _, choices, origins, _ in jobs] == [
        (["override", "Hydra's lr", lr], model) for lr in (0.2, 0.4) for model in ("small", "large")
    ]
    assert {tuple(origins["epochs"][0]) for _, _, origins, _ in jobs} == {("override", "argument 4", 7)}


def test_choices_of_compose(tmp_path: Path) -> None:
    """What `compose` was given stands in the lock as well; without groups there is nothing."""
    for name in ("small", "large"):
        (tmp_path / "conf" / "model").mkdir(parents=True, exist_ok=True)
        (tmp_path / "conf" / "model" / f"{name}.yaml").write_text("width: 8\n")
    for cfg, choices in (
        (compose(tmp_path / "conf", model="small"), {"model": "small"}),
        (compose(tmp_path / "conf", model=["small", "large"]), {"model": "small,large"}),
        (compose(tmp_path / "conf", model=None), {}),
        ({"model": "small"}, {}),
    ):
        with Run(cfg, save_dir=tmp_path / "run", console=False) as run:
            pass
        assert run.lock.choices == Run.load(run.save_dir).lock.choices == choices
