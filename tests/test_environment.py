import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import runctx
from runctx.capture import modules
from runctx.capture.environment import (
    VARIABLES,
    _cpu,
    _cpu_quota,
    _driver_devices,
    environment,
)
from runctx.redact import Redactor

PACKAGE = str(Path(runctx.__file__).parents[1])


def child(code, *path, env=None):
    """The JSON that a fresh process prints after this code."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([*map(str, path), PACKAGE])} | (env or {}),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


PACKAGES = "import json; from runctx.capture.environment import environment; print(json.dumps(environment().packages))"


def install(folder, name, version, files, *, record=True, **extra):
    """A distribution as an installer leaves it: its files, and metadata beside them."""
    info = folder / f"{name.lower().replace('-', '_')}-{version}.dist-info"
    metadata = {
        "METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\nVersion: 9 in the text\n"
    }
    if record:
        metadata["RECORD"] = "".join(f"{file},,\n" for file in files)
    for path, text in {
        **{folder / f: "" for f in files},
        **{info / f: t for f, t in (metadata | extra).items()},
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return info


# -- the machine --------------------------------------------------------------------------------


def test_this_machine():
    """What is recorded of this machine agrees with what Python says about it."""
    import platform

    here = environment()
    assert here.python == f"{platform.python_version()} {platform.python_implementation()}"
    assert here.platform == platform.platform()
    assert here.cpu and 1 <= here.cpus <= (os.cpu_count() or 1)
    assert here.memory >= 2**27


def test_equal_environments_are_equal_values():
    """Asked twice, the answer is the same down to the order of its keys."""
    one, two = environment(), environment()
    assert one == two
    assert (
        list(one.packages)
        == sorted(one.packages, key=lambda name: (name.lower(), name))
        == list(two.packages)
    )
    assert list(one.variables) == sorted(one.variables)


def test_the_answer_is_the_callers():
    """Whoever changes the returned mappings changes nothing but his own copy."""
    environment().packages.clear()
    assert environment().packages


def test_affinity_is_asked_again():
    """A process that gives up processors sees it, and so do its forked children."""
    code = """
import json, os
from runctx.capture.environment import environment
first = environment().cpus
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
read, write = os.pipe()
if os.fork() == 0:
    os.write(write, bytes([environment().cpus]))
    os._exit(0)
print(json.dumps([first, environment().cpus, os.read(read, 1)[0]]))
"""
    first, second, forked = child(code)
    assert first >= 1 and (second, forked) == (1, 1)


@pytest.mark.parametrize(
    ("membership", "files", "cpus"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "max 100000\n"}, sys.maxsize),
        ("0::/a/b\n", {"a/cpu.max": "300000 100000", "a/b/cpu.max": "max 100000"}, 3),
        ("0::/a/b\n", {"a/cpu.max": "300000 100000", "a/b/cpu.max": "50000 100000"}, 1),
        ("0::/invisible\n", {"cpu.max": "400000 100000"}, 4),
        (
            "3:cpu,cpuacct:/a\n0::/\n",
            {"cpu/a/cpu.cfs_quota_us": "200000", "cpu/a/cpu.cfs_period_us": "100000"},
            2,
        ),
        ("3:cpu,cpuacct:/a\n", {"cpu,cpuacct/cpu.cfs_quota_us": "-1"}, sys.maxsize),
        ("1:cpuset:/\n", {"cpuset/x": ""}, sys.maxsize),
        ("0::/\n", {"cpu.max": "garbage"}, sys.maxsize),
        ("0::/../..\n", {"cpu.max": "100000 100000"}, 1),
    ],
)
def test_control_groups(tmp_path, membership, files, cpus):
    """The tightest processor quota on the way to this process's control group holds, in both versions."""
    (tmp_path / "cgroup").write_text(membership)
    for name, text in files.items():
        file = tmp_path / "mount" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert _cpu_quota(tmp_path / "cgroup", tmp_path / "mount") == cpus


def test_devices_by_driver(tmp_path):
    """Accelerators are named by the files of their drivers, in the order of the bus, processors left out."""
    nvidia, amd = tmp_path / "driver/nvidia/gpus", tmp_path / "class/kfd/kfd/topology/nodes"
    for file, text in {
        nvidia / "0000:02:00.0/information": "Model: \t\t NVIDIA A100-SXM4-80GB\nIRQ:   42\n",
        nvidia / "0000:01:00.0/information": "Model: \t\t Tesla T4\nIRQ:   41\n",
        amd / "0/gpu_id": "0\n",
        amd / "1/gpu_id": "4660\n",
        amd / "1/name": "gfx90a\n",
    }.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert _driver_devices(tmp_path, tmp_path) == ("Tesla T4", "NVIDIA A100-SXM4-80GB", "gfx90a")
    assert _driver_devices(tmp_path / "none", tmp_path / "none") == ()


