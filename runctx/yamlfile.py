"""Write and read YAML.

One dialect for run.lock and config.yaml: what YAML 1.1 readers (PyYAML, OmegaConf) and YAML 1.2 readers
(Rust, JavaScript, ruamel) both read back as it was written. Reading never constructs anything but plain data,
in time and memory proportional to the size of the text.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

MAX_DEPTH = 100
MAX_BYTES = 64_000_000
MAX_DIGITS = 1_000
MAX_PARTS = 2_000_000

# YAML 1.1 and 1.2 disagree on what is a number, a bool or a date (`1234e56`, `0o17`, `12:30`, `y`). Whatever
# could be one of them in either dialect starts like this, and is quoted.
_AMBIGUOUS = re.compile(
    r"[0-9]|[-+.]+[0-9_]|[-+]?\.(inf|nan)$|(y|n|yes|no|on|off|true|false|null|~|)$", re.IGNORECASE
)
# line breaks in YAML 1.1, characters like any other in YAML 1.2
_BREAKS_OF_ONE_DIALECT = re.compile("[\x85\u2028\u2029]")


class BrokenYaml(ValueError):  # noqa: N818 - it names the thing found
    """The text is not YAML, or YAML that is made to harm."""


class _PlainDumper(_Dumper):  # type: ignore[misc]
    def ignore_aliases(self, data: object) -> bool:
        return True


def _represent_str(dumper: Any, text: str) -> Any:
    if _BREAKS_OF_ONE_DIALECT.search(text):
        style = '"'
    elif "\n" in text:
        style = "|"
    elif _AMBIGUOUS.match(text):
        style = "'"
    else:
        style = None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


_PlainDumper.add_representer(str, _represent_str)

_BINARY = "tag:yaml.org,2002:binary"


class _PlainLoader(_Loader):  # type: ignore[misc]
    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        if len(mapping) != len(node.value):  # what such a text says depends on who reads it
            raise BrokenYaml(f"line {node.start_mark.line + 1}: a mapping has a key twice")
        return mapping


def _construct_int(loader: Any, node: Any) -> int:
    # `1:59:59:...`, a number to base 60 in YAML 1.1, takes quadratic time
    if len(node.value) > MAX_DIGITS:
        raise BrokenYaml(f"line {node.start_mark.line + 1}: a number of more than {MAX_DIGITS} digits")
    number: int = loader.construct_yaml_int(node)
    return number


_PlainLoader.add_constructor("tag:yaml.org,2002:int", _construct_int)


def dump(value: Any) -> bytes:
    """Equal values give equal bytes; keys keep their order, text stays readable.

    >>> dump({"commit": "1234e567", "lr": 0.1, "note": "two\\nlines"}).decode().splitlines()
    ["commit: '1234e567'", 'lr: 0.1', 'note: |-', '  two', '  lines']
    """
    try:
        return _dump(value)
    except UnicodeEncodeError:
        return _dump(_without_surrogates(value))


def _dump(value: Any) -> bytes:
    text: bytes = yaml.dump(
        value, Dumper=_PlainDumper, sort_keys=False, allow_unicode=True, width=2**31 - 1, encoding="utf-8"
    )
    return text


def _without_surrogates(value: Any) -> Any:
    """File names that are not UTF-8 reach Python as lone surrogates, which no encoding can write."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_without_surrogates(k): _without_surrogates(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_surrogates(v) for v in value]
    return value


def load(data: bytes) -> Any:
    """Plain data from YAML text that may be hostile.

    Raises
    ------
    BrokenYaml: not YAML, a key given twice, an anchor or alias (the stuff of YAML bombs), a tag, nested more
        than 100 deep, or larger than any lock.
    """
    if len(data) > MAX_BYTES:
        raise BrokenYaml(f"{len(data)} bytes are more than the {MAX_BYTES} that are read")
    try:
        _refuse_harm(data)
        return yaml.load(data, Loader=_PlainLoader)  # noqa: S506 - a safe loader
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BrokenYaml(" ".join(str(error).split())) from error
    except (ValueError, OverflowError) as error:  # e.g. a date that is none
        raise BrokenYaml(str(error)) from error


def _refuse_harm(data: bytes) -> None:
    # The loader builds nested values by recursion in C, which deep nesting crashes: look at the flat stream
    # of events first. That costs a third of the loading itself. Each part costs up to 10 µs and 400 bytes.
    depth = 0
    events: Iterator[Any] = yaml.parse(data, Loader=_Loader)
    for parts, event in enumerate(events):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if harm := _harm_in(event, depth, parts):
            raise BrokenYaml(f"line {event.start_mark.line + 1}: {harm}")


def _harm_in(event: Any, depth: int, parts: int) -> str | None:
    if parts > MAX_PARTS:
        return f"more than the {MAX_PARTS} parts that are read"
    if depth > MAX_DEPTH:
        return f"nested more than {MAX_DEPTH} deep"
    if getattr(event, "anchor", None):
        return "anchors and aliases are not read"
    if getattr(event, "tag", None) not in (None, _BINARY):
        return f"the tag {event.tag[:80]} is not read"
    return None


# -- a mapping of many entries, each on one line -----------------------------------------------------------

