"""Which distribution does an imported module come from, and which version of it?

`importlib.metadata.packages_distributions()` parses every RECORD of the environment: 0.2 s for 144 packages.
Here most modules find theirs by the name of its metadata folder alone, and only what is left over (`yaml` of
PyYAML, `sklearn` of scikit-learn) is searched for in the RECORD files: once per
process, then as modules appear.
"""

from __future__ import annotations

import functools
import json
import os
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

UNKNOWN = "unknown"
"""The version of a distribution whose metadata is broken."""

_AT_STARTUP = ("_distutils_hack", "__editable__", "__main__", "__mp_main__")
"""Beginnings of modules that `.pth` files and the interpreter load: nobody asked for their distributions."""


def module_file(name: str) -> str | None:
    """The file of an imported module, read without waking lazy modules up."""
    try:
        file = object.__getattribute__(sys.modules[name], "__dict__").get("__file__")
    except (KeyError, AttributeError):
        return None
    return file if isinstance(file, str) and file else None


def import_folder(name: str, file: str) -> str:
    """The folder on the search path that a module of this name and file was found in.

    >>> import_folder("a.b", "/src/a/b.py"), import_folder("a", "/src/a/__init__.py")
    ('/src', '/src')
    """
    levels = 1 + name.count(".") + (os.path.basename(file).partition(".")[0] == "__init__")
    for _ in range(levels):
        file = os.path.dirname(file)
    return file


def is_installed(file: str) -> bool:
    """Whether a file belongs to Python or to something installed into it, by where it lies."""
    return file.startswith(_python_folders()) or "/site-packages/" in file or "/dist-packages/" in file


def is_editable(file: str) -> bool:
    """Whether a file lies in the source folder of an editable install (PEP 660)."""
    return _editable_owner(file, sys.path) is not None


def holds_distributions(folder: str) -> bool:
    """Whether wheels were installed into this folder, as `pip install --target` does."""
    return any(info.suffix == ".dist-info" for info in _distributions(folder).values())


@dataclass(frozen=True, kw_only=True, slots=True)
class _Known:
    """What was found out about the modules of this process so far.

    Replaced as a whole: threads that look at the same moment may do the work twice, but none sees half of it,
    and there is no lock that a fork could leave closed.
    """

    seen: frozenset[str] = frozenset()
    units: frozenset[str] = frozenset()
    packages: dict[str, str] = field(default_factory=dict)


_known = _Known()


def imported() -> dict[str, str]:
    """Name -> version of each distribution that a module was imported from by now, sorted by name.

    Parts of a namespace package (`google.protobuf`, `google.auth`) count one by one, and an editable install
    counts like any other. What was found stays found: an upgrade under a running process does not change what
    the process has loaded.
    """
    global _known
    known, names = _known, list(sys.modules)
    if not known.seen.issuperset(names):
        _known = known = _looked_at(known, names)
    return dict(known.packages)


def _looked_at(known: _Known, names: list[str]) -> _Known:
    units: set[str] = set()
    for name in names:
        if name not in known.seen and (unit := _unit(name, known.units)) is not None:
            units.add(unit)
    folders: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for unit in units:
        if (file := module_file(unit)) is not None:
            folders[import_folder(unit, file)][unit] = file
    owners = {info for folder, files in folders.items() for info in _owners(folder, files)}
    packages = known.packages | dict(_described(info) for info in sorted(owners))
    return _Known(
        seen=known.seen.union(names),
        units=known.units | units,
        packages=dict(sorted(packages.items(), key=lambda item: (item[0].lower(), item[0]))),
    )


def _unit(name: str, known: frozenset[str]) -> str | None:
    """The shortest part of a dotted name that has a file: a whole package, or one part of a namespace."""
    top = name.partition(".")[0]
    if top in known or top in sys.stdlib_module_names or top.startswith(_AT_STARTUP):
        return None
    end = len(top)
    while module_file(name[:end]) is None:
        if end == len(name):
            return None
        end = name.find(".", end + 1)
        end = len(name) if end < 0 else end
    return None if name[:end] in known else name[:end]


def _owners(folder: str, files: dict[str, str]) -> Iterator[Path]:
    """The metadata of the distributions that own these units: in `folder`, else editable ones."""
    distributions = _distributions(folder)
    left = dict(files)
    for unit in files:
        if (named := distributions.get(_key(unit))) is not None:
            del left[unit]
            yield named
    for info in distributions.values():
        if not left:
            return
        owned = _owned(info, folder, left)
        for unit in owned:
            del left[unit]
        if owned:
            yield info
    for file in left.values():
        if not is_installed(file) and (editable := _editable_owner(file, sys.path)) is not None:
            yield editable


