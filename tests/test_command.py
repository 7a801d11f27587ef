import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import runctx
from runctx.capture.program import command, folder, project_modules, stage_name
from runctx.model import Command
from runctx.redact import REDACTED, Redactor

PACKAGE = str(Path(runctx.__file__).parents[1])

TELL = """
import json, os
from dataclasses import asdict
from pathlib import Path
from runctx.capture.program import command, project_modules, stage_name

def tell(label=""):
    root = Path(os.environ["ROOT"]) if os.environ.get("ROOT") else None
    told = command(root)
    modules = {name: str(path) for name, path in project_modules(root).items() if "runctx" not in name}
    line = asdict(told) | {"label": label, "stage": stage_name(told), "modules": modules}
    with open(os.environ["TOLD"], "a") as file:
        file.write(json.dumps(line) + "\\n")
"""
SCRIPT = "import tell\n\nif __name__ == '__main__':\n    tell.tell()\n"


class Project:
    """A repository with a script, a package and `tell.py`, in which processes are started."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "repo"
        self.told = folder / "told.jsonl"
        self.home = folder / "home"
        self.home.mkdir(parents=True)
        self.write("tell.py", TELL)
        self.write("train.py", SCRIPT)
        self.write("pkg/__init__.py", "")
        self.write("pkg/__main__.py", SCRIPT)
        self.write("pkg/fit.py", SCRIPT)

    def write(self, path, text):
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def run(self, *args, stdin="", cwd=None, env=None, python=sys.executable):
        """What `tell` said, one dict per call, in a process started with these arguments."""
        self.told.unlink(missing_ok=True)
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "PYTEST"))}
        wanted = {
            "PYTHONPATH": os.pathsep.join([str(self.root), PACKAGE]),
            "ROOT": str(self.root),
            "TOLD": str(self.told),
            "HOME": str(self.home),
            "IPYTHONDIR": str(self.home / "ipython"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        done = subprocess.run(
            [python, *map(str, args)] if python else list(map(str, args)),
            cwd=cwd or self.root,
            env=inherited | wanted | (env or {}),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert self.told.exists(), done.stdout + done.stderr
        return [json.loads(line) for line in self.told.read_text().splitlines()]


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)


TELLING = "import tell; tell.tell()"
SPAWN = """
import multiprocessing, tell
if __name__ == "__main__":
    for how in ("fork", "spawn", "forkserver"):
        process = multiprocessing.get_context(how).Process(target=tell.tell, args=(how,))
        process.start()
        process.join()
"""
LOKY = """
import joblib, tell
if __name__ == "__main__":
    joblib.Parallel(n_jobs=2)(joblib.delayed(tell.tell)("loky") for _ in range(2))