# in quotes JSON lets them stand, YAML does not, or not in both dialects
_NOT_IN_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_BARE_KEY = re.compile(r"[A-Za-z_][\w.-]*", re.ASCII)
_LONGEST_KEY = 1_000
"""Characters; YAML finds the end of a longer one only where `?` stands before it."""
_LINE = re.compile(rb"  ([A-Za-z_][\w.-]*|\"(?:[^\"\\]|\\.)*\"): (.*)")
_YAML_1_1_FLOAT = re.compile(r"-?[0-9]+\.[0-9]+(?:e[-+][0-9]+)?")


def dump_lines(mapping: Mapping[str, Any]) -> bytes:
    """The entries of a mapping in a mapping, each on one line; JSON but for what JSON has no words for.

    >>> dump_lines({"opt.lr": [{"where": "train.py:9", "value": 0.1}]})
    b'  opt.lr: [{"where": "train.py:9", "value": 0.1}]\\n'
    """
    try:
        return _dump_lines(mapping)
    except UnicodeEncodeError:
        return _dump_lines(_without_surrogates(mapping))


def _dump_lines(mapping: Mapping[str, Any]) -> bytes:
    return "".join(_line(_key(key), _flow(value)) for key, value in mapping.items()).encode()


def dump_items(items: Sequence[Any]) -> bytes:
    """The items of a list, each on one line, in the same manner.

    >>> dump_items([{"id": "train-1"}, {"id": "train-2"}])
    b'- {"id": "train-1"}\\n- {"id": "train-2"}\\n'
    """
    try:
        return _dump_items(items)
    except UnicodeEncodeError:
        return _dump_items(_without_surrogates(items))


def _dump_items(items: Sequence[Any]) -> bytes:
    return "".join(f"- {_flow(item)}\n" for item in items).encode()


def _line(key: str, value: str) -> str:
    return f"  {key}: {value}\n" if len(key) < _LONGEST_KEY else f"  ? {key}\n  : {value}\n"


def _key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) and not _AMBIGUOUS.match(key) else _quoted(key)


def _flow(value: Any) -> str:
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, dict):
        entries = ((_flow(key), _flow(part)) for key, part in value.items())
        return (
            f"{{{', '.join(f'{k}: {v}' if len(k) < _LONGEST_KEY else f'? {k} : {v}' for k, v in entries)}}}"
        )
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_flow, value))}]"
    if isinstance(value, bytes):
        return f'!!binary "{base64.b64encode(value).decode()}"'
    if isinstance(value, float):
        return _float(value)
    return json.dumps(value)


_JSON_TEXT = json.JSONEncoder(ensure_ascii=False).encode  # `json.dumps` would make an encoder for each text


def _quoted(text: str) -> str:
    return _NOT_IN_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", _JSON_TEXT(text))


def _float(value: float) -> str:
    if math.isfinite(value):
        text = repr(value)
        return text if "." in text else text.replace("e", ".0e")
    return ".nan" if value != value else ".inf" if value > 0 else "-.inf"


def load_lines(data: bytes) -> dict[str, Any] | None:
    """What `dump_lines` wrote, many times as fast as `load`; None for all that `load` must look at."""
    if _has_many_parts(data):
        return None
    found = {}
    lines = data.removesuffix(b"\n").split(b"\n")
    try:
        for line in lines:
            key, value = _LINE.fullmatch(line).groups()  # type: ignore[union-attr]
            found[_key_of(key.decode())] = _entry(value)
    except (AttributeError, ValueError, RecursionError):
        return None
    return found if len(found) == len(lines) else None


def load_items(data: bytes) -> list[Any] | None:
    """What `dump_items` wrote, likewise."""
    if _has_many_parts(data):
        return None
    try:
        return [_entry(line.removeprefix(b"- ")) for line in data.removesuffix(b"\n").split(b"\n")]
    except (ValueError, RecursionError):
        return None


def _has_many_parts(data: bytes) -> bool:
    return sum(map(data.count, (b",", b"[", b"{"))) > MAX_PARTS


def _entry(text: bytes) -> Any:
    entry = _JSON.decode(text.decode())
    if text.count(b"[") + text.count(b"{") > MAX_DEPTH - 2:
        _refuse_depth(entry, MAX_DEPTH - 2)  # two collections lie around it
    return entry


def _key_of(text: str) -> str:
    if text.startswith('"'):
        key: str = _JSON.decode(text)
        return key
    if _AMBIGUOUS.match(text):
        raise ValueError("no text in YAML")
    return text


def _refuse_depth(value: Any, most: int) -> None:
    if isinstance(value, (dict, list)):
        if most == 0:
            raise ValueError("nested too deep")
        for part in value.values() if isinstance(value, dict) else value:
            _refuse_depth(part, most - 1)


def _only_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        raise ValueError("a key twice")
    return mapping


def _short_int(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError("too many digits")
    return int(text)


def _float_of_both_dialects(text: str) -> float:
    if not _YAML_1_1_FLOAT.fullmatch(text):
        raise ValueError("a text in YAML 1.1")
    return float(text)


def _no_json(text: str) -> Any:
    raise ValueError(f"{text} is no JSON")


_JSON = json.JSONDecoder(
    object_pairs_hook=_only_once,
    parse_int=_short_int,
    parse_float=_float_of_both_dialects,
    parse_constant=_no_json,
)