def _owned(info: Path, folder: str, files: dict[str, str]) -> list[str]:
    """The units that a distribution owns: its RECORD lists their file, or else top_level.txt their name."""
    tops = _text(info / "top_level.txt").split()  # small, but a newer build tool writes none
    units = [unit for unit in files if not tops or unit.partition(".")[0] in tops]
    record = _text(info / "RECORD") if units else ""
    if not record:
        return units if tops else []
    lines = "\n" + record
    inside = {unit: files[unit][len(folder) :].replace(os.sep, "/").lstrip("/") for unit in units}
    return [unit for unit, path in inside.items() if f"\n{path}," in lines]


def _described(info: Path) -> tuple[str, str]:
    """Name as its author spells it, and version; from the folder's name where the metadata is broken."""
    for source in (info / "METADATA", info / "PKG-INFO", info):
        if head := _text(source).partition("\n\n")[0]:
            break
    fields = dict(line.split(": ", 1) for line in reversed(head.splitlines()) if ": " in line)
    name, _, rest = info.stem.partition("-")
    version = re.sub(r"-py\d.*", "", rest)
    return fields.get("Name", name).strip() or name, fields.get("Version", version).strip() or UNKNOWN


def _distributions(folder: str) -> dict[str, Path]:
    """Normalised name -> metadata (a folder, or a single file) of all that is installed into a folder."""
    try:
        return _listed(folder, os.stat(folder or ".").st_mtime_ns)
    except OSError:
        return {}  # a zip file, or gone


@functools.lru_cache(maxsize=128)
def _listed(folder: str, mtime_ns: int) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for name in sorted(os.listdir(folder or ".")):
        if not name.endswith((".dist-info", ".egg-info")) or name.startswith("~"):
            continue  # `~umpy-2.0.dist-info` is what an interrupted pip leaves behind
        info = Path(folder, name)
        key = _key(info.stem.partition("-")[0])
        if key not in found or _changed(info) >= _changed(found[key]):
            found[key] = info
    return found


def _changed(info: Path) -> int:
    """Of two metadata folders of one distribution, the newer one is what was installed last."""
    try:
        return info.stat().st_mtime_ns
    except OSError:
        return 0


def _editable_owner(file: str, search_path: Iterable[str]) -> Path | None:
    real = os.path.realpath(file)
    owners = [
        (source, info)
        for folder in dict.fromkeys(search_path)
        for source, info in _editables(folder)
        if real.startswith(source + os.sep)
    ]
    return max(owners, key=lambda pair: len(pair[0]))[1] if owners else None


def _editables(folder: str) -> tuple[tuple[str, Path], ...]:
    """Source folder and metadata of each editable install that a folder knows of (PEP 610)."""
    try:
        return _listed_editables(folder, os.stat(folder or ".").st_mtime_ns)
    except OSError:
        return ()


@functools.lru_cache(maxsize=128)
def _listed_editables(folder: str, mtime_ns: int) -> tuple[tuple[str, Path], ...]:
    from urllib.parse import unquote, urlsplit

    found = []
    for info in _listed(folder, mtime_ns).values():
        origin = _json(info / "direct_url.json")
        directory, url = origin.get("dir_info"), origin.get("url")
        if isinstance(directory, dict) and directory.get("editable") is True and isinstance(url, str):
            found.append((os.path.realpath(unquote(urlsplit(url).path)), info))
    return tuple(found)


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(_text(path) or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8", "replace").replace("\r\n", "\n")
    except OSError:
        return ""


def _key(name: str) -> str:
    return re.sub(r"[-_.]+", "_", name).lower()


@functools.lru_cache(maxsize=1)
def _python_folders() -> tuple[str, ...]:
    """The standard library, and where installers put their scripts."""
    folders = {os.path.dirname(getattr(os, "__file__", ""))}
    for prefix in (
        sys.prefix,
        sys.exec_prefix,
        sys.base_prefix,
        sys.base_exec_prefix,
        os.path.expanduser("~/.local"),
    ):
        folders.add(os.path.join(prefix, "Scripts" if os.name == "nt" else "bin"))
    folders |= {os.path.realpath(folder) for folder in folders}
    return tuple(sorted(folder.rstrip(os.sep) + os.sep for folder in folders if folder))
