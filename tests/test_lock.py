"""run.lock: what was written is read back, and what is wrong is named with file and key."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import math
import os
import subprocess
import sys
import typing
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

import runctx
from runctx import lock, yamlfile
from runctx.errors import LockError, NoRunError
from runctx.model import (
    SCHEMA,
    Command,
    Data,
    Environment,
    Failure,
    Lock,
    Origin,
    Session,
    Source,
    Tasks,
)
from tests.pastruns import child_of, make_lock
from tests.strategies import locks

DATA = Path(__file__).parent / "data"

LOCK = Lock(
    runctx="0.1.0",
    id="train-251121-120000-a1b2c3",
    stage="train",
    status="failed",
    started=datetime(2025, 11, 21, 12, 0, 0, 250_000, tzinfo=UTC),
    seconds=1.5,
    save_dir="results/train/251121-120000",
    error=Failure(type="builtins.ValueError", message="no\nluck", traceback="Traceback ...\n  in main\n"),
    command=Command(
        kind="script", entry="train.py", cwd="/w", python="/usr/bin/python", host="h", pid=7, user="ada"
    ),
    seed=3,
    config={"lr": 0.1, "opt": {"name": "sgd"}, 3: None},
    source=Source(commit="git:1234e567", files={"train.py": "git:00", "lib/a.py": "git:11"}),
    inputs=(Data(path="data.csv", kind="file", digest="blake3:00", bytes=9),),
    environment=Environment(
        python="3.11", platform="Linux", cpu="c", cpus=2, memory=4, packages={"numpy": "2.0"}
    ),
)
PLAIN = lock.to_plain(LOCK)


def decoded(plain: Any) -> Lock:
    return lock.decode(yamlfile.dump(plain), "there/run.lock")


@given(locks)
def test_what_was_written_is_read_back(one: Lock) -> None:
    """decode(encode(lock)) == lock, and readers of YAML 1.1 and 1.2 see the same values."""
    data = lock.encode(one)
    assert lock.decode(data) == one
    assert (
        repr(yaml.safe_load(data))
        == repr(YAML(typ="safe", pure=True).load(data.decode()))
        == repr(lock.to_plain(one))
    )


@given(locks)
def test_equal_locks_give_equal_bytes(one: Lock) -> None:
    """The text depends on the values alone; reading and writing again changes nothing."""
    assert lock.encode(copy.deepcopy(one)) == lock.encode(one) == lock.encode(lock.decode(lock.encode(one)))


@given(locks, st.sets(st.sampled_from([f.name for f in dataclasses.fields(Lock)])))
def test_sections_are_those_of_the_whole(one: Lock, wanted: set[str]) -> None:
    """Reading some sections gives what reading all gives, whatever the others hold."""
    whole = yamlfile.load(lock.encode(one))
    assert lock.read_sections(lock.encode(one), wanted) == {k: v for k, v in whole.items() if k in wanted}


def test_equal_instants_give_equal_bytes() -> None:
    """A time is written as UTC, in whatever zone it was taken."""
    elsewhere = LOCK.started.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert lock.encode(dataclasses.replace(LOCK, started=elsewhere)) == lock.encode(LOCK)


def test_keys_stand_in_the_order_of_the_model() -> None:
    """A reader finds the same key at the same place in every lock; what is empty is left out."""
    order = [f.name for f in dataclasses.fields(Lock)]
    keys = [line.split(":")[0] for line in lock.encode(LOCK).decode().splitlines() if line[0].isalpha()]
    assert keys == [k for k in order if k in keys]
    assert "upstream" not in keys


# -- frozen ----------------------------------------------------------------------------------------


def test_lock_of_schema_1_is_read_for_ever() -> None:
    """A lock of an earlier release reads as it did then; a new schema adds a file and edits none."""
    one = lock.decode((DATA / "lock-schema1.yaml").read_bytes())
    assert (one.schema, one.runctx, one.id, one.status) == (
        1,
        "0.1.0",
        "evaluate-251121-130501-0f9e8d",
        "done",
    )
    assert one.started == datetime(2025, 11, 21, 13, 5, 1, 123456, tzinfo=UTC)
    assert one.config == {"lr": 0.1, "epochs": 5, "note": "two\nlines\n", "hash": "1234e567", 1: [True, None]}
    assert one.inputs[0].run == one.parents[0] == one.upstream[0].id == "train-251121-120000-a1b2c3"
    assert one.source.files == {"evaluate.py": "git:9daeafb9864cf43055ae93beb0afd6c7d144bfa4"}
    assert one.source.cells[0].code == "x = 1\nx"
    assert one.omissions[0].why == "larger than 10000000 bytes"
    assert one.upstream[0].error == Failure(
        type="builtins.ValueError", message="no\nluck", traceback="Traceback ..."
    )


def test_frozen_text() -> None:
    """The same lock gives the very bytes it gave before; the first release wrote earlier runs on many lines each."""
    frozen = (DATA / "lock-schema1.yaml").read_bytes()
    lines = (DATA / "lock-schema1-lines.yaml").read_bytes()
    assert lock.encode(lock.decode(frozen)) == lock.encode(lock.decode(lines)) == lines
    assert [hashlib.sha256(data).hexdigest() for data in (frozen, lines)] == [
        "d4daab97d3ca96734dd6d16602760bdb8c1e5fa99a8ab0cea2a532fb3f6e318b",
        "6519922c811a3c2a137e1e1417817352744b2d835ddfe7f022ece9c7af5b8614",
    ]
    assert (
        hashlib.sha256(lock.encode(LOCK)).hexdigest()
        == "268fcfc742d0ee01a95d0754ca8e63a676b2af49e60b52f51a699b379a0db3d9"
    )


def test_earlier_runs_on_one_line_each() -> None:
    """A deep chain is written and read without YAML's slow writer and parser, and any YAML reader reads it as well."""
    one = make_lock(0, stage="raw")
    for number in range(1, 30):
        one = child_of(
            number, one, stage=f"link{number}", config={"note": "a: [b]\n", "none": None, "x": 1e-7}
        )
    data = lock.encode(one)
    assert data.count(b'\n- {"schema": 1, ') == 29
    assert lock.decode(data) == one
    assert yamlfile.load(data) == lock.to_plain(one)
    odd = child_of(30, make_lock(0, config={1: math.inf, "y": b"\xff"}))
    assert lock.decode(lock.encode(odd)) == odd