"""


@pytest.mark.parametrize(
    ("args", "stdin", "kind", "entry", "argv", "stage"),
    [
        (["train.py", "lr=1"], "", "script", "train.py", ["train.py", "lr=1"], "train"),
        (["-O", "./train.py"], "", "script", "train.py", ["./train.py"], "train"),
        (["-m", "pkg.fit", "lr=1"], "", "module", "pkg.fit", ["-m", "pkg.fit", "lr=1"], "fit"),
        (["-m", "pkg"], "", "module", "pkg", ["-m", "pkg"], "pkg"),
        (["pkg", "x"], "", "script", "pkg/__main__.py", ["pkg", "x"], "pkg"),
        (["-c", TELLING, "x"], "", "console", "", ["-c", TELLING, "x"], "console"),
        (["-", "x"], TELLING, "console", "", ["-", "x"], "console"),
        ([], TELLING, "console", "", [], "console"),
        (["-i"], TELLING, "console", "", [], "console"),
        (["-m", "IPython", "train.py", "x"], "", "script", "train.py", None, "train"),
        (["-m", "IPython", "-c", "%run train.py a"], "", "script", "train.py", ["train.py", "a"], "train"),
        (
            ["-m", "IPython", "-c", "%run -m pkg.fit a"],
            "",
            "module",
            "pkg.fit",
            ["-m", "pkg.fit", "a"],
            "fit",
        ),
        (["-m", "IPython", "-c", TELLING], "", "console", "", None, "console"),
        (
            ["-m", "cProfile", "-o", os.devnull, "train.py", "x"],
            "",
            "script",
            "train.py",
            ["train.py", "x"],
            "train",
        ),
        (["-m", "pdb", "-c", "c", "train.py"], "q\n", "script", "train.py", ["train.py"], "train"),
    ],
)
def test_each_way_of_starting(project, args, stdin, kind, entry, argv, stage):
    """However Python is started, kind, entry, arguments and stage name say what was meant."""
    told = project.run(*args, stdin=stdin)[0]
    assert (told["kind"], told["entry"], told["stage"]) == (kind, entry, stage)
    if argv is not None:
        assert told["argv"] == argv
    assert told["cwd"] == "."
    assert told["python"] == sys.executable


def test_started_from_elsewhere(project, tmp_path):
    """A script is named relative to the repository wherever it was started, and absolutely outside one."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    told = project.run("../repo/train.py", cwd=elsewhere)[0]
    assert (told["entry"], told["cwd"]) == ("train.py", str(elsewhere))
    told = project.run("../repo/train.py", cwd=elsewhere, env={"ROOT": ""})[0]
    assert told["entry"] == str(project.root / "train.py")


def test_symbolic_links(project, tmp_path):
    """A link into the repository names the script it leads to; a linked repository is the same one."""
    (tmp_path / "short.py").symlink_to(project.root / "train.py")
    (tmp_path / "linked").symlink_to(project.root)
    assert project.run(tmp_path / "short.py")[0]["entry"] == "train.py"
    told = project.run("train.py", env={"ROOT": str(tmp_path / "linked")})[0]
    assert told["entry"] == "train.py"
    assert told["modules"]["tell"] == str(tmp_path / "linked" / "tell.py")


def test_pytest(project):
    """Under pytest the command is pytest, and the test module belongs to the project."""
    project.write("tests/test_it.py", "import tell\n\ndef test_it():\n    tell.tell()\n")
    told = project.run("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests")[0]
    assert (told["kind"], told["entry"], told["stage"]) == ("module", "pytest", "pytest")
    assert "test_it" in told["modules"] and "__main__" not in told["modules"]


def test_console_script(project):
    """What an installer put beside the interpreter is a script by its name, and no part of the project."""
    script = Path(sys.executable).with_name("pytest")
    project.write("test_it.py", "import tell\n\ndef test_it():\n    tell.tell()\n")
    told = project.run(script, "-q", "-p", "no:cacheprovider", "test_it.py", python=None)[0]
    assert (told["kind"], told["entry"], told["stage"]) == ("script", str(script), "pytest")
    assert "__main__" not in told["modules"]


@pytest.mark.parametrize(
    ("code", "labels"), [(SPAWN, ["fork", "spawn", "forkserver"]), (LOKY, ["loky", "loky"])]
)
def test_workers_name_the_program(project, code, labels):
    """Children of multiprocessing and joblib name the script that started them, not their own start."""
    project.write("many.py", code)
    told = project.run("many.py", "x")
    assert [t["label"] for t in told] == labels
    for one in told:
        assert (one["kind"], one["entry"], one["argv"]) == ("script", "many.py", ["many.py", "x"])
        assert one["modules"]["__main__"] == str(project.root / "many.py")
        assert "__mp_main__" not in one["modules"]


def test_deleted_folder(project, tmp_path):
    """A run whose current folder was deleted still has a command."""
    doomed = tmp_path / "doomed"
    doomed.mkdir()
    project.write("gone.py", "import os, tell\nos.rmdir(os.getcwd())\ntell.tell()\n")
    told = project.run(project.root / "gone.py", cwd=doomed, env={"PWD": str(doomed)})[0]
    assert (told["entry"], told["cwd"]) == ("gone.py", str(doomed))


