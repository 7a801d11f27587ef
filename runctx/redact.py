"""What must never reach disk? Decides which keys and which texts are secret, and replaces them."""

from __future__ import annotations

import fnmatch
import functools
import re
from collections.abc import Iterable, Iterator
from typing import Any

REDACTED = "<redacted>"

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
# matched against the words of a key: `dbPassword`, `DB_PASSWORD` and `db-password` all read "db password"
_SECRET_WORDS = re.compile(
    r"\b(\w*passw(or)?d|\w*passphrase|passcode|\w*pwd|(client|shared)?secret(key)?|credential|apikey"
    r"|authorization|bearer|cookie|(auth|access|api|bearer|refresh)token|authkey|privatekey|accesskey)s?\b"
    r"|\b(api|access|private|secret|auth|account|storage|signing|encryption|master|ssh|deploy|wandb|openai"
    r"|anthropic|kaggle|hf) keys?\b"
    r"|\b(api|auth|access|bearer|refresh|session|secret) tokens?\b|\btoken( [0-9]+)?$"
    r"|\b(db|database|user|root|admin|smtp|mail|ftp|ssh|proxy|mysql|postgres) pass$|\b(basic|http) auth$"
    r"|\bconnection string\b"
)
# `password_length` and `num_secret_layers` tell of a secret, or of none
_ABOUT = re.compile(
    r"^(num|n|min|max|use|has|with|require|requires|is) |"
    r" (policy|file|path|dir|name|length|len|size|dim|count|rate|ttl|expiry|type|layers?|weight|loss)$"
)
# `token` is a secret in `hf_token`, and a word of the trade in these
_VOCABULARY = re.compile(
    r"\b(pad|padding|eos|bos|eot|eod|unk|unknown|mask|cls|class|sep|separator|special|start|end|stop|image|audio"
    r"|video|text|word|per|first|last|next|prev|blank|space|newline|prefix|suffix|middle|fill|fim|boundary|delimiter"
    r"|extra|think|tool|dist|register|latent|query|vocab|by|each|every) tokens?( [0-9]+)?$"
)

_URL_PASSWORD = re.compile(r"(?P<start>[A-Za-z][A-Za-z0-9+.-]{0,20}://[^/\s:@\"']*):[^/\s\"']+@")
_TOKEN_SHAPES = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{20,}|sk-[\w-]{20,}"
    r"|xox[abprs]-[\w-]{10,}|(?:AKIA|ASIA)[0-9A-Z]{16}|AIza[\w-]{35}|npm_[A-Za-z0-9]{36}|pypi-[\w-]{50,}"
    r"|eyJ[\w-]{10,400}\.eyJ[\w-]{10,4000}\.[\w-]+)"
    r"|-----BEGIN [A-Z ]{0,20}PRIVATE KEY-----[A-Za-z0-9+/=\s\\]*"
)
_ASSIGNMENT = re.compile(
    r"(?P<key>(?<![\w.-])[A-Za-z_][\w.-]{0,80})"
    r"(?P<is>[\"']?\]?(?:\s{0,9}:\s{0,9}[\w.\[\]| ]{1,80})?\s{0,9}[=:]\s{0,9}"
    r"(?:field\(\s{0,9}default\s{0,9}=\s{0,9})?(?:[rbfuRBFU]{1,2}(?=[\"']))?)"
    r"(?P<quote>\"\"\"|\x27\x27\x27|[\"'])(?P<value>(?:(?!(?P=quote))[^\n\\]|\\.)+)(?P=quote)"
)
_TRACEBACK = '  File "'
_SHORTEST = 6
"""Characters a secret must have to be looked for in text: shorter ones would blot out ordinary words."""

SECRET_FILES = (".env", ".env.*", "*.pem", "*.key", "id_rsa*", "id_ed25519*", ".netrc", ".pypirc")
"""Globs of files that a snapshot never takes up when they are new or changed."""


