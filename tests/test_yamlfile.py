"""One dialect that every YAML reader reads alike, and a reader that hostile text cannot harm."""

from __future__ import annotations

import copy
import subprocess
import sys
from typing import Any

import pytest
import yaml
from hypothesis import given
from ruamel.yaml import YAML

from runctx import yamlfile
from tests.strategies import ODD_TEXTS, plain_configs


def read_as_yaml_1_2(data: bytes) -> Any:
    return YAML(typ="safe", pure=True).load(data.decode())


@given(plain_configs)
def test_what_was_written_is_read_back(value: dict[Any, Any]) -> None:
    """We, a YAML 1.1 reader and a YAML 1.2 reader get the very values, and types, that were written."""
    data = yamlfile.dump(value)
    for read in (yamlfile.load(data), yaml.safe_load(data), read_as_yaml_1_2(data)):
        assert repr(read) == repr(value)


@pytest.mark.parametrize("text", ODD_TEXTS)
def test_text_stays_text(text: str) -> None:
    """Text that a reader could take for a number, a date, a bool or syntax is read back as it was."""
    for value in (text, {text: 1}, {"k": text}, [text], [[text]], [{"k": {text: text}}]):
        data = yamlfile.dump(value)
        assert yamlfile.load(data) == yaml.safe_load(data) == read_as_yaml_1_2(data) == value


@pytest.mark.parametrize(
    "number",
    [0, -1, 2**70, 1.0, -0.0, 1e16, 1e300, 1e-7, 5e-324, float("inf"), float("-inf"), True, None, b"\xff\0"],
)
def test_scalars_keep_their_type(number: Any) -> None:
    """A number that is not text stays the number it was: no float becomes an int, or text."""
    data = yamlfile.dump({"k": number})
    assert repr(yamlfile.load(data)) == repr(read_as_yaml_1_2(data)) == repr({"k": number})


@given(plain_configs)
def test_equal_values_give_equal_bytes(value: dict[Any, Any]) -> None:
    """The text depends on the values alone, not on which of them are the same object."""
    shared = list(value.values())
    assert yamlfile.dump([shared, shared]) == yamlfile.dump([shared, copy.deepcopy(shared)])


def test_file_names_that_are_not_utf8_can_be_written() -> None:
    """A lone surrogate, which no encoding can write, is written as its escape, in keys and lists too."""
    assert yamlfile.load(yamlfile.dump({"a\udcff": ["b\udcff"]})) == {"a\\udcff": ["b\\udcff"]}


def test_long_and_multi_line_text_stays_readable() -> None:
    """No line is folded, and a traceback is written line by line."""
    assert yamlfile.dump({"a": "word " * 60 + "end", "t": "one\n  two\n"}).count(b"\n") == 4


BOMB = "a: &a [x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [*{chr(97 + i)}, *{chr(97 + i)}]\n" for i in range(20)
)
DEEP = 200_000
HOSTILE = {
    "bomb": BOMB,
    "alias to itself": "&a [*a]",
    "anchor": "a: &x 1",
    "merge of an alias": "a: &x {b: 1}\nc: {<<: *x}",
    "deep flow list": "[" * DEEP,
    "deep flow list, closed": "[" * DEEP + "]" * DEEP,
    "deep block list": "- " * DEEP,
    "deep complex key": "? " * DEEP,
    "deep flow mapping": "{" * DEEP,
    "deep flow mapping, closed": "{a: " * DEEP + "}" * DEEP,
    "deep by indent": "".join(f"{' ' * i}k:\n" for i in range(2000)),
    "number to base 60": "k: 1" + ":59" * 500_000,
    "number of many digits": "k: " + "9" * 100_000,
    "hexadecimal number of many digits": "k: 0x" + "9" * 100_000,
    "object": "!!python/object/apply:os.system ['exit 3']",
    "object in the short form": "k: !!python/name:os.system",
    "own tag": "k: !run {}",
    "standard tag that fails": "k: !!int ''",
    "standard tag of another type": "k: !!timestamp soon",
    "bytes that are none": "k: !!binary '\u00e9'",
    "date that is none": "k: 2001-99-99",
    "key twice": "k: 1\nk: 2",
    "key twice, deeper": "a: {k: 1, 'k': 2}",
    "mapping as key": "{a: 1}: 2",
    "two documents": "a: 1\n---\nb: 2",
    "never closed": "k: 'abc",
    "tab as indent": "a:\n\tb: 1",
    "control character": "a: \x01",
    "percent": "%" * 100_000,
    "millions of small parts": ("- " * 99 + "1\n") * 30_000,
}
BROKEN = {
    "nul": b"\0" * 10,
    "binary": bytes(range(256)) * 10,
    "not UTF-8": b"k: \xff\xfe\xfa",
    "cut UTF-16": b"\xff\xfek",
    "70 MB": b"# " + b"x" * 70_000_000,
}

READ = """
import resource, sys
from runctx import yamlfile
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
try:
    yamlfile.load(sys.stdin.buffer.read())
except yamlfile.BrokenYaml as error:
    assert len(str(error)) < 1000
    print("refused")
"""


@pytest.mark.parametrize("name", [*HOSTILE, *BROKEN])
def test_hostile_text_is_refused(name: str) -> None:
    """It ends in `BrokenYaml`: nothing is executed, the interpreter lives, time and memory stay bounded."""
    data = HOSTILE[name].encode() if name in HOSTILE else BROKEN[name]
    child = subprocess.run(
        [sys.executable, "-c", READ], input=data, capture_output=True, timeout=60, check=False
    )
    assert (child.returncode, child.stdout, child.stderr) == (0, b"refused\n", b"")


def test_the_error_names_the_line() -> None:
    """What is refused is named with its line."""
    with pytest.raises(yamlfile.BrokenYaml, match=r"line 2: .*tag"):
        yamlfile.load(b"a: 1\nb: !x 2\n")