ORIGINS = {
    "opt.lr": (
        Origin(layer="override", where="argument 3", value=0.3),
        Origin(layer="config file", where="conf/a.yaml:4", value=1e-05),
        Origin(layer="default", where="train.py:9", value="lambda c: 0.1", reads=("n", "m")),
    ),
    "on": (Origin(layer="default", where="train.py:10", value=False),),
    '"a.b"': (Origin(layer="default", where="train.py:11", value="naïve\n\x85\ufeff\U0001f600"),),
}
ORIGINS_TEXT = r"""
origins:
  opt.lr: [{"layer": "override", "where": "argument 3", "value": 0.3}, {"layer": "config file", "where": "conf/a.yaml:4", "value": 1.0e-05}, {"layer": "default", "where": "train.py:9", "value": "lambda c: 0.1", "reads": ["n", "m"]}]
  "on": [{"layer": "default", "where": "train.py:10", "value": false}]
  "\"a.b\"": [{"layer": "default", "where": "train.py:11", "value": "naïve\n\u0085\ufeff😀"}]
source:
"""  # noqa: E501 - one line for each key


def test_frozen_origins() -> None:
    """Origins are one line for each key, the same in every release."""
    text = lock.encode(dataclasses.replace(LOCK, origins=ORIGINS)).decode()
    assert ORIGINS_TEXT in text
    assert lock.decode(text.encode()).origins == ORIGINS
    assert (
        hashlib.sha256(text.encode()).hexdigest()
        == "57f093ca759b8680c6a5e8286e93da03a5fb580db17765eaef418a727d8afb67"
    )


MAPPED = {
    "tasks": (
        Tasks(
            name="main",
            function="train.main",
            into="",
            launcher="joblib",
            total=9,
            done=7,
            failed=1,
            seconds=1.5,
            longest=0.25,
            workers=2,
            commits=("git:" + "1" * 40,),
            failed_keys=("0f1e2d3c4b5a6978",),
            digest="blake3:" + "2" * 64,
            results="blake3:" + "3" * 64,
        ),
        Tasks(name="main-2", function="train.main", launcher="serial", total=1),
    ),
    "sessions": (
        Session(started=datetime(2025, 11, 21, 12, tzinfo=UTC), status="crashed", host="elsewhere", pid=7),
    ),
}
MAPPED_TEXT = f"""
tasks:
- name: main
  function: train.main
  into: ''
  launcher: joblib
  total: 9
  done: 7
  failed: 1
  seconds: 1.5
  longest: 0.25
  workers: 2
  commits:
  - git:{"1" * 40}
  failed_keys:
  - '0f1e2d3c4b5a6978'
  digest: blake3:{"2" * 64}
  results: blake3:{"3" * 64}
- name: main-2
  function: train.main
  launcher: serial
  total: 1
  done: 0
  failed: 0
  seconds: 0.0
  longest: 0.0
  workers: 0
sessions:
- started: '2025-11-21T12:00:00Z'
  status: crashed
  host: elsewhere
  pid: 7
"""


