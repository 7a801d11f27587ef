"""A worker on another machine imports what was submitted; editing a file afterwards changes nothing."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import sysconfig
import textwrap
import venv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import runctx
from runctx import snapshot
from runctx.errors import LedgerError
from runctx.launchers import checkout as code
from runctx.launchers.checkout import LARGE, checkout
from runctx.redact import SECRET_FILES

MakeRepo = Callable[..., Path]

SUBMIT = """
import cloudpickle, os, sys
from pathlib import Path
from runctx import snapshot
from runctx.capture import program as command
from runctx.launchers.checkout import checkout

def submit(fn, to=os.environ["JOB"]):
    to = Path(to)
    taken = snapshot.take(command.folder(), message="m", cache=to / "cache")
    code = checkout(taken.source, taken.root, to / "code")
    (to / "job.pickle").write_bytes(cloudpickle.dumps((code, cloudpickle.dumps(fn))))
"""
"""What the parent does, in a module of its own: `from submitting import submit`."""

WORK = """
import json, pickle, sys
from runctx.launchers import checkout
with open(sys.argv[1], "rb") as file:
    submitted, function = pickle.load(file)
checkout.use(submitted)
print(json.dumps(pickle.loads(function)()))
"""


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path / "job")


class Job:
    """A parent that submits a function, and a worker that runs it, as processes of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = sys.executable
        (folder / "tools").mkdir(parents=True)
        (folder / "tools" / "submitting.py").write_text(SUBMIT)
        (folder / "tools" / "work.py").write_text(WORK)

    def submit(self, *arguments: str, cwd: Path, **environ: str) -> None:
        """Run the parent: `submit("train.py")`, `submit("-m", "pkg.train")`."""
        path = os.pathsep.join((str(self.folder / "tools"), environ.pop("PYTHONPATH", ""))).rstrip(os.pathsep)
        self._run(arguments, cwd, {"PYTHONPATH": path, "JOB": str(self.folder), **environ})

    def work(self, cwd: Path, **environ: str) -> Any:
        """Run the worker; what the function returned."""
        job = str(self.folder / "job.pickle")
        arguments = ("-c", (self.folder / "tools" / "work.py").read_text(), job)
        return json.loads(self._run(arguments, cwd, environ).splitlines()[-1])

    def _run(self, arguments: tuple[str, ...], cwd: Path, environ: dict[str, str]) -> str:
        done = subprocess.run(
            [self.python, *arguments],
            cwd=cwd,
            env={**os.environ, **environ},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def install(self, *lines: str, **modules: str) -> None:
        """An environment of its own for parent and worker, with what an editable install leaves in it."""
        venv.create(self.folder / "venv", with_pip=False, symlinks=True)
        self.python = str(self.folder / "venv/bin/python")
        [packages] = (self.folder / "venv").glob("lib/python*/site-packages")
        for name, text in modules.items():
            (packages / f"{name}.py").write_text(textwrap.dedent(text))
        ours = (sysconfig.get_path("purelib"), str(Path(runctx.__file__).parents[1]))
        (packages / "a_base.pth").write_text("\n".join(ours) + "\n")
        (packages / "z_project.pth").write_text("\n".join(lines) + "\n")


def commit_all(root: Path) -> None:
    subprocess.run(["git", "add", "-A"], cwd=root, check=True)
    subprocess.run(["git", "commit", "-qm", "more"], cwd=root, check=True)


def taken(root: Path, tmp_path: Path) -> snapshot.Snapshot:
    return snapshot.take(root, exclude=SECRET_FILES, message="m", cache=tmp_path / "cache")


def submitted(root: Path, tmp_path: Path) -> code.Code:
    """A checkout made in this process, which has imported nothing of the repository."""
    snap = taken(root, tmp_path)
    return checkout(snap.source, snap.root, tmp_path / "code")


def stand_in(of: code.Code) -> Path:
    """The folder that stands in for the repository."""
    return Path(dict(of.stand_ins)[str(of.root)])


def edit(path: Path, text: str = "raise SystemExit('edited')\n") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


# -- what is imported -------------------------------------------------------------------------------------


def test_a_script_and_the_modules_beside_it(make_repo: MakeRepo, job: Job) -> None:
    """What a script's function imports, now or only in the worker, is as it was submitted, uncommitted or not."""
    root = make_repo({"run/train.py": "", "run/early.py": "NAME = 'early'", "run/late.py": "NAME = 'late'"})
    edit(root / "run/late.py", "NAME = 'late, uncommitted'")
    script = """
        from submitting import submit
        import early
        def work():
            import late
            return [early.NAME, late.NAME]
        submit(work)
        """
    edit(root / "run/train.py", textwrap.dedent(script))
    job.submit("run/train.py", cwd=root)
    for name in ("train", "early", "late"):
        edit(root / f"run/{name}.py")
    for cwd in (root, root / "run"):
        assert job.work(cwd) == ["early", "late, uncommitted"]


def test_a_program_started_as_a_module(make_repo: MakeRepo, job: Job) -> None:
    """`python -m pkg.train`: its function travels by value, and finds its package, relative imports included."""
    root = make_repo(
        {
            "pkg/__init__.py": "",
            "pkg/parts/__init__.py": "from .one import NAME",
            "pkg/parts/one.py": "NAME = 'one'",
            "pkg/two.py": "NAME = 'two'",
            "pkg/train.py": (
                "from submitting import submit\nfrom . import parts\n"
                "def work():\n    from . import two\n    return [parts.NAME, two.NAME]\nsubmit(work)\n"
            ),
        }
    )
    job.submit("-m", "pkg.train", cwd=root)
    shutil.rmtree(root / "pkg")
    assert job.work(root) == ["one", "two"]


def test_a_notebook(make_repo: MakeRepo, job: Job) -> None:
    """Where `__main__` has no file and the search path starts with the current folder, as in a notebook."""
    root = make_repo(
        {"nb/mine.py": "def work():\n    import other\n    return other.NAME", "nb/other.py": ""}
    )
    edit(root / "nb/other.py", "NAME = 'other'")
    job.submit("-c", "from submitting import submit\nimport mine\nsubmit(mine.work)", cwd=root / "nb")
    edit(root / "nb/mine.py")
    edit(root / "nb/other.py")
    assert job.work(root / "nb") == "other"


def test_a_namespace_package_in_two_folders(make_repo: MakeRepo, job: Job) -> None:
    """Parts of a namespace package that lie in several folders of the search path are all found."""
    root = make_repo({"a/ns/one.py": "NAME = 1", "b/ns/two.py": "NAME = 2", "t.py": ""})
    program = """
        from submitting import submit
        import ns.one
        def work():
            from ns import two
            return [ns.one.NAME, two.NAME]
        submit(work)
        """
    edit(root / "t.py", textwrap.dedent(program))
    job.submit("t.py", cwd=root, PYTHONPATH=os.pathsep.join((str(root / "a"), str(root / "b"))))
    edit(root / "a/ns/one.py")
    edit(root / "b/ns/two.py")
    assert job.work(root) == [1, 2]


def test_a_repository_that_is_a_package_itself(make_repo: MakeRepo, job: Job, tmp_path: Path) -> None:
    """A repository imported by its own name, from the folder that it lies in."""
    root = make_repo({"__init__.py": "", "one.py": "NAME = 1", "two.py": "NAME = 2"}, name="whole")
    program = """
        import os, sys
        from submitting import submit, snapshot, command
        sys.path.append(os.path.dirname(os.getcwd()))
        import whole.one
        command.folder = lambda: os.getcwd()
        def work():
            from whole import two
            return [whole.one.NAME, two.NAME]
        submit(work)
        """
    job.submit("-c", textwrap.dedent(program), cwd=root)
    edit(root / "one.py")
    edit(root / "two.py")
    assert job.work(tmp_path) == [1, 2]


HOOK = """
    import importlib.util, sys
    class Finder:
        @classmethod
        def find_spec(cls, name, path=None, target=None):
            if name == "pkg":
                return importlib.util.spec_from_file_location(name, {init!r})
    sys.meta_path.{put}
    """


@pytest.mark.parametrize(
    "install", ["path", "hook behind the search path", "hook before the search path", "none"]
)
def test_editable_installs_of_a_src_layout(make_repo: MakeRepo, job: Job, install: str) -> None:
    """However an editable install leads to the work tree, workers do not follow it, and neither do children."""
    root = make_repo(
        {
            "src/pkg/__init__.py": "",
            "src/pkg/part.py": "NAME = 'submitted'",
            "src/pkg/late.py": "NAME = 'submitted, too'",
            "bin/t.py": (
                "import subprocess, sys\nfrom submitting import submit\nimport pkg.part\n"
                "def work():\n    from pkg import late\n"
                "    child = [sys.executable, '-c', 'import pkg.late; print(pkg.late.NAME, end=str())']\n"
                "    said = subprocess.run(child, cwd='/', capture_output=True, text=True, check=True).stdout\n"
                "    return [pkg.part.NAME, late.NAME, said]\nsubmit(work)\n"
            ),
        }
    )
    environ = {}
    if install == "path":
        job.install(str(root / "src"))
    elif install == "none":
        environ["PYTHONPATH"] = str(root / "src")
    else:
        put = "append(Finder)" if "behind" in install else "insert(0, Finder)"
        hook = HOOK.format(init=str(root / "src/pkg/__init__.py"), put=put)
        job.install("import _editable_project", _editable_project=hook)
    job.submit("bin/t.py", cwd=root, **environ)
    edit(root / "src/pkg/part.py", "NAME = 'edited'")
    edit(root / "src/pkg/late.py", "NAME = 'edited'")
    part, late, said = job.work(root, **environ)
    assert (part, late) == ("submitted", "submitted, too")
    assert said == ("edited" if "before" in install else "submitted, too")  # beyond our reach: see `use`


def test_an_installed_module_of_the_same_name_stays_what_it_was(make_repo: MakeRepo, job: Job) -> None:
    """If the parent took the installed one of two modules, the worker does so too, and vice versa."""
    root = make_repo({"src/both.py": "NAME = 'project'", "src/mine.py": "", "t.py": ""})
    job.install(str(root / "src"), both="NAME = 'installed'")
    edit(
        root / "t.py",
        "from submitting import submit\nimport both, mine\ndef work():\n    return both.NAME\nsubmit(work)",
    )
    job.submit("t.py", cwd=root)
    assert job.work(root) == "installed"
    job.submit("t.py", cwd=root, PYTHONPATH=str(root / "src"))
    edit(root / "src/both.py")
    assert job.work(root) == "project"


def test_workers_of_workers(make_repo: MakeRepo, job: Job) -> None:
    """A process that joblib or multiprocessing starts in a worker imports the submitted code as well."""
    root = make_repo({"lib/mine.py": "def name(n):\n    return 'submitted'", "lib/t.py": ""})
    program = """
        from submitting import submit
        import mine
        def work():
            import joblib, multiprocessing
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                [spawned] = pool.map(mine.name, [0])
            return [*joblib.Parallel(2)(joblib.delayed(mine.name)(n) for n in range(2)), spawned]
        submit(work)
        """
    edit(root / "lib/t.py", textwrap.dedent(program))
    job.submit("lib/t.py", cwd=root)
    edit(root / "lib/mine.py")
    assert job.work(root) == ["submitted"] * 3


def test_without_a_repository(tmp_path: Path, job: Job) -> None:
    """Modules that were imported are as they were submitted; what else lies there is found."""
    lab = tmp_path / "lab"
    edit(lab / "t.py", "from submitting import submit\nimport pkg.one\n")
    with (lab / "t.py").open("a") as file:
        file.write(
            "def work():\n    from pkg import late\n    return [pkg.one.table(), late.NAME]\nsubmit(work)\n"
        )
    edit(lab / "pkg/__init__.py", "")
    table = (
        "from pathlib import Path\ndef table():\n    return Path(__file__).with_name('table.csv').read_text()"
    )
    edit(lab / "pkg/one.py", table)
    edit(lab / "pkg/table.csv", "1,2")
    edit(lab / "pkg/late.py", "NAME = 'late'")
    job.submit("t.py", cwd=lab)
    edit(lab / "pkg/one.py")
    edit(lab / "pkg/__init__.py")
    assert job.work(lab) == ["1,2", "late"]


def test_modules_that_the_snapshot_leaves_out(make_repo: MakeRepo, job: Job, tmp_path: Path) -> None:
    """An ignored module, and one of another folder, are as they were when the parent had imported them."""
    root = make_repo(
        {
            ".gitignore": "_version.py\nsettings.py\n/.venv\n",
            "pkg/__init__.py": "from ._version import version",
            "t.py": (
                "from submitting import submit\nimport pkg, other.one\n"
                "def work():\n    import settings\n    return [pkg.version, other.one.NAME, settings.NAME]\n"
                "submit(work)"
            ),
        }
    )
    edit(root / "pkg/_version.py", "version = 7")
    edit(root / "settings.py", "NAME = 'as it is now'")
    edit(tmp_path / "elsewhere/other/one.py", "NAME = 'other'")
    job.submit("t.py", cwd=root, PYTHONPATH=str(tmp_path / "elsewhere"))
    edit(root / "pkg/_version.py")
    edit(tmp_path / "elsewhere/other/one.py")
    assert job.work(root) == [7, "other", "as it is now"]


def test_modules_of_a_submodule(make_repo: MakeRepo, job: Job) -> None:
    """What was imported from a submodule is as it was, though the snapshot holds no more than its commit."""
    root = make_repo({"t.py": ""})
    subprocess.run(["git", "init", "-q", "sub"], cwd=root, check=True)
    edit(root / "sub/lib.py", "from pathlib import Path\nNAME = Path(__file__).with_name('data').read_text()")
    edit(root / "sub/data", "beside it")
    commit_all(root / "sub")
    edit(root / "t.py", "from submitting import submit\nimport lib\nsubmit(lambda: lib.NAME)")
    commit_all(root)
    job.submit("t.py", cwd=root, PYTHONPATH=str(root / "sub"))
    edit(root / "sub/lib.py")
    assert job.work(root) == "beside it"


def test_a_worker_with_another_python(make_repo: MakeRepo, job: Job) -> None:
    """In a container, the parent's standard library and site-packages are no use: the worker keeps its own."""
    root = make_repo({"lib/mine.py": "NAME = 'submitted'", "lib/t.py": ""})
    edit(
        root / "lib/t.py",
        "from submitting import submit\nimport mine\ndef work():\n    import sys\n"
        "    return [mine.NAME, [entry for entry in sys.path if entry.startswith('/parent')]]\nsubmit(work)\n",
    )
    job.submit("lib/t.py", cwd=root)
    theirs, shared = "/parent/lib/python3.11/site-packages", "/parent/shared"
    made, function = pickle.loads((job.folder / "job.pickle").read_bytes())
    made = replace(made, path=(theirs, shared, *made.path), python=made.python | {theirs})
    (job.folder / "job.pickle").write_bytes(pickle.dumps((made, function)))
    edit(root / "lib/mine.py")
    assert job.work(root) == ["submitted", [shared]]


def test_an_environment_inside_the_repository_is_no_part_of_the_project(
    make_repo: MakeRepo, job: Job
) -> None:
    """Packages of a `.venv` that lies the work tree are imported from there."""
    root = make_repo({".gitignore": "/.venv", "t.py": ""})
    packages = root / ".venv/lib/python3.11/site-packages"
    edit(packages / "tool.py", "")
    edit(
        root / "t.py",
        "from submitting import submit\nimport tool\nsubmit(lambda: tool.__file__)\n",
    )
    job.submit("t.py", cwd=root, PYTHONPATH=str(packages))
    assert job.work(root) == str(packages / "tool.py")


def test_our_own_repository(make_repo: MakeRepo, tmp_path: Path) -> None:
    """Where the project is runctx's own repository, all processes of a worker have the package that runs."""
    root = make_repo({"readme": "", ".gitignore": "*.pyc"})
    shutil.copytree(Path(runctx.__file__).parent, root / "runctx")
    commit_all(root)
    job = Job(tmp_path / "job")
    program = """
        from submitting import submit
        def where(_):
            import runctx
            return str(__import__("pathlib").Path(runctx.__file__).resolve())
        def work():
            import joblib
            return [where(0), *joblib.Parallel(2)(joblib.delayed(where)(n) for n in range(2))]
        submit(work)
        """
    edit(root / "t.py", textwrap.dedent(program))
    job.submit("t.py", cwd=root, PYTHONPATH=str(root))
    assert set(job.work(root, PYTHONPATH=str(root))) == {str(root.resolve() / "runctx/__init__.py")}


# -- what is checked out ----------------------------------------------------------------------------------


def test_a_checkout_is_what_git_would_check_out(make_repo: MakeRepo, tmp_path: Path) -> None:
    """Executable bits, links, names that are no UTF-8, an object that only the log branch holds: all there."""
    root = make_repo({"tool.sh": "#!/bin/sh\n", "deep/er/data.csv": "1,2", "empty": ""})
    (root / "tool.sh").chmod(0o755)
    (root / "inside").symlink_to("deep/er")
    (root / "deep/up").symlink_to("../empty")
    Path(os.fsdecode(os.fsencode(root) + b"/caf\xe9")).write_text("latin")
    edit(root / "deep/er/new.py", "x = 1")
    made = submitted(root, tmp_path)
    subprocess.run(
        ["git", "checkout-index", "-a", f"--prefix={tmp_path}/git/"], cwd=_staged(root), check=True
    )
    assert _listing(stand_in(made)) == _listing(tmp_path / "git")
    code.verify(made)


def _staged(root: Path) -> Path:
    subprocess.run(["git", "add", "-A"], cwd=root, check=True)
    return root


def _listing(folder: Path) -> dict[bytes, tuple[bool, bytes]]:
    found = {}
    for above, folders, files in os.walk(os.fsencode(folder)):
        for name in [*files, *folders]:
            path = os.path.join(above, name)
            key = os.path.relpath(path, os.fsencode(folder))
            if os.path.islink(path):
                found[key] = (False, os.readlink(path))
            elif os.path.isfile(path):
                found[key] = (os.access(path, os.X_OK), Path(os.fsdecode(path)).read_bytes())
    return found


def test_nothing_of_the_repository_is_touched(make_repo: MakeRepo, tmp_path: Path) -> None:
    """HEAD, index, references, list of work trees and work tree are, byte by byte, as before."""
    root = make_repo({"a.py": "x = 1", "b/c.py": ""})
    edit(root / "a.py", "x = 2")
    snap = taken(root, tmp_path)
    before = _listing(root)
    checkout(snap.source, snap.root, tmp_path / "code")
    assert _listing(root) == before


def test_what_git_ignores_is_found_beside_a_module(make_repo: MakeRepo, tmp_path: Path) -> None:
    """Ignored data, secrets and submodules are links to the originals: no byte of them is copied."""
    root = make_repo({".gitignore": "data/\n", "pkg/mod.py": "", "pkg/deep/table.csv": "1"})
    edit(root / "data/big.bin", "big")
    edit(root / "pkg/deep/data/x", "x")
    edit(root / ".env", "TOKEN=secret")
    subprocess.run(["git", "init", "-q", "sub"], cwd=root, check=True)
    edit(root / "sub/lib.py", "")
    commit_all(root / "sub")
    made = submitted(root, tmp_path)
    there = stand_in(made)
    assert (there / "data/big.bin").read_text() == "big"
    assert all((there / name).is_symlink() for name in ("data", "pkg/deep/data", ".env", "sub"))
    assert not any((there / name).is_symlink() for name in ("pkg/mod.py", "pkg/deep/table.csv"))
    assert not (there / ".git").exists()
    assert [omission.what for omission in made.omissions] == ["submitted code: sub"]


def test_a_link_that_leaves_the_repository_leads_where_it_did(make_repo: MakeRepo, tmp_path: Path) -> None:
    """`data -> ../datasets` is tracked as text; from the checkout it would lead elsewhere."""
    edit(tmp_path / "datasets/x.csv", "1")
    root = make_repo({"a.py": ""})
    (root / "data").symlink_to("../datasets")
    made = submitted(root, tmp_path)
    assert (stand_in(made) / "data/x.csv").read_text() == "1"
    code.verify(made)


def test_filtered_and_large_files_are_the_originals(make_repo: MakeRepo, tmp_path: Path) -> None:
    """Of what LFS or git-crypt keep the repository has a pointer: workers read the work tree's, and it is told."""
    root = make_repo({".gitattributes": "*.bin filter=shout\n"})
    for name, command in (("clean", "tr a-z A-Z"), ("smudge", "tr A-Z a-z")):
        subprocess.run(["git", "config", f"filter.shout.{name}", command], cwd=root, check=True)
    edit(root / "weights.bin", "weights")
    with (root / "huge.csv").open("wb") as file:
        file.truncate(LARGE + 1)
    commit_all(root)
    made = submitted(root, tmp_path)
    there = stand_in(made)
    assert (there / "weights.bin").read_text() == "weights"
    assert (there / "huge.csv").is_symlink()
    assert [omission.what for omission in made.omissions] == ["submitted code: huge.csv, weights.bin"]
    code.verify(made)


def test_the_same_code_is_checked_out_once(make_repo: MakeRepo, tmp_path: Path) -> None:
    """A second map of equal code uses the same folder; other code gets another, and the first one stays."""
    root = make_repo({"a.py": "x = 1", ".gitignore": "new"})
    first = submitted(root, tmp_path)
    inode = (stand_in(first) / "a.py").stat().st_ino
    edit(root / "new/data.csv", "1")
    assert submitted(root, tmp_path) == first
    assert (stand_in(first) / "a.py").stat().st_ino == inode
    assert (stand_in(first) / "new/data.csv").read_text() == "1"
    edit(root / "a.py", "x = 2")
    other = submitted(root, tmp_path)
    assert [(stand_in(of) / "a.py").read_text() for of in (first, other)] == ["x = 1", "x = 2"]
    assert len(list((tmp_path / "code").iterdir())) == 2


def test_a_checkout_that_was_edited_is_made_anew(make_repo: MakeRepo, tmp_path: Path) -> None:
    """Who submits again gets the code as it is in the lock, whatever was done to an earlier checkout."""
    root = make_repo({"a.py": "x = 1"})
    made = submitted(root, tmp_path)
    edit(stand_in(made) / "a.py")
    assert submitted(root, tmp_path) == made
    code.verify(made)
    assert [path.name for path in (tmp_path / "code").iterdir()] == [Path(made.folder).name]


def test_a_kill_leaves_nothing_half(make_repo: MakeRepo, tmp_path: Path) -> None:
    """A process killed while it writes leaves no folder under the final name; the next one makes it."""
    root = make_repo({f"m{n}.py": "x = 1" for n in range(5)})
    program = """
        import os, signal, sys
        from pathlib import Path
        from runctx import snapshot
        from runctx.launchers import checkout
        def write(path, mode, content, write=checkout._write_file):
            if path.endswith(b"m3.py"):
                os.kill(os.getpid(), signal.SIGKILL)
            write(path, mode, content)
        checkout._write_file = write
        root, to = Path(sys.argv[1]), Path(sys.argv[2])
        taken = snapshot.take(root, message="m", cache=to / "cache")
        checkout.checkout(taken.source, taken.root, to / "code")
        """
    arguments = [sys.executable, "-c", textwrap.dedent(program), str(root), str(tmp_path)]
    assert subprocess.run(arguments, check=False).returncode == -9
    assert all(path.name.endswith(".tmp") for path in (tmp_path / "code").iterdir())
    code.verify(submitted(root, tmp_path))


def test_many_processes_check_out_at_once(make_repo: MakeRepo, tmp_path: Path) -> None:
    """All get the same whole folder, and nothing else is left."""
    root = make_repo({f"m{n}.py": f"x = {n}" for n in range(30)})
    program = """
        import sys
        from pathlib import Path
        from runctx import snapshot
        from runctx.launchers import checkout
        root, to = Path(sys.argv[1]), Path(sys.argv[2])
        taken = snapshot.take(root, message="m", cache=to / "cache")
        checkout.verify(checkout.checkout(taken.source, taken.root, to / "code"))
        """
    arguments = [sys.executable, "-c", textwrap.dedent(program), str(root), str(tmp_path)]
    together = [subprocess.Popen(arguments) for _ in range(4)]
    assert [one.wait() for one in together] == [0] * 4
    assert len(list((tmp_path / "code").iterdir())) == 1


def test_what_a_partial_clone_lacks_is_told(make_repo: MakeRepo, tmp_path: Path) -> None:
    """A file that is neither in the repository nor in the work tree is left out, and the rest is there."""
    origin = make_repo({"pkg/a.py": "x = 1", "docs/b.md": "b", "docs/c.md": "c"}, name="origin")
    subprocess.run(["git", "config", "uploadpack.allowFilter", "true"], cwd=origin, check=True)
    options = ("-q", "--filter=blob:none", "--sparse", "--no-local")
    subprocess.run(["git", "clone", *options, origin.as_uri(), "part"], cwd=tmp_path, check=True)
    subprocess.run(["git", "sparse-checkout", "set", "pkg"], cwd=tmp_path / "part", check=True)
    made = submitted(tmp_path / "part", tmp_path)
    assert (stand_in(made) / "pkg/a.py").read_text() == "x = 1"
    assert [omission.what for omission in made.omissions] == ["submitted code: docs/b.md, docs/c.md"]
    code.verify(made)


def test_a_damaged_repository_is_told(make_repo: MakeRepo, tmp_path: Path) -> None:
    """An object that is missing gives an error that names the file, and no checkout."""
    root = make_repo({"pkg/a.py": "x = 1"})
    snap = taken(root, tmp_path)
    blob = subprocess.run(
        ["git", "rev-parse", "HEAD:pkg/a.py"], cwd=root, capture_output=True, text=True, check=True
    )
    name = blob.stdout.strip()
    (root / ".git/objects" / name[:2] / name[2:]).unlink()
    with pytest.raises(LedgerError, match=r"pkg/a\.py"):
        checkout(snap.source, snap.root, tmp_path / "code")
    assert not (tmp_path / "code").exists()


# -- what a worker verifies -------------------------------------------------------------------------------


def _make_executable(path: Path) -> None:
    path.chmod(0o755)


def _replace_by_link(path: Path) -> None:
    path.rename(path.with_suffix(".moved"))
    path.symlink_to(path.with_suffix(".moved"))


@pytest.mark.parametrize("harm", [edit, Path.unlink, _make_executable, _replace_by_link])
def test_a_worker_refuses_code_that_was_edited(
    make_repo: MakeRepo, tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    """An edited file of the checkout is an error that names it, before anything of it is imported."""
    made = submitted(make_repo({"pkg/a.py": "x = 1", "b.py": ""}), tmp_path)
    harm(stand_in(made) / "pkg/a.py")
    before = list(sys.path)
    with pytest.raises(LedgerError, match=r"pkg/a\.py.*\n?hint: ") as caught:
        code.use(made)
    assert sys.path == before
    assert "resume" in str(caught.value)


@pytest.mark.parametrize("content", [None, b"", b"\x93not a manifest", b"\xdf" + b"\xff" * 8])
def test_a_worker_refuses_a_broken_checkout(
    make_repo: MakeRepo, tmp_path: Path, content: bytes | None
) -> None:
    """A checkout that is gone or damaged is a clear error."""
    made = submitted(make_repo({"a.py": "x = 1"}), tmp_path)
    manifest = Path(made.folder, code.MANIFEST)
    manifest.unlink() if content is None else manifest.write_bytes(content)
    with pytest.raises(LedgerError, match="cannot be read"):
        code.verify(made)


def test_a_worker_believes_the_lock_alone(make_repo: MakeRepo, tmp_path: Path) -> None:
    """A file edited together with its line of the manifest does not give the tree that the lock names."""
    root = make_repo({"a.py": "x = 1"})
    made = submitted(root, tmp_path)
    edit(root / "a.py", "x = 2")
    forged = submitted(root, tmp_path)
    shutil.rmtree(made.folder)
    shutil.copytree(forged.folder, made.folder, symlinks=True)
    with pytest.raises(LedgerError, match=f"does not match tree {made.tree}"):
        code.verify(made)


def test_what_tasks_leave_beside_the_code_does_no_harm(make_repo: MakeRepo, tmp_path: Path) -> None:
    """A cache that a task wrote beside its module, and bytecode, do not make the code another."""
    made = submitted(make_repo({"pkg/a.py": "x = 1"}), tmp_path)
    edit(stand_in(made) / "pkg/cache.json", "{}")
    edit(stand_in(made) / "pkg/__pycache__/a.cpython-311.pyc", "")
    code.verify(made)


def test_bytecode_that_is_tracked_plays_no_role(make_repo: MakeRepo, job: Job) -> None:
    """Bytecode in the repository that claims to be valid whatever its source says is not used."""
    root = make_repo({"mine.py": "NAME = 'stale'", "t.py": ""})
    compiling = "import py_compile as p; p.compile('mine.py', invalidation_mode=p.PycInvalidationMode(3))"
    subprocess.run([sys.executable, "-c", compiling], cwd=root, check=True)
    edit(root / "mine.py", "NAME = 'fresh'")
    edit(
        root / "t.py",
        "from submitting import submit\ndef work():\n    import mine\n    return mine.NAME\nsubmit(work)",
    )
    commit_all(root)
    job.submit("t.py", cwd=root)
    assert job.work(root) == "fresh"


def test_the_description_travels(make_repo: MakeRepo, tmp_path: Path) -> None:
    """It is small and plain: a job on another machine gets it pickled."""
    few = submitted(make_repo({"a.py": ""}, name="one"), tmp_path)
    many = submitted(make_repo({f"m{n}.py": "" for n in range(500)}, name="two"), tmp_path)
    assert pickle.loads(pickle.dumps(many)) == many
    assert len(pickle.dumps(many)) < len(pickle.dumps(few)) + 200


def test_using_it_twice_changes_nothing_more(make_repo: MakeRepo, job: Job) -> None:
    """A worker within a worker calls `use` again, verified, and its search path stays as it is."""
    root = make_repo({"t.py": ""})
    program = """
        from submitting import submit
        def work():
            import os, pickle, sys
            from runctx.launchers import checkout
            before = list(sys.path), os.environ.get("PYTHONPATH")
            with open(sys.argv[1], "rb") as file:
                checkout.use(pickle.load(file)[0], verified=True)
            return before == (list(sys.path), os.environ.get("PYTHONPATH"))
        submit(work)
        """
    edit(root / "t.py", textwrap.dedent(program))
    job.submit("t.py", cwd=root)
    assert job.work(root, PYTHONPATH=str(root))