def test_processor_names(tmp_path):
    """The processor's name is read and tidied; where the file has none, the architecture stands in."""
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nmodel\t\t: 2\nmodel name\t: Some  CPU @ 2GHz\ncpu MHz\t: 1\n")
    assert _cpu(info) == "Some CPU @ 2GHz"
    info.write_text("processor\t: 0\nBogoMIPS\t: 50.00\ncpu MHz\t: 1\n")
    assert _cpu(info) == os.uname().machine


@pytest.mark.parametrize("initialised", [False, True])
def test_torch_is_never_initialised(tmp_path, initialised):
    """A loaded torch is asked only if it uses its devices already, since asking initialises them."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch/__init__.py").write_text("from . import cuda\n")
    (tmp_path / "torch/cuda.py").write_text(
        f"""
def is_initialized(): return {initialised}
def device_count(): return 2
def get_device_name(i): return f"Device {{i}}" if is_initialized() else 1 / 0
"""
    )
    code = "import json, torch; from runctx.capture.environment import environment as e; print(json.dumps(e().devices))"
    assert child(code, tmp_path) == (["Device 0", "Device 1"] if initialised else list(environment().devices))


def test_light():
    """To find out where it runs loads nothing heavy."""
    code = """
import json, sys
from runctx.capture.environment import environment
environment()
heavy = {"numpy", "torch", "importlib.metadata", "asyncio", "pygit2", "loguru", "omegaconf", "IPython"}
print(json.dumps(sorted(heavy & sys.modules.keys())))
"""
    assert child(code) == []


# -- packages -----------------------------------------------------------------------------------


def test_imported_packages_only():
    """Exactly the distributions of imported modules are listed, under their authors' spelling."""
    import importlib.metadata

    packages = child(
        "import numpy, yaml, sklearn, PIL, google.protobuf, dateutil.parser, _cffi_backend\n" + PACKAGES
    )
    wanted = {"numpy", "PyYAML", "scikit-learn", "pillow", "protobuf", "python-dateutil", "cffi"}
    assert wanted <= packages.keys()
    assert not {"google-auth", "setuptools", "pip", "pytest", "matplotlib"} & packages.keys()
    assert {name: importlib.metadata.version(name) for name in packages} == packages


def test_agrees_with_the_standard_library():
    """Whatever is imported here, importlib.metadata knows the same owner and version, only more slowly."""
    import importlib.metadata

    owners = importlib.metadata.packages_distributions()
    tops = {name.partition(".")[0] for name in list(sys.modules)}
    theirs = {owner.lower() for top in tops for owner in owners.get(top, ())}
    ours = modules.packages()
    assert {name.lower() for name in ours} <= theirs | {"runctx"}
    assert all(
        importlib.metadata.version(name) == version for name, version in ours.items() if name != "runctx"
    )


def test_packages_found_by_every_way(tmp_path):
    """A distribution is found by name, RECORD, top_level.txt, a metadata file, or as a namespace's part."""
    install(tmp_path, "Plain-Name", "1.0", ["plain_name/__init__.py"])
    install(tmp_path, "PyOther", "2.0", ["other.py"])
    install(
        tmp_path,
        "listed",
        "3.0",
        ["by_top_level/__init__.py"],
        record=False,
        **{"top_level.txt": "by_top_level\n"},
    )
    install(tmp_path, "space-one", "4.0", ["space/one/__init__.py"])
    install(tmp_path, "space-two", "5.0", ["space/deep/two.py"])
    install(tmp_path, "space-three", "6.0", ["space/three.py"])
    install(tmp_path, "unused", "7.0", ["unused.py"])
    (tmp_path / "old_style-8.0-py3.11.egg-info").write_text(
        "Metadata-Version: 1.0\nName: old.style\nVersion: 8.0\n"
    )
    (tmp_path / "old_style.py").write_text("")
    code = "import plain_name, other, by_top_level, space.one, space.deep.two, old_style\n"
    packages = child(code + PACKAGES, tmp_path)
    assert {
        name: version for name, version in packages.items() if version.endswith(".0") and len(version) == 3
    } == {
        "listed": "3.0",
        "old.style": "8.0",
        "Plain-Name": "1.0",
        "PyOther": "2.0",
        "space-one": "4.0",
        "space-two": "5.0",
    }


def test_editable_installs(tmp_path):
    """An editable install is listed with its version, though its modules lie and are called otherwise."""
    source = tmp_path / "my project"
    (source / "src").mkdir(parents=True)
    (source / "src/mylib.py").write_text("")
    origin = json.dumps({"url": source.as_uri(), "dir_info": {"editable": True}})
    install(tmp_path / "site", "My-Project", "0.3", [], **{"direct_url.json": origin})
    install(
        tmp_path / "site", "mylib-of-others", "1.0", [], **{"direct_url.json": '{"url": 3, "dir_info": []}'}
    )
    packages = child("import mylib\n" + PACKAGES, tmp_path / "site", source / "src")
    assert packages["My-Project"] == "0.3" and "mylib-of-others" not in packages


def test_own_modules_are_no_packages(tmp_path):
    """A module of the project that is called like an installed distribution is not taken for it."""
    (tmp_path / "numpy.py").write_text("")
    assert "numpy" not in child("import numpy\n" + PACKAGES, tmp_path)


