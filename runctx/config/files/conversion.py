"""What does a configuration file say, with all it builds upon, in another format?"""

from __future__ import annotations

from ..layers import plain
from ..opening import open_config
from ..resolved import escaped, to_plain
from .formats import encode
from .inherit import load_tree


def converted(source: str, suffix: str, *, resolve: bool = False) -> bytes:
    """The text of one file that says what `source` and its bases say.

    Parameters
    ----------
    source: a configuration file; `file#key.path` selects a mapping in it.
    suffix: of the format, such as .toml.
    resolve: write what interpolations and derived values give, and not how they are computed.

    Raises
    ------
    ConfigError: the source cannot be read or resolved, or the format cannot hold it; the message names the key.

    >>> from pathlib import Path
    >>> _ = Path("low.yaml").write_text("lr: 0.1\\nhalf: ${mul:${lr},0.5}\\n")
    >>> _ = Path("high.py").write_text("_base_ = 'low.yaml'\\nlr = 0.2\\n")
    >>> print(converted("high.py", ".toml").decode().strip())
    lr = 0.2
    half = "${mul:${lr},0.5}"
    >>> print(converted("high.py", ".toml", resolve=True).decode().strip())
    lr = 0.2
    half = 0.1
    """
    if not resolve:
        return encode(plain(load_tree(source)), suffix)
    return encode(escaped(to_plain(open_config(source))), suffix)
