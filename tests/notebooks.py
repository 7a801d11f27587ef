"""What do the notebooks show? `python -m tests.notebooks` executes them anew, in place."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import nbclient
import nbformat
from nbformat import NotebookNode

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PATIENCE = 120
"""Seconds that one cell may take on a busy machine."""


def execute(path: Path, folder: Path) -> NotebookNode:
    """The notebook with the outputs of a real kernel; a cell may fail only if tagged `raises-exception`.

    Parameters
    ----------
    folder: where the kernel starts.
    """
    book = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        book,
        timeout=PATIENCE,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    )
    # ipykernel behaves otherwise under pytest
    inherited = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    with tempfile.TemporaryDirectory() as scratch:  # for what the notebook makes and leaves behind
        client.execute(env=inherited | {"PYTHONPATH": str(ROOT), "TMPDIR": scratch})
    return tidy(book)


def tidy(book: NotebookNode) -> NotebookNode:
    """Without what tells of the machine and not of the notebook, so that a diff shows what really changed."""
    book.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return book


def main() -> None:
    for path in NOTEBOOKS:
        with tempfile.TemporaryDirectory() as folder:
            book = execute(path, Path(folder))
        nbformat.write(book, path)
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
