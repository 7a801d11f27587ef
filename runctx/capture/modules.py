"""List the imported modules of the project, and the distributions that the others come from.

`importlib.metadata.packages_distributions()` is not used: it parses every RECORD, which takes 0.3 s for 168
distributions (0.04 s here), and cannot tell the parts of a namespace package (`google.auth`, `google.protobuf`) apart.
"""

from __future__ import annotations

import functools
import json
import os
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

_AT_STARTUP = ("_distutils_hack", "__editable__", "__main__", "__mp_main__")
"""Beginnings of modules that `.pth` files and the interpreter load: nobody asked for their distributions."""
_DEBUGGERS = ("pydev", "_pydev", "debugpy")
"""Beginnings of modules that editors put on the search path of what they start."""
_OURSELVES = __name__.partition(".")[0]


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


@functools.lru_cache(maxsize=1)
def _python_folders() -> tuple[str, ...]:
    """The standard library, and where installers put their scripts."""
    prefixes = (sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix, "~/.local")
    scripts = "Scripts" if os.name == "nt" else "bin"
    folders = {
        os.path.dirname(os.__file__),
        *(os.path.join(os.path.expanduser(p), scripts) for p in prefixes),
    }
    return tuple({os.path.join(f, "") for folder in folders for f in (folder, os.path.realpath(folder))})


# -- modules of the project --------------------------------------------------------------------------------

_judged: dict[str | None, dict[str, tuple[str, Path] | None]] = defaultdict(dict)
"""For each repository: module -> its file and the path to show, None if it is not of the project."""


def of_project(root: Path | None = None) -> dict[str, Path]:
    """The files of imported modules that belong to the project, by module name; without `__main__`.

    The project is what lies in the repository, in an editable install, or in any other folder on the search path that
    nothing was installed into. The standard library, site-packages, virtual environments (even inside the repository)
    and this package are not part of it.

    Parameters
    ----------
    root: the repository. A path inside it starts with `root` as given, even if imported through a link.
    """
    base = None if root is None else absolute(os.fspath(root))
    judged = _judged[base]
    for name in list(sys.modules):
        if name not in judged:
            judged[name] = _judge(name, base)
    found = {}
    for name, own in list(judged.items()):
        if own is not None and (file := module_file(name)) != own[0]:
            judged.pop(name, None)  # gone, or imported anew from elsewhere
            own = None if file is None else _judge(name, base)
        if own is not None:
            judged[name], found[name] = own, own[1]
    return dict(sorted(found.items()))


def _judge(name: str, root: str | None) -> tuple[str, Path] | None:
    file = None if name in ("__main__", "__mp_main__") else module_file(name)
    if file is None or not _belongs(name, file, root):
        return None
    path = absolute(file)
    inside = relative(path, root)
    if inside is None and name.partition(".")[0] == _OURSELVES:
        return None  # known by its version
    return file, Path(path if inside is None else os.path.join(root or "", inside))


def _belongs(name: str, file: str, root: str | None) -> bool:
    if is_installed(file):
        # a virtual environment may lie in a repository, and a repository in site-packages
        return root is not None and file.startswith(root + os.sep) and is_installed(root + os.sep)
    if relative(file, root) is not None:
        return True
    if name.startswith(_DEBUGGERS):
        return False
    folder = import_folder(name, file)
    searched = folder in sys.path or folder in sys.path_importer_cache
    of_wheels = any(info.suffix == ".dist-info" for info in _distributions(folder).values())
    return (searched and not of_wheels) or _editable_owner(file) is not None


def relative(path: str, root: str | None) -> str | None:
    """The path below `root`, followed through links only if need be; None outside, and without a root."""
    if root is None:
        return None
    for candidate in (path, os.path.realpath(path)):
        for folder in (root, os.path.realpath(root)):
            if candidate == folder:
                return "."
            if candidate.startswith(folder.rstrip(os.sep) + os.sep):
                return candidate[len(folder.rstrip(os.sep)) + 1 :]
    return None


def absolute(path: str) -> str:
    """The path made absolute; where the current folder was deleted, as it is."""
    try:
        # beyond a symbolic link, `..` leads elsewhere than the text says
        return os.path.realpath(path) if os.pardir in Path(path).parts else os.path.abspath(path)
    except OSError:
        return path


# -- distributions -----------------------------------------------------------------------------------------

_known: tuple[frozenset[str], dict[str, str]] = frozenset(), {}
"""Modules that were looked at, and their distributions. Replaced as a whole, so that threads and forks need no lock."""