def test_script_that_changes_folder(project):
    """A profiled script that left its folder is still found."""
    project.write("sub/x", "")
    project.write("moves.py", "import os, tell\nos.chdir('sub')\ntell.tell()\n")
    told = project.run("-m", "cProfile", "-o", os.devnull, "moves.py", env={"PWD": str(project.root)})[0]
    assert (told["entry"], told["cwd"]) == ("moves.py", "sub")


def test_undecodable_and_countless_arguments(project):
    """Arguments that are no text, or too many, can be written, and say what is missing."""
    told = project.run("train.py", b"caf\xe9".decode("utf-8", "surrogateescape"))[0]
    assert told["argv"][1] == "caf\\udce9"
    told = project.run("train.py", *["x" * 1000] * 100)[0]
    assert sum(map(len, told["argv"])) < 66_000
    assert told["argv"][-1] == "... (37 more arguments, left out)"


def test_nameless_user(monkeypatch):
    """Under a user id without a name, as in containers, the number stands for it."""
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    nameless = 54321 if os.getuid() == 0 else os.getuid()  # only root can become somebody else
    code = f"import getpass, os, pwd, sys; sys.path.insert(0, {PACKAGE!r})\n"
    code += "from runctx.capture.program import command; command()\n"
    code += f"os.setuid({nameless}); print(command().user)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ("54321" if os.getuid() == 0 else command().user)


@pytest.mark.parametrize(
    ("variables", "job"),
    [
        ({}, None),
        ({"SLURM_JOB_ID": "121"}, "121"),
        ({"SLURM_JOB_ID": "121", "SLURM_ARRAY_JOB_ID": "120", "SLURM_ARRAY_TASK_ID": "7"}, "120_7"),
    ],
)
def test_slurm_job(monkeypatch, variables, job):
    """The Slurm job is named as squeue prints it, members of an array included."""
    for name in ("SLURM_JOB_ID", "SLURM_JOBID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert command().slurm_job == job


def test_arguments_replaced_by_the_program(monkeypatch):
    """A program that empties or breaks sys.argv still has a command."""
    for argv in ([], [None], [3], None):
        monkeypatch.setattr(sys, "argv", argv)
        assert isinstance(command(Path.cwd()), Command)
    monkeypatch.delattr(sys, "argv")
    assert isinstance(command(Path.cwd()), Command)


# -- modules ------------------------------------------------------------------------------------


def test_modules_of_the_repository(project):
    """Imported modules of the repository are listed, those it holds in a virtual environment are not."""
    site = project.root / ".venv" / "lib" / "python3" / "site-packages"
    site.mkdir(parents=True)
    (site.parents[2] / "pyvenv.cfg").write_text("home = /usr/bin\n")
    (site / "rented.py").write_text("")
    project.write("lib/own.py", "")
    project.write("pkg/unused.py", "")
    project.write("pydevices.py", "")
    code = f"import sys; sys.path[:0] = [{str(site)!r}, 'lib']\nimport rented, numpy, json\n"
    project.write("main.py", code + "import own, pydevices, pkg.fit, tell\ntell.tell()\n")
    modules = project.run("main.py")[0]["modules"]
    root = str(project.root)
    assert modules == {
        "__main__": f"{root}/main.py",
        "own": f"{root}/lib/own.py",
        "pkg": f"{root}/pkg/__init__.py",
        "pkg.fit": f"{root}/pkg/fit.py",
        "pydevices": f"{root}/pydevices.py",
        "tell": f"{root}/tell.py",
    }


def test_modules_of_an_environment_made_in_the_repository(project):
    """In a real virtual environment inside the repository, its own packages are not the project's."""
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", project.root / "env"], check=True, timeout=60
    )
    python = project.root / "env" / "bin" / "python"
    site = next((project.root / "env").glob("lib/python*/site-packages"))
    (site / "rented.py").write_text("")
    (site / "near.pth").write_text(f"{project.root / 'src'}\n{os.pathsep.join(map(str, site_folders()))}\n")
    project.write("src/near.py", "")
    project.write("main.py", "import rented, near, json, tell\ntell.tell()\n")
    told = project.run("main.py", python=python)[0]
    assert set(told["modules"]) == {"__main__", "near", "tell"}
    assert told["python"] == str(python)


