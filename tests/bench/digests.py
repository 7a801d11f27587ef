"""What does it cost to know the content of the data?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .harness import Bench, Row, Side, Sides, clock
from .peers import Child, child, peer_python
from .workshop import Workshop, program

INSTALL_B3SUM = "install it with `apt install b3sum` or `cargo install b3sum`"

ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""The training loop uses one of the two processors; hashing has the other."""


def from_nothing(workshop: Workshop, runctx: Child, path: Path, b3sum: str) -> Side:
    """A digest with an empty cache in every round; `b3sum --check` has to agree before one counts."""

    def side(number: int) -> float:
        answer = runctx.ask("digest", path=str(path), cache=str(workshop.fresh("hash-cache")))
        if number == 0:
            check = agrees_with_file if path.is_file() else agrees_with_folder
            check(workshop, b3sum, path, answer)
        if number == 1 and answer["after"] > 0.05:
            workshop.note(
                f"{path.name}: the hash cache is written after the digest is known, in the background, "
                f"in another {answer['after']:.2f} s; the peer waits for its end (round 1)."
            )
        return seconds(answer)

    return side


def agrees_with_file(workshop: Workshop, b3sum: str, path: Path, answer: dict[str, Any]) -> None:
    manifest = workshop.fresh("check") / "manifest"
    manifest.write_text(f"{answer['digest'].removeprefix('blake3:')}  {path}\n")
    workshop.run([b3sum, "--check", str(manifest)], path.parent)


def agrees_with_folder(workshop: Workshop, b3sum: str, path: Path, answer: dict[str, Any]) -> None:
    workshop.run([b3sum, "--check", answer["manifest"]], path)


def seconds(answer: dict[str, Any]) -> float:
    return float(answer["seconds"])


@contextmanager
def one_large_file(workshop: Workshop) -> Iterator[Sides]:
    b3sum = program("b3sum", INSTALL_B3SUM)
    path = workshop.large_file()
    with child(workshop, "ours_hash.py", cwd=workshop.root) as runctx:
        yield {
            "runctx": from_nothing(workshop, runctx, path, b3sum),
            "b3sum": lambda _: clock(lambda: workshop.run([b3sum, str(path)], path.parent)),
        }


@contextmanager
def medium_files(workshop: Workshop) -> Iterator[Sides]:
    b3sum = program("b3sum", INSTALL_B3SUM)
    root = workshop.medium_files()
    names = sorted(str(path.relative_to(root)) for path in root.rglob("*.bin"))
    with child(workshop, "ours_hash.py", cwd=workshop.root) as runctx:
        yield {
            "runctx": from_nothing(workshop, runctx, root, b3sum),
            "b3sum": lambda _: clock(lambda: workshop.run([b3sum, *names], root)),
        }


@contextmanager
def small_files(workshop: Workshop) -> Iterator[Sides]:
    b3sum = program("b3sum", INSTALL_B3SUM)
    root = workshop.small_files()
    pipe = ["sh", "-c", f"find . -type f -print0 | xargs -0 -P2 {b3sum}"]
    with child(workshop, "ours_hash.py", cwd=workshop.root) as runctx:
        yield {
            "runctx": from_nothing(workshop, runctx, root, b3sum),
            "b3sum": lambda _: clock(lambda: workshop.run(pipe, root)),
        }


@contextmanager
def small_files_warm(workshop: Workshop) -> Iterator[Sides]:
    """The round that does not count fills the caches of both."""
    root = workshop.small_files()
    python = peer_python()
    ours, theirs = workshop.fresh("hash-cache"), workshop.fresh("dvc")
    with (
        child(workshop, "ours_hash.py", cwd=workshop.root) as runctx,
        child(workshop, "peer_dvc.py", cwd=workshop.root, python=python) as dvc,
    ):
        yield {
            "runctx": lambda _: seconds(runctx.ask("digest", path=str(root), cache=str(ours))),
            "walk": lambda _: seconds(runctx.ask("walk", path=str(root))),
            "dvc": lambda _: seconds(dvc.ask("check", path=str(root), memory=str(theirs))),
        }


@contextmanager
def beside_training(workshop: Workshop) -> Iterator[Sides]:
    """The loop is as long as the hashing when it is alone: a longer one would hide what hashing costs."""
    path = workshop.large_file()
    with child(workshop, "ours_hash.py", cwd=workshop.root, **ONE_THREAD) as runctx:

        def train_beside(steps: int) -> dict[str, float]:
            cache = str(workshop.fresh("hash-cache"))
            answer: dict[str, float] = runctx.ask("train_beside", steps=steps, path=str(path), cache=cache)
            return answer

        hashing = min(train_beside(1)["hashing"] for _ in range(2))
        runctx.ask("train", steps=1_000)
        steps = round(1_000 * hashing / runctx.ask("train", steps=1_000))

        def beside(number: int) -> float:
            answer = train_beside(steps)
            if number == 1:
                workshop.note(
                    f"Background hashing of the 4 GiB takes {hashing:.2f} s alone, {answer['hashing']:.2f} s "
                    f"beside a training loop of {answer['seconds']:.2f} s (round 1)."
                )
            return seconds(answer)

        yield {"beside": beside, "alone": lambda _: runctx.ask("train", steps=steps)}


BENCHES = (
    Bench(
        name="hash-large",
        sides=one_large_file,
        rows=(
            Row(
                what="one file of 4 GiB, empty hash cache",
                against="`b3sum`",
                ours="runctx",
                peer="b3sum",
                reach=1.1,
            ),
        ),
    ),
    Bench(
        name="hash-medium",
        sides=medium_files,
        rows=(
            Row(
                what="1 000 files of 1 MiB, empty hash cache",
                against="`b3sum` on all of them",
                ours="runctx",
                peer="b3sum",
                reach=1.0,
            ),
        ),
    ),
    Bench(
        name="hash-small",
        sides=small_files,
        rows=(
            Row(
                what="100 000 files of 4 KiB, empty hash cache",
                against="`find -print0 | xargs -0 -P2 b3sum`",
                ours="runctx",
                peer="b3sum",
                reach=1.2,
            ),
        ),
    ),
    Bench(
        name="hash-small-warm",
        sides=small_files_warm,
        rows=(
            Row(
                what="the same again, warm hash cache",
                against="a walk with os.scandir and stat",
                ours="runctx",
                peer="walk",
                reach=1.7,
            ),
            Row(
                what="the same",
                against="DVC's check by its Python API, warm",
                ours="runctx",
                peer="dvc",
                reach=0.35,
            ),
        ),
    ),
    Bench(
        name="hash-beside",
        sides=beside_training,
        rows=(
            Row(
                what="a training loop of one thread while 4 GiB are hashed in the background",
                against="the loop alone",
                ours="beside",
                peer="alone",
                reach=1.1,
            ),
        ),
    ),
)