def test_frozen_tasks() -> None:
    """What became of tasks, and earlier entries, have the same text in every release."""
    one = dataclasses.replace(LOCK, status="submitted", **MAPPED)
    text = lock.encode(one).decode()
    assert MAPPED_TEXT in text
    assert lock.decode(text.encode()) == one


ODD_SETTINGS = (
    math.nan,
    math.inf,
    -math.inf,
    b"\x00\xff",
    b"",
    [],
    [{}],
    {3: {None: [1e300]}},
    2**70,
    -0.0,
    "???",
)


@pytest.mark.parametrize(
    "value", [*ODD_SETTINGS, False, None, (), {}, "x" * 3000, {"x" * 3000: {b"k": 1.5}}], ids=repr
)
def test_odd_settings_survive(value: Any) -> None:
    """Of any value a layer can hold, the lock says that it was set to it, not nothing, whatever stands beside it."""
    one = Origin(layer="default", where="x" * 2000, value=value)
    origins = {"a": (one,), "x" * 3000: (Origin(layer="default", where="", value=1),)}
    read = lock.decode(lock.encode(dataclasses.replace(LOCK, origins=origins)))
    assert repr(read.origins["a"][0].value) == repr([] if value == () else value)
    assert list(read.origins) == list(origins)


def test_names_that_are_not_utf8_are_written() -> None:
    """A path that is not UTF-8 may have been given as a value, and stands in the lock in a readable form."""
    origins = {"\udcff": (Origin(layer="default", where="\udcff.py:1", value=["\udc80"]),)}
    read = lock.decode(lock.encode(dataclasses.replace(LOCK, origins=origins)))
    assert read.origins == {"\\udcff": (Origin(layer="default", where="\\udcff.py:1", value=["\\udc80"]),)}


# -- broken and hostile ----------------------------------------------------------------------------


def _model_of(kind: Any) -> tuple[type | None, tuple[Any, ...]]:
    """The dataclass inside an annotation, and the way to the first of it."""
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return kind, ()
    step = {tuple: (0,), dict: ("opt.lr",)}.get(typing.get_origin(kind), ())
    found = [_model_of(k) for k in typing.get_args(kind)]
    return next(((cls, (*step, *way)) for cls, way in found if cls), (None, ()))