def site_folders():
    import site

    return [Path(folder) for folder in site.getsitepackages() if Path(folder).is_dir()]


def test_modules_elsewhere(project, tmp_path):
    """Editable installs and plain folders on the path are the project's; pip's targets and strays are not."""
    for name, files in {
        "plain": ["plain_one.py", "space/part.py", "pydevd.py"],
        "target": ["targeted.py", "targeted-1.0.dist-info/METADATA"],
        "editable/src": ["edited.py"],
        "site-packages": ["edited-2.0.dist-info/METADATA"],
        "cache": ["c0ffee.py"],
    }.items():
        for file in files:
            (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / file).write_text("")
    origin = {"url": (tmp_path / "editable").as_uri(), "dir_info": {"editable": True}}
    (tmp_path / "site-packages/edited-2.0.dist-info/direct_url.json").write_text(json.dumps(origin))
    folders = [str(tmp_path / name) for name in ("plain", "target", "site-packages")]
    strays = {"edited": "editable/src/edited.py", "c0ffee": "cache/c0ffee.py"}
    code = f"""
import importlib.util, sys
sys.path[:0] = {folders!r}
import plain_one, space.part, targeted, pydevd
for name, file in {strays!r}.items():  # as import hooks of editable installs, and compilers, load modules
    spec = importlib.util.spec_from_file_location(name, {str(tmp_path)!r} + "/" + file)
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])
import tell
tell.tell()
"""
    project.write("main.py", code)
    modules = project.run("main.py")[0]["modules"]
    assert set(modules) == {"__main__", "tell", "plain_one", "space.part", "edited"}
    assert modules["space.part"] == str(tmp_path / "plain/space/part.py")


def test_modules_follow_what_is_imported(tmp_path, monkeypatch):
    """Modules imported later appear, removed ones vanish, one imported anew elsewhere has its new file."""
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "moving_module.py").write_text("")
    assert "moving_module" not in project_modules(tmp_path)
    for place in ("a", "b"):
        with monkeypatch.context() as patch:
            patch.syspath_prepend(str(tmp_path / place))
            __import__("moving_module")
            assert project_modules(tmp_path)["moving_module"] == tmp_path / place / "moving_module.py"
            del sys.modules["moving_module"]
            assert "moving_module" not in project_modules(tmp_path)


def test_lazy_modules_stay_asleep(tmp_path, monkeypatch):
    """Listing modules wakes none that load on first use, and survives entries that are no modules."""
    import importlib.util

    file = tmp_path / "sleeper.py"
    file.write_text("raise SystemExit('woken')\n")
    spec = importlib.util.spec_from_file_location("sleeper", file)
    assert spec is not None and spec.loader is not None
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(sys.modules, "sleeper", module)
    monkeypatch.setitem(sys.modules, "nothing_at_all", None)
    monkeypatch.setitem(sys.modules, "a_number", 7)
    assert project_modules(tmp_path)["sleeper"] == file