def test_broken_metadata(tmp_path):
    """Empty, binary, missing or circular metadata never raises; the version is what the folder says."""
    for name in ("empty", "binary", "missing", "circular"):
        (tmp_path / f"{name}_package.py").write_text("")
    infos = {
        name: tmp_path / f"{name}_package-1.5.dist-info"
        for name in ("empty", "binary", "missing", "circular")
    }
    for info in infos.values():
        info.mkdir()
    (infos["empty"] / "METADATA").write_text("")
    (infos["binary"] / "METADATA").write_bytes(b"\xff\xfe\0Name\0" * 100)
    (infos["circular"] / "METADATA").symlink_to(infos["circular"] / "METADATA")
    (tmp_path / "nameless.dist-info").mkdir()
    (tmp_path / ".dist-info").write_text("")
    (tmp_path / "nameless.py").write_text("")
    (tmp_path / "~mpty_package-1.4.dist-info").mkdir()
    code = "import empty_package, binary_package, missing_package, circular_package, nameless\n"
    packages = child(code + PACKAGES, tmp_path)
    assert {name: packages.get(f"{name}_package") for name in infos} == dict.fromkeys(infos, "1.5")
    assert packages["nameless"] == "unknown"


def test_packages_follow_imports_and_installs(tmp_path):
    """What is installed and imported while the process runs appears at the next look."""
    script = tmp_path / "grow.py"
    script.write_text(
        f"""
import json, os, sys
from pathlib import Path
from runctx.capture.environment import environment
site = Path({str(tmp_path / "site")!r})
site.mkdir()
sys.path.append(str(site))
environment()
(site / "late.py").write_text("")
info = site / "pylate-1.0.dist-info"
info.mkdir()
(info / "METADATA").write_text("Name: pylate\\nVersion: 1.0\\n")
(info / "RECORD").write_text("late.py,,\\n")
before = "pylate" in environment().packages
import importlib
importlib.invalidate_caches()
import late
print(json.dumps([before, environment().packages.get("pylate")]))
"""
    )
    assert child(f"import runpy; runpy.run_path({str(script)!r})") == [False, "1.0"]


def test_threads_and_forks():
    """Looked at first by many threads at once, and then by a forked child, the packages are the same."""
    code = """
import json, os, threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import numpy, yaml, sklearn, PIL
from runctx.capture.program import project_modules
from runctx.capture.environment import environment
together = threading.Barrier(8)
def look(_):
    together.wait()
    return environment().packages, project_modules(Path("/"))
with ThreadPoolExecutor(8) as pool:
    answers = list(pool.map(look, range(8)))
if os.fork() == 0:
    os._exit(environment().packages != answers[0][0])
print(json.dumps([all(answer == answers[0] for answer in answers), os.wait()[1]]))
"""
    assert child(code) == [True, 0]


# -- variables ----------------------------------------------------------------------------------


def test_variables_by_allow_list(monkeypatch):
    """Only variables on the list, or matched by a given glob, are recorded."""
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("MY_MODE", "fast")
    monkeypatch.setenv("MY_API_KEY", "abc")
    monkeypatch.setenv("my_mode", "slow")
    assert environment().variables["OMP_NUM_THREADS"] == "3"
    assert "MY_MODE" not in environment().variables
    chosen = environment(["MY_*"]).variables
    assert chosen["MY_MODE"] == "fast" and "my_mode" not in chosen


def test_secrets_stay_out(monkeypatch):
    """No glob brings a secret in: not by the variable's name, nor inside an address."""
    secrets = {
        "MY_API_KEY": "hush-hush",
        "DB_PASSWORD": "hush-hush",
        "GITHUB_TOKEN": "hush-hush",
        "AWS_SECRET_ACCESS_KEY": "hush-hush",
        "DATABASE": "postgresql://me:hush-hush@host/db",
    }
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    assert "hush-hush" not in str(environment(["*", *secrets]).variables)
    assert "DATABASE" not in environment(["*"], Redactor(["DATA*"])).variables
    assert environment(["*"]).variables["DATABASE"] == "postgresql://me:<redacted>@host/db"


def test_nothing_on_the_list_looks_like_a_secret():
    """Each variable on the list is recorded when set."""
    assert [name for name in VARIABLES if Redactor().is_secret(name)] == []


def test_unwritable_values(monkeypatch):
    """Values that are no text or endless are recorded in a form that can be written."""
    monkeypatch.setitem(os.environb, b"MY_BYTES", b"caf\xe9")
    monkeypatch.setenv("MY_SIZE", "x" * 100_000)
    chosen = environment(["MY_*"]).variables
    assert chosen["MY_BYTES"] == "caf\\udce9"
    assert len(chosen["MY_SIZE"]) < 5_000 and chosen["MY_SIZE"].endswith("... (100000 characters)")


@given(st.lists(st.text(max_size=10), max_size=4))
@settings(max_examples=50, deadline=None)
def test_any_glob_is_taken(globs):
    """No glob, however odd, keeps the environment from being recorded."""
    assert environment(globs).variables.keys() >= environment().variables.keys()
