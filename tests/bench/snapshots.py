"""What does it cost to keep the work tree as a commit?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .harness import Bench, Row, Sides, clock
from .peers import child, peer_python
from .workshop import Workshop

FILES = 10_000


def edit(root: Path, count: int, version: int) -> None:
    """Change `count` files, half of them tracked, half new; no two versions have any content in common."""
    tracked = sorted(root.glob("pkg*/module*.py"))[: count // 2]
    new = [root / f"new{n:04d}.py" for n in range(count - len(tracked))]
    for n, path in enumerate(tracked + new):
        path.write_text(f"edit = ({version}, {n})\n" * 150)


def tree_by_git(workshop: Workshop, root: Path) -> str:
    """The tree git itself would commit, found with an index of its own."""
    index = {"GIT_INDEX_FILE": str(workshop.fresh("index") / "index")}
    workshop.git(root, "read-tree", "HEAD", environ=index)
    workshop.git(root, "add", "--all", environ=index)
    return workshop.git(root, "write-tree", environ=index)


@contextmanager
def few_changes(workshop: Workshop) -> Iterator[Sides]:
    """Three equal repositories, one for each side, because GitPython's commit moves HEAD and the index."""
    python = peer_python()
    ours, theirs, plain = (workshop.repository(FILES, name) for name in ("ours", "gitpython", "status"))
    base = workshop.git(theirs, "rev-parse", "HEAD")
    cache = workshop.fresh("snapshot-cache")
    trees: dict[int, str] = {}
    with (
        child(workshop, "ours_snapshot.py", cwd=ours) as runctx,
        child(workshop, "peer_gitpython.py", cwd=theirs, python=python) as gitpython,
    ):

        def by_runctx(version: int) -> float:
            edit(ours, 10, version)
            taken = runctx.ask("take", root=str(ours), cache=str(cache))
            trees[version] = taken["tree"].removeprefix("git:")
            same = trees[version] == tree_by_git(workshop, ours)
            workshop.note(
                f"Tree id of the snapshot equals that of `git add --all`: {'yes' if same else 'NO'}."
            )
            return float(taken["seconds"])

        def by_gitpython(version: int) -> float:
            edit(theirs, 10, version)
            taken = gitpython.ask("snapshot", root=str(theirs))
            workshop.git(theirs, "reset", "--quiet", "--mixed", base)
            if version in trees:
                same = trees[version] == taken["tree"]
                workshop.note(f"Tree id of the snapshot equals GitPython's: {'yes' if same else 'NO'}.")
            return float(taken["seconds"])

        def by_status(version: int) -> float:
            edit(plain, 10, version)
            return clock(lambda: workshop.run(["git", "status", "--porcelain", "-uall"], plain))

        yield {"runctx": by_runctx, "gitpython": by_gitpython, "status": by_status}


@contextmanager
def many_unchanged(workshop: Workshop) -> Iterator[Sides]:
    root = workshop.repository(FILES, "again")
    cache = workshop.fresh("snapshot-cache")
    with child(workshop, "ours_snapshot.py", cwd=root) as runctx:

        def first(version: int) -> float:
            edit(root, 1_000, version)
            return float(runctx.ask("take", root=str(root), cache=str(cache))["seconds"])

        def again(_: int) -> float:
            return float(runctx.ask("take", root=str(root), cache=str(cache))["seconds"])

        yield {"first": first, "again": again}


BENCHES = (
    Bench(
        name="snapshot",
        sides=few_changes,
        rows=(
            Row(
                what="snapshot, 10 000 files, 10 changed or new",
                against="GitPython: index.diff, add, commit",
                ours="runctx",
                peer="gitpython",
                reach=0.1,
            ),
            Row(
                what="the same",
                against="`git status --porcelain -uall`",
                ours="runctx",
                peer="status",
                reach=1.7,
            ),
        ),
    ),
    Bench(
        name="snapshot-again",
        sides=many_unchanged,
        rows=(
            Row(
                what="snapshot again, 1 000 changed or new files as they were the first time",
                against="the first time",
                ours="again",
                peer="first",
                reach=0.3,
            ),
        ),
    ),
)