def packages() -> dict[str, str]:
    """Name -> version of each distribution that a module was imported from by now, sorted by name.

    Parts of a namespace package count one by one, and an editable install counts like any other. What was found stays
    found: an upgrade under a running process does not change what the process has loaded.
    """
    global _known
    seen, found = _known
    names = list(sys.modules)
    if not seen.issuperset(names):
        new = [name for name in names if name not in seen]
        found = found | dict(map(_name_and_version, sorted(_owners(new))))
        found = dict(sorted(found.items(), key=lambda item: (item[0].lower(), item[0])))
        _known = seen.union(names), found
    return dict(found)


def _owners(names: Iterable[str]) -> set[Path]:
    """The metadata of the distributions that these modules belong to."""
    folders: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for name in names:
        if name.partition(".")[0] in sys.stdlib_module_names or name.startswith(_AT_STARTUP):
            continue
        for n in range(
            1, name.count(".") + 2
        ):  # the whole package, or a part of a namespace: what has a file
            unit = ".".join(name.split(".")[:n])
            if (file := module_file(unit)) is not None:
                folders[import_folder(unit, file)][unit] = file
                break
    return {info for folder, files in folders.items() for info in _owners_in(folder, files)}


def _owners_in(folder: str, files: dict[str, str]) -> Iterator[Path]:
    """Those of modules (name -> file) found in one folder: by their name, by what was installed, or editable ones."""
    distributions = _distributions(folder)
    left = {}
    for unit, file in files.items():
        if (named := distributions.get(_key(unit))) is not None:
            yield named
        else:
            left[unit] = file
    for info in distributions.values() if left else ():
        owned = _owned(info, folder, left)
        for unit in owned:
            del left[unit]
        if owned:
            yield info
    for file in left.values():
        if not is_installed(file) and (editable := _editable_owner(file)) is not None:
            yield editable


def _owned(info: Path, folder: str, files: dict[str, str]) -> list[str]:
    """The units that a distribution owns: its RECORD lists their file, or else top_level.txt their name."""
    tops = _text(info / "top_level.txt").split()  # small, but a newer build tool writes none
    units = [unit for unit in files if not tops or unit.partition(".")[0] in tops]
    record = "\n" + _text(info / "RECORD") if units else ""
    if len(record) <= 1:
        return units if tops else []
    return [
        unit for unit in units if f"\n{os.path.relpath(files[unit], folder).replace(os.sep, '/')}," in record
    ]


def _name_and_version(info: Path) -> tuple[str, str]:
    """Name as its author spells it, and version; from the folder's name where the metadata is broken."""
    texts = (_text(file).partition("\n\n")[0] for file in (info / "METADATA", info / "PKG-INFO", info))
    head = next(filter(None, texts), "")
    name, _, rest = info.stem.partition("-")
    values = name, re.sub(r"-py\d.*", "", rest)
    found = [re.search(rf"^{field}: *(\S.*)$", head, re.MULTILINE) for field in ("Name", "Version")]
    name, version = (match[1].strip() if match else value for match, value in zip(found, values, strict=True))
    return name, version or "unknown"


def _distributions(folder: str) -> dict[str, Path]:
    """Normalised name -> metadata (a folder, or a single file) of all that is installed into a folder."""
    try:
        return _listed(folder, os.stat(folder or ".").st_mtime_ns)
    except OSError:
        return {}  # a zip file, or gone


@functools.lru_cache(maxsize=128)
def _listed(folder: str, mtime_ns: int) -> dict[str, Path]:
    # `~umpy-2.0.dist-info` is what an interrupted pip leaves behind
    names = (n for n in os.listdir(folder or ".") if n.endswith((".dist-info", ".egg-info")) and n[0] != "~")
    infos = [Path(folder, name) for name in names]
    infos.sort(key=lambda info: (os.lstat(info).st_mtime_ns, info))  # of two, the newer was installed last
    return {_key(info.stem.partition("-")[0]): info for info in infos}


def _editable_owner(file: str) -> Path | None:
    """The metadata of the editable install (PEP 660) in whose source folder a file lies."""
    real = os.path.realpath(file)
    sources = [pair for folder in dict.fromkeys(sys.path) for pair in _editables(folder)]
    owners = [pair for pair in sources if real.startswith(pair[0] + os.sep)]
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
        try:
            origin = json.loads(_text(info / "direct_url.json") or "{}")
            if origin["dir_info"]["editable"] is True:
                found.append((os.path.realpath(unquote(urlsplit(origin["url"]).path)), info))
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    return tuple(found)


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8", "replace").replace("\r\n", "\n")
    except OSError:
        return ""


def _key(name: str) -> str:
    return re.sub(r"[-_.]+", "_", name).lower()