def test_folder_of_the_project(project, tmp_path, monkeypatch):
    """The project is looked for where the program lies, else, as under pytest, in the current folder."""
    monkeypatch.chdir(tmp_path)
    assert folder() == tmp_path
    project.write(
        "lib/where.py", "import os, sys\nfrom runctx.capture.program import folder\nprint(folder())\n"
    )
    (tmp_path / "link.py").symlink_to(project.root / "lib/where.py")
    env = os.environ | {"PYTHONPATH": PACKAGE}
    done = subprocess.run([sys.executable, "link.py"], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(project.root / "lib")


# -- names --------------------------------------------------------------------------------------


def started(kind, entry):
    return Command(kind=kind, entry=entry, cwd=".", python="", host="", pid=1, user="")


@pytest.mark.parametrize(
    ("kind", "entry", "stage"),
    [
        ("script", "scripts/train.py", "train"),
        ("script", "my project/fit model.py", "fit-model"),
        ("script", "tool/__main__.py", "tool"),
        ("script", "__main__.py", "__main__"),
        ("module", "pkg.sub.train", "train"),
        ("notebook", "notebooks/01 explore.ipynb", "01-explore"),
        ("notebook", "", "notebook"),
        ("console", "", "console"),
        ("script", "...py", "console"),
    ],
)
def test_stage_names(kind, entry, stage):
    """The stage is the script's, module's or notebook's own name."""
    assert stage_name(started(kind, entry)) == stage


@given(st.sampled_from(["script", "module", "notebook", "console"]), st.text(max_size=300))
@settings(max_examples=200, deadline=None)
def test_stage_names_are_safe(kind, entry):
    """Whatever was started, its stage is one visible, writable path component of moderate length."""
    name = stage_name(started(kind, entry))
    assert name and name == Path(name).name and name[0] not in ".-"
    assert len(name.encode()) <= 240 and "/" not in name and "\0" not in name


# -- secrets ------------------------------------------------------------------------------------

SECRET = "s3cr3t-Value"


@pytest.mark.parametrize(
    "argv",
    [
        ["--api-key", SECRET],
        ["--api-key", f"-{SECRET}"],
        [f"--api-key={SECRET} with spaces"],
        [f"hf_token={SECRET}"],
        [f"a.b.password={SECRET}"],
        ["-o", f"db.password={SECRET}"],
        [f"++db.password={SECRET}"],
        ["-o", f"db={{user: me, password: {SECRET}}}"],
        ["--cfg", f'{{"password": "{SECRET}"}}'],
        [f"postgresql://me:{SECRET}@host/db"],
        [f"--uri=https://me:{SECRET}@host/db?x=1"],
        [f"https://host/?api_key={SECRET}&x=1"],
        ["-c", f"login(password='{SECRET}')"],
        ["--header", f"Authorization: Bearer {SECRET}"],
    ],
)
def test_no_form_of_secret_survives(argv):
    """A secret is left out in each form that arguments take, and nothing else is."""
    shown = Redactor().arguments(["train.py", *argv, "lr=0.1"])
    assert SECRET not in " ".join(shown) and REDACTED in " ".join(shown)
    assert (shown[0], shown[-1], len(shown)) == ("train.py", "lr=0.1", len(argv) + 2)


def test_the_command_is_redacted(monkeypatch):
    """The command holds redacted arguments, and the redactor then finds the secret in other texts."""
    monkeypatch.setattr(sys, "argv", [sys.argv[0], f"--password={SECRET}"])
    redactor = Redactor()
    assert SECRET not in " ".join(command(None, redactor).argv)
    assert redactor.text(f"login with {SECRET}") == f"login with {REDACTED}"


@pytest.mark.parametrize(
    "argv",
    [
        ["--lr", "0.1", "--max-tokens=5"],
        ["--show-password", "--verbose"],
        ["-v", "pad_token=<pad>"],
        ["a=b=c", "--", "-"],
    ],
)
def test_ordinary_arguments_stay(argv):
    """Arguments without secrets come back unchanged."""
    assert Redactor().arguments(argv) == tuple(argv)


@given(st.lists(st.text(alphabet=st.characters(codec="utf-8"), max_size=20), max_size=8))
@settings(max_examples=100, deadline=None)
def test_redacting_keeps_the_shape(argv):
    """Redacting never raises, keeps the number of arguments, and leaves nothing to do the second time."""
    once = Redactor().arguments(argv)
    assert len(once) == len(argv)
    assert Redactor().arguments(once) == once
