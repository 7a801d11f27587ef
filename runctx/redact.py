"""Replace secrets by `<redacted>` in all that a run writes.

`Redactor.text` is the entry for every text: log lines, captured output, errors, cells, labels, tags. `mapping` does the
same for nested data and `arguments` for a command line. What one of them finds, all of them know from then on.
Nothing here imports more than the standard library: the process that captures output starts with this module.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

REDACTED = "<redacted>"

# -- names of keys -----------------------------------------------------------------------------------------

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
# matched against the words of a key: `dbPassword`, `DB_PASSWORD` and `db-password` all read "db password"
_SECRET_WORDS = re.compile(
    r"\b(\w*passw(or)?d|\w*passphrase|passcode|passkey|\w*pwd|(client|shared)?secret(key)?|credential|apikey"
    r"|authorization|bearer|cookie|(auth|access|api|bearer|refresh)token|authkey|privatekey|accesskey)s?\b"
    r"|\b(api|access|private|secret|auth|account|storage|signing|encryption|master|ssh|deploy|wandb|openai"
    r"|anthropic|kaggle|hf|fernet|hmac|jwt|subscription) keys?\b"
    r"|\b(api|auth|access|bearer|refresh|session|secret|sas) tokens?\b|\btoken( [0-9]+)?$|\bjwt$"
    r"|\b(db|database|user|root|admin|smtp|mail|ftp|ssh|proxy|mysql|postgres|pg) pass$|\b(basic|http) auth$"
    r"|\bconnection ?string\b|\bconn ?str\b|\bshared access signature\b|\b(github|gitlab|azure) pat$|\bpat token\b"
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
    r"|extra|think|tool|dist|register|latent|query|vocab|by|each|every|new|current|predicted|target|top|page"
    r"|continuation) tokens?( [0-9]+)?$"
)


@functools.lru_cache(maxsize=10_000)  # each key of a configuration is asked about several times in every run
def tells_a_secret(name: str) -> bool:
    """Whether what has this name is a secret: `hf_token` is, `pad_token` and `password_length` are not."""
    words = " ".join(_WORDS.findall(name)).lower()
    return bool(_SECRET_WORDS.search(words)) and not _ABOUT.search(words) and not _VOCABULARY.search(words)


# -- names of files ----------------------------------------------------------------------------------------

_GLOBS = tuple(
    """
    .env .env.* *.env .envrc .netrc _netrc .pypirc .npmrc .yarnrc.yml .pgpass .git-credentials .my.cnf
    .mylogin.cnf .s3cfg .boto .dockercfg .htpasswd .vault-token *.pem *.key *.p12 *.pfx *.p8 *.jks *.keystore
    *.kdbx *.ppk *.ovpn *.tfstate *.tfvars id_rsa* id_dsa* id_ecdsa* id_ed25519* credentials credentials.*
    *_credentials *[_-]credentials.* kaggle.json service[_-]account*.json *[_-]service[_-]account.json
    *firebase-adminsdk*.json client[_-]secret*.json gcp[_-]key*.json gcloud[_-]key*.json secrets secret.*
    secrets.* .secrets* *[_-]secrets.* password*.txt passwords.* token.json token.pickle token.txt hf[_-]token*
    api[_-]token* access[_-]token* *api[_-]key* *apikey* kubeconfig *.kubeconfig .databrickscfg .smbcredentials
    .modal.toml .comet.config rclone.conf local.settings.json
    """.split()  # noqa: SIM905 - a quoted name on each line would show less
)
"""Names that gitleaks, gitrob and truffleHog look for, and those of tools of the trade. An example is no secret."""

_FILE = (
    r"(?i:(?:\A|/)(?![^/]*(?:example|sample|template))(?:"
    + "|".join(glob.replace(".", r"\.").replace("*", "[^/]*") for glob in _GLOBS)
    + r")\Z)"
)
SECRET_FILES = (f"re:{_FILE}",)
"""Patterns of files that a snapshot never takes up when they are new or changed; see `runctx.snapshot.patterns`."""


def is_secret_file(path: str) -> bool:
    """Whether a file, by its name, holds keys.

    >>> is_secret_file("conf/Kaggle.JSON"), is_secret_file(".env.example"), is_secret_file("tokenizer.json")
    (True, False, False)
    """
    return re.search(_FILE, path) is not None


# -- what a secret looks like ------------------------------------------------------------------------------

_SHAPES = (  # a part that each has, and the whole; prefixes as their makers and gitleaks document them
    ("hf_", r"hf_[A-Za-z0-9]{20,}"),
    ("api_org_", r"api_org_[A-Za-z0-9]{20,}"),
    ("gh", r"gh[pousr]_[A-Za-z0-9]{20,}"),
    ("github_pat_", r"github_pat_\w{20,}"),
    ("gl", r"gl(?:pat|dt|rt|ptt|cbt|agent|soat|ffct|imt|ft)-[\w-]{20,}"),
    ("sk-", r"sk-(?=[\w-]{0,60}\d)[\w-]{20,}"),
    ("gsk_", r"gsk_[A-Za-z0-9]{20,}"),
    ("xai-", r"xai-[A-Za-z0-9]{20,}"),
    ("pplx-", r"pplx-[A-Za-z0-9]{20,}"),
    ("nvapi-", r"nvapi-[\w-]{20,}"),
    ("r8_", r"r8_[A-Za-z0-9]{30,}"),
    ("KGAT_", r"KGAT_[A-Za-z0-9]{20,}"),
    ("wandb_v1_", r"wandb_v1_[\w-]{20,}"),
    ("lsv2_", r"lsv2_(?:pt|sk)_\w{20,}"),
    ("pcsk_", r"pcsk_\w{20,}"),
    ("tvly-", r"tvly-[\w-]{20,}"),
    ("dapi", r"dapi[0-9a-f]{32}"),
    ("xox", r"xox[abeoprs](?:\.[a-z]+)?-[\w-]{10,}"),
    ("xapp-", r"xapp-[\w-]{10,}"),
    ("hooks.slack.com/", r"hooks\.slack\.com/(?:services|workflows|triggers)/[\w/-]{20,}"),
    ("/api/webhooks/", r"discord(?:app)?\.com/api/webhooks/\d{10,}/[\w-]{20,}"),
    ("AKIA", r"AKIA[0-9A-Z]{16}"),
    ("ASIA", r"ASIA[0-9A-Z]{16}"),
    ("LTAI", r"LTAI[A-Za-z0-9]{17,21}"),
    ("AIza", r"AIza[\w-]{35}"),
    ("GOCSPX-", r"GOCSPX-[\w-]{20,}"),
    ("ya29.", r"ya29\.[\w-]{20,}"),
    ("8Q~", r"[\w.~-]{3}8Q~[\w.~-]{31,34}"),
    ("npm_", r"npm_[A-Za-z0-9]{36}"),
    ("pypi-", r"pypi-[\w-]{50,}"),
    ("rubygems_", r"rubygems_[0-9a-f]{40,}"),
    ("dckr_", r"dckr_(?:pat|oat)_[\w-]{20,}"),
    ("_v1_", r"do[opr]_v1_[0-9a-f]{40,}"),
    ("_live_", r"(?:sk|rk|pk)_live_[A-Za-z0-9]{16,}"),
    ("_test_", r"(?:sk|rk|pk)_test_[A-Za-z0-9]{16,}"),
    ("whsec_", r"whsec_[A-Za-z0-9+/=]{20,}"),
    ("SG.", r"SG\.[\w-]{16,}\.[\w-]{30,}"),
    ("SK", r"SK[0-9a-f]{32}"),
    ("key-", r"key-[0-9a-f]{32}"),
    ("-us", r"[0-9a-f]{32}-us\d{1,2}"),
    (":AA", r"\d{8,10}:AA[\w-]{32,34}"),
    ("hvs.", r"hvs\.[\w-]{20,}"),
    ("atlasv1.", r"[A-Za-z0-9]{14}\.atlasv1\.[\w-]{60,}"),
    ("glc_", r"glc_[A-Za-z0-9+/=]{30,}"),
    ("glsa_", r"glsa_\w{30,}"),
    ("PMAK-", r"PMAK-[0-9a-f-]{40,}"),
    ("dp.pt.", r"dp\.pt\.[A-Za-z0-9]{40,}"),
    ("lin_api_", r"lin_api_[A-Za-z0-9]{30,}"),
    ("ntn_", r"ntn_[A-Za-z0-9]{40,}"),
    ("shp", r"shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}"),
    ("sntry", r"sntry[su]_[\w+/=-]{30,}"),
    ("NRAK-", r"NRAK-[A-Z0-9]{20,}"),
    ("ATATT3", r"ATATT3[\w=-]{50,}"),
    ("figd_", r"figd_[\w-]{30,}"),
    ("sbp_", r"sbp_[0-9a-f]{40}"),
    ("AGE-SECRET-KEY-", r"AGE-SECRET-KEY-1[0-9A-Z]{50,}"),
    ("eyJ", r"eyJ[\w-]{10,400}\.eyJ[\w-]{10,4000}\.[\w-]+"),
    ("eyJhcGlf", r"eyJhcGlf[A-Za-z0-9+/=]{30,}"),
)
_PEM = re.compile(r"-----BEGIN [A-Z ]{0,20}PRIVATE KEY(?: BLOCK)?-----[A-Za-z0-9+/=\s\\]*")

_PROSE = re.compile(
    r"[\"'(]?(?:[A-Za-z]?[a-z]{0,10}|[A-Z]{1,11}|[\d.,:%+e-]{1,11}|.{0,3})[\"').,:;!?…]*", re.DOTALL
)
"""A word or a number: beside the word `token`, or after a colon, it is hardly a secret."""
_NO_VALUE = re.compile(
    r"(?i)(?:none|null|nil|undefined|true|false|yes|no|on|off|str|int|bool|bytes|float|any|optional\w*|required"
    r"|missing|unset|empty|hidden|masked|redacted|default|password|secret|token|key|username|user|input|prompt"
    r"|invalid|expired|wrong|ok|\d{1,3}|[*.x?•-]+)[.,:!]*"
)
"""What stands in the place of a secret, and is none."""
_PLACEHOLDER = re.compile(r"\$[A-Z_][A-Z_0-9]*|\$\{[^}]*\}|%\(\w+\)s|%s|<[^>]*>|\{[^}]*\}")
"""What is filled in later."""
_NAME = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")
_HOLDERS = frozenset(
    {"self", "cls", "cfg", "config", "conf", "args", "opts", "options", "os", "env", "settings", "ctx"}
)
"""What a secret is taken from in source: `password=cfg.pw`."""

_URL = re.compile(
    r"(?P<start>\b[A-Za-z][A-Za-z0-9+.-]{0,20}://)(?P<user>[^/\s:@\"'<>?#]{0,500})"
    r"(?::(?P<password>[^/\s\"']{1,500}|(?!\d{1,5}[/?#])[^\s@\"']{1,500}))?@"
)
_USER = re.compile(r"[a-z][a-z._-]{0,15}")
"""A name with which nobody logs in by a token: `ssh://git@host`."""
_QUERY = re.compile(r"(?P<start>[?&;](?P<key>[\w.%-]{1,60})=)(?P<value>[^&\s\"'<>;#)\]}\\]{1,4000})")
_SIGNED = re.compile(
    r"(?i)sig|\w*signature|x-(?:amz|goog|oss|cos|ms)-(?:signature|credential|security-token)|awsaccesskeyid|hmac"
    r"|jwt|code|key|auth|ticket|e?token|hdnts|pwd|pass"
)
"""Keys of a query that sign it or let one in; some have other uses, where the value is a word."""
_ORACLE = re.compile(r"(?P<start>\bjdbc:oracle:\w{1,10}:[^/\s@:]{1,80}/)[^@\s\"']{1,200}@")

_KEY = re.compile(
    r"(?P<key>(?<![\w.-])-{0,2}(?:(?i:api|access|secret|auth|private|ssh|bearer|refresh|session)[ ])?"
    r"[A-Za-z_][\w.-]{0,80}+)"
    r"(?P<is>\\{0,4}[\"']?\]?"  # of `"key":` and `x["key"] =`
    r"(?:\s{0,9}[=:]=?>?\s{0,9}|\s{1,9}is\s{1,9}))"
)
_BEFORE_VALUE = re.compile(
    r"(?:[A-Za-z_][\w.\[\]| ]{0,80}?(?:\s{1,9}=\s{1,9}|=(?=[rbfuRBFU]{0,2}[\"'])))?"  # of `key: str = "x"`
    r"(?:field\(\s{0,9}default\s{0,9}=\s{0,9})?(?:[rbfuRBFU]{1,2}(?=\\{0,4}[\"']))?"
)
_QUOTED = re.compile(
    r"(?P<quote>\\{0,4}(?:\"\"\"|\x27\x27\x27|[\"']))(?P<value>(?:(?!(?P=quote))(?:[^\n\\]|\\.))+)(?P=quote)"
)
_BARE = re.compile(r"[\"']?(?P<value>(?:(?i:bearer|basic|token|digest)\s{1,9})?[^\s,;&\"'(){}\[\]<>\\]+)")
_WHOLE = re.compile(r"(?P<value>[^\s\"'`<>\\]+)")
"""As a shell takes it: `PASSWORD=a;b`."""
_COOKIES = re.compile(r"[\"']?(?P<value>[^\n\"'<]+)")
_OPTION = re.compile(
    r"(?P<start>(?<![\w-])--?(?P<key>[A-Za-z][\w-]{1,60})(?:[\"'],\s{0,9}|\s{1,9})[\"']?)(?P<value>[^\s\"'<-][^\s\"']*)"
)
_BEARER = re.compile(r"(?P<start>\b(?i:bearer)\s{1,9})(?P<value>[\w.~+/=-]{6,})")
_SET = re.compile(
    r"(?P<start>(?:%(?:set_)?env|\bsetenv|\bsetx|\bset\s+-g?x|\bENV)\s{1,9}(?P<key>\w{1,80})\s{1,9}[\"']?)"
    r"(?P<value>[^\s\"'=<][^\s\"']*)"
)
_PAIR = re.compile(
    r"(?P<start>\(\s{0,9}[\"'](?P<key>[\w.-]{1,80})[\"']\s{0,9},\s{0,9}[\"'])(?P<value>[^\"'\n]+)(?=[\"'])"
)
_LOGIN = re.compile(
    r"(?P<start>\b(?:curl|https?(?=\s))[^\n|]{0,300}?\s?[\"']?(?:-u|-a|--user|--auth|--proxy-user)[\"']?[\s,=]{0,3}"
    r"[\"']?[^\s:\"'/]{1,80}:)(?P<value>[^\s\"']+)"
    r"|(?P<start2>\b(?:mysql\w*|mariadb\w*|mongo\w*|sshpass|docker login|redis-cli|helm)\b[^\n|]{0,300}?\s[\"']?"
    r"-[pa][\"']?[\s,]{0,3}[\"']?)(?P<value2>[^\s\"'-][^\s\"']*)"
    r"|(?P<start3>\b(?:wandb|weave|comet|neptune|clearml|databricks)[\"']?[\s,]{1,3}[\"']?login[\"']?[\s,]{1,3}[\"']?"
    r"(?:--relogin\s+)?|\blogin\s{1,9}\S{1,80}\s{1,9}password\s{1,9}|<password>)(?P<value3>[^\s\"'<-][^\s\"'<]*)"
)
_Marked = tuple[tuple[re.Pattern[str], tuple[str, ...]], ...]
_NAMED: _Marked = ((_OPTION, ("-",)), (_SET, ("env", "setx", "-x", "-gx")), (_PAIR, ("(",)))
_COMMANDS = ("curl", "http ", "https ", "mysql", "mariadb", "mongo", "sshpass", "redis-cli", "helm")
_PLACED: _Marked = ((_BEARER, ("bearer",)), (_LOGIN, (*_COMMANDS, "login", "<password>")))
"""Patterns, each with texts in lower case of which it needs one: looking for these takes a hundredth of the time."""
_HINTS = (
    "pass",
    "pwd",
    "secret",
    "token",
    "key",
    "auth",
    "credential",
    "bearer",
    "cookie",
    "connection",
    "conn_str",
    "connstr",
    "jwt",
    "signature",
    "github",
    "gitlab",
    "azure",
    "pat_",
    "curl",
    "http ",
    "https ",
    "mysql",
    "mariadb",
    "mongo",
    "redis-cli",
    "login",
    "helm",
)
"""Of a text in lower case: without any of these it assigns no secret."""

_SHORTEST = 6
"""Characters a secret must have to be looked for in text: shorter ones would blot out ordinary words."""
_LINE = 16
"""Characters that a line of a secret must have to be known alone."""
_MOST_PARTS = 10_000
"""Of one value that are looked through for secrets."""
_BREAKS = dict.fromkeys(map(ord, " \t\r\n\"'|│\\+>#*(),"))
"""What comes between the parts of a secret that is wrapped over lines."""
_BREAK = r"[ \t\r\n\"'|│\\+>#*(),]{0,80}"


class Redactor:
    """Replaces secrets by `<redacted>`; remembers the values it met, to find them in text as well.

    Parameters
    ----------
    patterns: globs of further keys that are secret, matched against the dotted key and its last part.

    >>> r = Redactor(["*.pin"])
    >>> r.mapping({"db": {"password": "hunter22", "pin": 1234}, "max_tokens": 512, "pad_token": "<pad>"})
    {'db': {'password': '<redacted>', 'pin': '<redacted>'}, 'max_tokens': 512, 'pad_token': '<pad>'}
    >>> r.text("login with hunter22 at postgresql://me:abc@host/db, then curl --token s3cr3t https://h/?sig=4f2a9c")
    'login with <redacted> at postgresql://me:<redacted>@host/db, then curl --token <redacted> https://h/?sig=<redacted>'
    """

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        self._patterns = tuple(patterns)
        self._known: dict[str, bool] = {}
        """Text to look for -> whether it is a secret itself, not one of its spellings."""
        self._sorted: tuple[str, ...] = ()

    def is_secret(self, key: str) -> bool:
        """Whether a value under this (dotted) key must not be written."""
        last = key.rsplit(".", 1)[-1]
        for pattern in self._patterns:
            if fnmatch.fnmatchcase(key, pattern) or fnmatch.fnmatchcase(last, pattern):
                return True
        return tells_a_secret(last)

    # -- nested data ---------------------------------------------------------------------------------------

    def mapping(self, value: dict[Any, Any]) -> dict[Any, Any]:
        """A copy of nested plain data without its secrets; everything under a secret key is secret."""
        self._learn(value, "")  # before anything is written: a secret may also stand in a text before its key
        plain = self._value(value, "")
        assert isinstance(plain, dict)
        return plain

    def learn(self, value: Any) -> None:
        """Remember the secrets in a value: nested data, a dataclass, a namespace, a text that assigns one."""
        self._learn(value, "", [_MOST_PARTS])

    def learn_environment(self, variables: Mapping[str, str]) -> None:
        """Remember the environment variables that are secret by their names, but words and paths."""
        for name, value in variables.items():
            if tells_a_secret(name) and not value.startswith(("/", "~")) and not _is_prose(value):
                self._remember(value)

    def _hides(self, key: str, value: Any) -> bool:
        return value not in ("", None) and not isinstance(value, bool) and self.is_secret(key)

    def _learn(self, value: Any, key: str, left: list[int] | None = None) -> None:
        if isinstance(value, str):
            self.text(value)
            return
        for _, path, part in _parts(value, key):
            if left is not None:
                left[0] -= 1
                if left[0] < 0:
                    return
            if self._hides(path, part):
                if not (isinstance(part, str) and _is_loose(path) and _is_prose(part)):
                    self._remember(part)
            elif not isinstance(part, (int, float)):
                self._learn(part, path, left)

    def _value(self, value: Any, key: str) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if not isinstance(value, (dict, list, tuple)):
            return value
        shown = {}
        for name, path, part in _parts(value, key):
            shown[name] = REDACTED if self._hides(path, part) else self._value(part, path)
        return shown if isinstance(value, dict) else list(shown.values())

    def _remember(self, value: Any) -> None:
        for _, _, part in _parts(value, ""):
            self._remember(part)
        if isinstance(value, (str, bytes, int, float)) and not isinstance(value, bool):
            text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
            if len(text) >= _SHORTEST and text != REDACTED and not _NO_VALUE.fullmatch(text):
                for spelling in _spellings(text):
                    self._known.setdefault(spelling, False)
                self._known[text] = True

    def _values(self) -> tuple[str, ...]:
        """All that is looked for, the longest first, as one secret may begin another."""
        if len(self._sorted) != len(self._known):  # also after another thread has learned one meanwhile
            self._sorted = tuple(sorted(self._known.copy(), key=len, reverse=True))
        return self._sorted

    def is_held_by(self, data: bytes) -> bool:
        """Whether a secret that is known stands in there."""
        return any(value.encode("utf-8", "replace") in data for value in self._values())

    # -- text ----------------------------------------------------------------------------------------------

    def text(self, text: str) -> str:
        """The text without secrets.

        They are known by their values once met (escaped, and split over lines, too), by the names or options they are
        assigned to, by their place in an address, and by their shape.

        >>> Redactor().text("api_key = 'abc'; lr = '0.1'; max_tokens=512")
        "api_key = '<redacted>'; lr = '0.1'; max_tokens=512"
        """
        shown = self._without_known(text)
        if shown != text:
            self._without_told(text)  # learns a longer secret of which a known one is a part
            shown = self._without_known(text)
        known = len(self._known)
        shown = self._without_told(shown)
        return shown if len(self._known) == known else self._without_known(shown)

    def _without_known(self, text: str) -> str:
        for value in self._values():
            if value in text:
                text = text.replace(value, REDACTED)
        if self._known and "\n" in text:
            text = self._without_split(text)
        return text

    def _without_told(self, text: str) -> str:
        for mark, shape in _SHAPES:
            if mark in text:
                text = _shape(shape).sub(REDACTED, text)
        if "PRIVATE KEY" in text:
            text = _PEM.sub(REDACTED, text)
        if "@" in text and ("://" in text or "jdbc:" in text):
            text = _URL.sub(self._without_password, text)
            text = _ORACLE.sub(rf"\g<start>{REDACTED}@", text)
        if "=" in text and ("?" in text or "&" in text):
            text = _QUERY.sub(self._without_signature, text)
        lower = text.lower()
        if self._patterns or any(map(lower.__contains__, _HINTS)):
            text = self._without_assigned(text)
            for patterns, shown in ((_NAMED, self._without_named), (_PLACED, self._without_place)):
                for pattern, marks in patterns:
                    if any(map(lower.__contains__, marks)):
                        text = pattern.sub(shown, text)
        return text

    def arguments(self, argv: Sequence[str]) -> tuple[str, ...]:
        """A command line without what follows, or is assigned to, a secret name.

        >>> Redactor().arguments(["train.py", "--api-key", "abc", "db.password=abc", "lr=0.1"])
        ('train.py', '--api-key', '<redacted>', 'db.password=<redacted>', 'lr=0.1')
        """
        shown: list[str] = []
        option = ""
        for argument in argv:
            if option and not argument.startswith("--"):
                shown.append(self._hidden(argument))
                option = ""
                continue
            name, equals, value = argument.partition("=")
            if equals and self.is_secret(name.lstrip("-+~")):
                shown.append(f"{name}={self._hidden(value)}")
            else:
                shown.append(self.text(argument))
            is_option = argument.startswith("-") and not equals
            option = argument if is_option and self.is_secret(argument.lstrip("-")) else ""
        return tuple(shown)

    def _hidden(self, value: str) -> str:
        if value not in ("", REDACTED):
            self._remember(value)
            return REDACTED
        return value

    def _without_split(self, text: str) -> str:
        bare = text.translate(_BREAKS)
        for secret in [known for known, itself in list(self._known.items()) if itself]:
            joined = secret.translate(_BREAKS)
            if len(joined) >= _SHORTEST and joined in bare:
                text = _split(joined).sub(_one_for_each_line, text)
        return text

    def _without_password(self, url: re.Match[str]) -> str:
        start, user, password = url["start"], url["user"], url["password"]
        if password is not None:
            return f"{start}{user}:{REDACTED}@"
        if not start.lower().startswith("http") or not user or _USER.fullmatch(user):
            return url[0]
        return f"{start}{REDACTED}@"

    def _without_signature(self, query: re.Match[str]) -> str:
        key, value = query["key"], query["value"]
        if not (self._assigns(key, value) or (_SIGNED.fullmatch(key) and not _is_prose(value))):
            return query[0]
        self._remember(value)
        return f"{query['start']}{REDACTED}"

    def _assigns(self, key: str, value: str) -> bool:
        """Whether this key with this value is a secret: of `token`, which is a word of the trade, not any value is."""
        if not self.is_secret(key) or _is_none(value):
            return False
        return not (_is_loose(key) and _is_prose(value))

    def _without_assigned(self, text: str) -> str:
        parts: list[str] = []
        written = at = 0
        while (found := _KEY.search(text, at)) is not None:
            key, at = found["key"].lstrip("-"), found.end("key")
            if not self.is_secret(key):
                continue
            start = found.end()
            if before := _BEFORE_VALUE.match(text, start):
                start = before.end()
            bare = _COOKIES if key.lower().endswith("cookie") else _WHOLE if _is_of_shell(found) else _BARE
            value = _QUOTED.match(text, start) or bare.match(text, start)
            if value is None or not self._assigns(key, value["value"]):
                continue
            secret = value["value"]
            if value.re is not _QUOTED and self._is_other(found, value):
                continue
            if not _is_prose(secret):
                self._remember(_SCHEME.sub("", secret))
                self._remember(_ESCAPED.sub(r"\1", secret))
            parts += text[written : value.start("value")], REDACTED
            written = at = value.end("value")
        return "".join(parts) + text[written:] if parts else text

    def _is_other(self, key: re.Match[str], value: re.Match[str]) -> bool:
        """Whether what stands beside the name of a secret, without quotes, is source or prose."""
        text, secret = key.string, value["value"]
        if value[0] == "$" and text[value.end() : value.end() + 1] in ("{", "("):  # what a shell fills in
            return True
        if _NAME.fullmatch(secret):
            called = text[value.end() : value.end() + 1] in ("(", "[") and value.end() < len(text)
            if (
                called
                or secret.partition(".")[0] in _HOLDERS
                or (secret.isidentifier() and self._is_named(secret))
            ):
                return True
        if "=" in key["is"] or not _is_prose(secret):
            return False
        line = text[text.rfind("\n", 0, key.start()) + 1 : key.start()].strip(" \t-\"'")
        end = text.find("\n", value.end())
        return bool(line or text[value.end() : end if end >= 0 else None].strip(" \t\"',"))

    def _is_named(self, name: str) -> bool:
        return self.is_secret(name) and not any(map(str.isdigit, name))

    def _without_named(self, found: re.Match[str]) -> str:
        key, value = found["key"], found["value"]
        if not self.is_secret(key) or _is_none(value) or _is_prose(value):
            return found[0]
        self._remember(value)
        return f"{found['start']}{REDACTED}"

    def _without_place(self, found: re.Match[str]) -> str:
        """What only its place tells: after `Bearer`, or where a command takes a password."""
        start, value = (text for text in found.groups() if text is not None)
        if _is_none(value) or (found.re is _BEARER and _is_prose(value)):
            return found[0]
        if not _is_prose(value):
            self._remember(value)
        return f"{start}{REDACTED}"


_SCHEME = re.compile(r"(?i)^(?:bearer|basic|token|digest)\s+")
_ESCAPED = re.compile(r"\\(.)")


def _is_of_shell(key: re.Match[str]) -> bool:
    return key["key"].isupper() and key["is"] == "="


def _is_none(value: str) -> bool:
    return bool(_NO_VALUE.fullmatch(value) or _PLACEHOLDER.fullmatch(value))


def _is_prose(value: str) -> bool:
    return _PROSE.fullmatch(value) is not None


@functools.lru_cache(maxsize=10_000)
def _is_loose(key: str) -> bool:
    """Whether the key may be one of text as well: `token` is, `api_token` is not."""
    words = " ".join(_WORDS.findall(key.rsplit(".", 1)[-1])).lower()
    return _LOOSE.search(words) is not None


_LOOSE = re.compile(
    r"(?<!api )(?<!auth )(?<!access )(?<!bearer )(?<!refresh )(?<!session )(?<!secret )\btoken( \d+)?$"
)


@functools.lru_cache(maxsize=1000)
def _spellings(secret: str) -> frozenset[str]:
    """How a secret stands in text: as `repr` and JSON escape it, in an address, and each long line of it."""
    import html
    from urllib.parse import quote, quote_plus

    as_json = json.dumps(secret)[1:-1]
    spelled = {
        repr(secret)[1:-1],
        repr(secret.encode("utf-8", "replace"))[2:-1],
        as_json,
        json.dumps(secret, ensure_ascii=False)[1:-1],
        json.dumps(as_json)[1:-1],
        repr(as_json)[1:-1],
        html.escape(secret),
        quote(secret.encode("utf-8", "replace"), safe=""),
        quote(secret.encode("utf-8", "replace")),
        quote_plus(secret.encode("utf-8", "replace")),
        *(line for line in map(str.strip, secret.splitlines()) if len(line) >= _LINE),
    }
    return frozenset(spelling for spelling in spelled if len(spelling) >= _SHORTEST)


@functools.cache
def _shape(shape: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![A-Za-z0-9]){shape}")


@functools.lru_cache(maxsize=100)
def _split(joined: str) -> re.Pattern[str]:
    return re.compile(_BREAK.join(map(re.escape, joined)))


def _one_for_each_line(found: re.Match[str]) -> str:
    return "\n".join([REDACTED] * (found[0].count("\n") + 1))


def _parts(value: Any, key: str) -> Iterable[tuple[Any, str, Any]]:
    """Name, dotted key and value of each part of a mapping, list, dataclass or namespace; nothing for all else."""
    if isinstance(value, (str, int, float, bytes, type)):
        return ()
    if isinstance(value, tuple) and (fields := getattr(value, "_fields", None)):  # a named tuple
        value = dict(zip(fields, value, strict=False))
    elif dataclasses.is_dataclass(value):
        value = {f.name: getattr(value, f.name, None) for f in dataclasses.fields(value)}
    elif type(value).__name__ in ("Namespace", "SimpleNamespace"):
        value = vars(value)
    if isinstance(value, dict):
        return [(name, f"{key}.{name}" if key else str(name), part) for name, part in value.items()]
    if isinstance(value, (list, tuple)):
        return ((i, f"{key}.{i}", part) for i, part in enumerate(value))  # there may be millions
    return ()