def _fields(cls: type, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], bool]]:
    """Each field's path in a lock that has one of everything, and whether it must be there."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        here = (*path, field.name)
        yield here, field.default is field.default_factory is dataclasses.MISSING
        inner, way = _model_of(hints[field.name])
        if inner is not None and here.count("upstream") < 1:
            yield from _fields(inner, (*here, *way))


def _full() -> dict[str, Any]:
    plain = yamlfile.load((DATA / "lock-schema1.yaml").read_bytes())
    plain["error"] = dict(plain["upstream"][0]["error"])
    plain["outputs"] = copy.deepcopy(plain["inputs"])
    for one in (plain, plain["upstream"][0]):
        one["origins"] = {
            "epochs": [{"layer": "default", "where": "train.py:8", "value": 5}],
            "opt.lr": [{"layer": "override", "where": "argument 3", "value": 0.3}],
        }
        one["metrics"] = {"opt.lr": {"last": 0.1, "min": 0.1, "max": 0.3, "points": 2}}
        one.update(lock.to_plain(MAPPED))
    return plain


def _parent(plain: Any, path: tuple[Any, ...]) -> Any:
    for step in path[:-1]:
        plain = plain[step]
    return plain


def _shown(path: tuple[Any, ...]) -> str:
    return "".join(f".{step}" if str(step).isidentifier() else f"[{step!r}]" for step in path).lstrip(".")


FIELDS = list(_fields(Lock))


@pytest.mark.parametrize("path", [p for p, _ in FIELDS if p[-1] != "value"], ids=_shown)
def test_wrong_type_is_named(path: tuple[Any, ...]) -> None:
    """A value of the wrong type (a setting's may be any) is refused with the file's name and the path of its key."""
    plain = _full()
    _parent(plain, path)[path[-1]] = [["wrong"]]
    with pytest.raises(LockError) as caught:
        decoded(plain)
    assert caught.value.message.startswith(f"there/run.lock: at {_shown(path)}")


@pytest.mark.parametrize("path", [p for p, needed in FIELDS if needed], ids=_shown)
def test_missing_key_is_named(path: tuple[Any, ...]) -> None:
    """A key that must be there and is not is named, with the place where it is missing."""
    plain = _full()
    del _parent(plain, path)[path[-1]]
    with pytest.raises(LockError) as caught:
        decoded(plain)
    assert caught.value.message.startswith(f"there/run.lock: at {_shown(path[:-1]) or 'the top level'}: ")
    assert f"`{path[-1]}`" in caught.value.message


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            {"source": {"files": {"a.py": "git:0", "b.c[0].py": 3}}},
            "at source.files['b.c[0].py']: expected `str`, got `int`",
        ),
        ({"source": {"files": {3: "git:0"}}}, "at source.files: expected `str`, got `int`"),
        ({"upstream": [{**PLAIN, "source": {"files": {"x": None}}}]}, "at upstream[0].source.files['x']: "),
        ({"status": "crashed"}, "at status: invalid enum value 'crashed'"),
        ({"status": "x - at `$.nowhere[...]`"}, "at status: invalid enum value 'x - at"),
        ({"status": "x" * 10_000}, "at status: invalid enum value 'xxx"),
        ({"seed": True}, "at seed: "),
        ({"started": "yesterday"}, "at started: "),
        ({"started": "2025-11-21T12:00:00"}, "at started: must be a time with a zone"),
        ({"started": "0001-01-01T00:00:00+23:59"}, "at started: must be a time"),
        ({"resumed": "9999-12-31T23:59:59-23:59"}, "at resumed: must be a time"),
        ({"upstream": [{**PLAIN, "started": "0001-01-01T00:00:00Z"}]}, "at upstream[0].started: "),
        (
            {"outputs": [{"path": "x", "kind": "file", "bytes": 2**64}]},
            "at outputs[0].bytes: must be a number of 64 bits; got 18446744073709551616",
        ),
        ({"metrics": {"x": "text"}}, "at metrics['x']: expected `object`, got `str`"),
        ({"metrics": {"x": {"last": 1.0, "min": 1.0, "max": "y", "points": 1}}}, "at metrics['x'].max: "),
        ({5: 1}, "at the top level: "),
        ({"schema": 0}, "at schema: "),
        ({"schema": "1"}, "at schema: "),
        ({"schema": True}, "at schema: "),
    ],
)
def test_the_fault_is_told(change: dict[Any, Any], told: str) -> None:
    """The message says what was expected and what was seen, at which key, even in mappings of free keys."""
    with pytest.raises(LockError) as caught:
        decoded({**PLAIN, **change})
    assert told in caught.value.message
    assert len(caught.value.message) < 500


LINE = b'  "lr": [{"layer": "default", "where": "a", "value": 1}]'


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ([LINE, LINE], "a mapping has a key twice"),
        ([LINE, b"  lr: []"], "a mapping has a key twice"),
        ([b"  a: &x []", b"  b: *x"], "anchors and aliases are not read"),
        ([b"  a: [!!python/name:os.system {}]"], "is not read"),
        ([b"  a: " + b"[" * 99 + b"]" * 99], "nested more than 100 deep"),
        *(([b"  a: " + b"[" * n + b"]" * n], "not a readable lock") for n in (5000, 500_000)),
        ([b'  a: [{"layer": "x", "layer": "y", "where": "", "value": 1}]'], "a mapping has a key twice"),
        ([b'  a: [{"layer": "x", "where": "", "value": ' + b"9" * 2000 + b"}]"], "a number of more than"),
        ([LINE, b"lr: []", LINE], "not a readable lock"),
        ([b'  a: [{"layer": "x", "where": ""}]'], "at origins['a'][0]: "),
        ([LINE, b'  b: [{"layer": 1, "where": "", "value": 1}]'], "at origins['b'][0].layer: "),
        ([b"  1: []"], "at origins: "),
        ([b"  yes: []"], "at origins: "),
    ],
)
def test_hostile_origins(lines: list[bytes], told: str) -> None:
    """Origins have a reader of their own, which lets nothing pass that the whole would not."""
    text = lock.encode(LOCK).replace(b"source:\n", b"\n".join([b"origins:", *lines, b"source:\n"]), 1)
    with pytest.raises(LockError) as caught:
        lock.decode(text)
    assert told in caught.value.message


LIKE_OURS = (
    *(
        b'  a: [{"v": %s}]' % value
        for value in (b"1e5", b"1.5e5", b"1.0e+05", b"NaN", b"'x'", b"[1,2]", b"-0")
    ),
    *(b"  b: yes", b'  "n": {"x": "\\u0041\\/"}', b"  n: {}", b"  c: {", b"  # x", b"", b"   d: 1", b"  e: "),
)


@given(st.lists(st.sampled_from(LIKE_OURS), max_size=4))
def test_lines_are_read_as_yaml(lines: list[bytes]) -> None:
    """The quick reader of lines gives what YAML gives, or leaves them to YAML."""
    text = b"".join(line + b"\n" for line in lines)
    quick = yamlfile.load_lines(text)
    if quick is not None:
        assert repr(quick) == repr(yaml.safe_load(text))


def test_unknown_keys_are_passed_over() -> None:
    """What a later release adds within the same schema does not make its locks unreadable."""
    assert decoded({**PLAIN, "weather": {"rain": [1]}}) == LOCK


@pytest.mark.parametrize(
    ("writer", "hint"), [("9.1.0", "pip install 'runctx>=9.1.0'"), ("; rm -rf ~", "--upgrade")]
)
def test_newer_schema_names_the_version(writer: str, hint: str) -> None:
    """Too new a lock says which release reads it; a hostile version never reaches the command we suggest."""
    with pytest.raises(
        LockError, match=f"schema {SCHEMA + 1}; runctx {runctx.__version__} reads up to {SCHEMA}"
    ) as caught:
        decoded({**PLAIN, "schema": SCHEMA + 1, "runctx": writer})
    assert caught.value.hint is not None
    assert hint in caught.value.hint
    assert "rm" not in caught.value.hint


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"text", b"\0\xff", b"a: 1\na: 2", b"a: !!python/name:os.system", b"[" * 200_000]
)
def test_what_is_no_lock_is_refused(data: bytes) -> None:
    """Whatever the bytes are, the answer is a LockError that names the file."""
    with pytest.raises(LockError, match=r"^there/run\.lock: not a"):
        lock.decode(data, "there/run.lock")


@given(st.binary(max_size=200), st.integers(0, 2000), st.integers(0, 200))
def test_damage_is_told_or_harmless(noise: bytes, at: int, cut: int) -> None:
    """A damaged lock is read or refused; it never raises anything else."""
    data = lock.encode(LOCK)
    try:
        lock.decode(data[:at] + noise + data[at + cut :])
    except LockError:
        pass


# -- files -----------------------------------------------------------------------------------------


def test_read_by_folder_or_file(tmp_path: Path) -> None:
    """A run is named by its folder or its lock."""
    lock.write(tmp_path / "run.lock", LOCK)
    assert lock.read(tmp_path) == lock.read(tmp_path / "run.lock") == LOCK


def test_no_run_there(tmp_path: Path) -> None:
    """A path without a lock says so, whether it is a folder, a file, a pipe or nothing."""
    (tmp_path / "file").write_text("x")
    (tmp_path / "odd" / "run.lock").mkdir(parents=True)
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / "run.lock")
    for path in (tmp_path, *(tmp_path / name for name in ("file", "nothing", "odd", "pipe"))):
        with pytest.raises(NoRunError, match="no run at"):
            lock.read(path)


def test_a_huge_lock_is_refused(tmp_path: Path) -> None:
    """A file larger than any lock is refused after a bounded read, in bounded memory."""
    with open(tmp_path / "run.lock", "wb") as file:
        file.truncate(1 << 40)
    code = (
        "import resource, sys, pathlib; from runctx import lock, errors\n"
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\n"
        "try: lock.read(pathlib.Path(sys.argv[1]))\n"
        "except errors.LockError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert "more than the 64000000 that are read" in done.stdout, done.stderr


FIRST_READ = """if True:
    import sys, threading
    sys.setswitchinterval(1e-6)
    from runctx import lock
    from runctx.past import row
    data, start = sys.stdin.buffer.read(), threading.Barrier(8)
    def read():
        start.wait()
        lock.decode(data), row.parse(data)
    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
"""


def test_threads_may_read_first() -> None:
    """The first locks of a process may be read by several threads at once, which must not crash it."""
    data = lock.encode(dataclasses.replace(LOCK, status="running"))
    for _ in range(12):  # unprotected, each ends in a segmentation fault one time in five
        done = subprocess.run(
            [sys.executable, "-c", FIRST_READ], input=data, capture_output=True, cwd=DATA.parent.parent
        )
        assert (done.returncode, done.stderr) == (0, b"")