class Redactor:
    """Replaces secrets by `<redacted>`; remembers the values it met, to find them in text as well.

    Parameters
    ----------
    patterns: globs of further keys that are secret, matched against the dotted key and its last part.

    >>> r = Redactor(["*.pin"])
    >>> r.mapping({"db": {"password": "hunter22", "pin": 1234}, "max_tokens": 512, "pad_token": "<pad>"})
    {'db': {'password': '<redacted>', 'pin': '<redacted>'}, 'max_tokens': 512, 'pad_token': '<pad>'}
    >>> r.text("login with hunter22 at postgresql://me:abc@host/db")
    'login with <redacted> at postgresql://me:<redacted>@host/db'
    """

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        self._patterns = tuple(patterns)
        self._values: tuple[str, ...] = ()

    def is_secret(self, key: str) -> bool:
        """Whether a value under this (dotted) key must not be written."""
        last = key.rsplit(".", 1)[-1]
        if any(fnmatch.fnmatchcase(key, p) or fnmatch.fnmatchcase(last, p) for p in self._patterns):
            return True
        return _tells_a_secret(last)

    def mapping(self, value: dict[Any, Any]) -> dict[Any, Any]:
        """A copy of nested plain data without its secrets; everything under a secret key is secret."""
        self._learn(value, "")
        plain = self._value(value, "")
        assert isinstance(plain, dict)
        return plain

    def _hides(self, key: str, value: Any) -> bool:
        return value not in ("", None) and not isinstance(value, bool) and self.is_secret(key)

    def _learn(self, value: Any, key: str) -> None:
        # before anything is written: a secret may also stand in a text that comes before its key
        for _, path, part in _parts(value, key):
            if self._hides(path, part):
                self._remember(part)
            else:
                self._learn(part, path)

    def _value(self, value: Any, key: str) -> Any:
        if isinstance(value, str):
            return self.text(value)
        shown = (
            (name, REDACTED if self._hides(path, part) else self._value(part, path))
            for name, path, part in _parts(value, key)
        )
        if isinstance(value, dict):
            return dict(shown)
        return [part for _, part in shown] if isinstance(value, (list, tuple)) else value

    def _remember(self, value: Any) -> None:
        for _, _, part in _parts(value, ""):
            self._remember(part)
        if isinstance(value, (str, bytes, int, float)) and not isinstance(value, bool):
            text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
            if len(text) >= _SHORTEST and text not in self._values:
                # a new tuple, as threads that log may be reading the old one; the longest first, as one
                # secret may begin another
                self._values = tuple(sorted((*self._values, text), key=len, reverse=True))

    def text(self, text: str) -> str:
        """The text without passwords in addresses, tokens of known shape and secret values met so far.

        The lines of code that a traceback quotes are treated as `code` is.
        """
        if _TRACEBACK in text:
            text = _ASSIGNMENT.sub(self._without_literal, text)
        for value in self._values:
            if value in text:
                text = text.replace(value, REDACTED)
        if "://" in text:
            text = _URL_PASSWORD.sub(rf"\g<start>:{REDACTED}@", text)
        return _TOKEN_SHAPES.sub(REDACTED, text)

    def code(self, text: str) -> str:
        """Source text without literals that are assigned to, or stand beside, a secret name.

        >>> Redactor().code("api_key = 'abc'; lr = '0.1'")
        "api_key = '<redacted>'; lr = '0.1'"
        """

        return self.text(_ASSIGNMENT.sub(self._without_literal, text))

    def _without_literal(self, assignment: re.Match[str]) -> str:
        if not self.is_secret(assignment["key"]):
            return assignment[0]
        self._remember(assignment["value"])
        return f"{assignment['key']}{assignment['is']}{assignment['quote']}{REDACTED}{assignment['quote']}"


@functools.lru_cache(maxsize=10_000)  # each key of a configuration is asked about several times in every run
def _tells_a_secret(name: str) -> bool:
    words = " ".join(_WORDS.findall(name)).lower()
    return bool(_SECRET_WORDS.search(words)) and not _ABOUT.search(words) and not _VOCABULARY.search(words)


def _parts(value: Any, key: str) -> Iterator[tuple[Any, str, Any]]:
    """Name, dotted key and value of each part of a mapping or list; nothing for anything else."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield name, f"{key}.{name}" if key else str(name), part
    elif isinstance(value, (list, tuple)):
        for i, part in enumerate(value):
            yield i, f"{key}.{i}", part
