"""Secrets are planted in everything a run sees; what it writes and publishes holds none of them."""

from __future__ import annotations

import json
import random
import re
import sqlite3
import string
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from runctx.capture import tee
from runctx.redact import REDACTED, Redactor, is_secret_file
from tests.test_kernel import Kernel

Make = Callable[[random.Random], str]


def _letters(alphabet: str, length: int) -> Make:
    return lambda dice: "".join(dice.choices(alphabet, k=length))


ALNUM = string.ascii_letters + string.digits
PLAIN = _letters(ALNUM, 20)
HEX = _letters("0123456789abcdef", 40)
BASE64 = _letters(ALNUM + "+/", 30)
UPPER = _letters(string.ascii_uppercase + string.digits, 16)


def _odd(dice: random.Random) -> str:
    return f"p#{PLAIN(dice)}!$é"


def _weak(dice: random.Random) -> str:
    return f"{''.join(dice.choices(string.ascii_lowercase, k=7))}{dice.randrange(10, 99)}"


TEXTS: dict[str, tuple[str, Make]] = {
    "keyword argument": ("login(api_key='{S}', retries=3)", PLAIN),
    "weak password": ("login(password='{S}')", _weak),
    "json": ('sent {{"api_key": "{S}", "n": 3}}', PLAIN),
    "json in json": ('sent "{{\\"hf_token\\": \\"{S}\\"}}"', PLAIN),
    "token=": ("refused: token={S}", HEX),
    "a variable": ("WANDB_API_KEY={S} python train.py", HEX),
    "exported": ("export MY_PASSWORD={S}", _odd),
    "yaml": ("db_password: {S}", PLAIN),
    "spaced": ("secret_key = {S}", BASE64),
    "option": ("python train.py --token {S} --lr 0.1", PLAIN),
    "option=": ("python train.py --api-key={S} --lr 0.1", PLAIN),
    "list of arguments": ("Command '['train.py', '--password', '{S}']' failed", PLAIN),
    "bearer": ("Authorization: Bearer {S}", BASE64),
    "bearer alone": ("sent Bearer {S}", PLAIN),
    "basic": ("Authorization: Basic {S}==", BASE64),
    "x-api-key": ("curl -H 'X-Api-Key: {S}' https://h", PLAIN),
    "cookie": ("Cookie: lang=en; session={S}", PLAIN),
    "curl -u": ("curl -u me:{S} https://h/x", PLAIN),
    "mysql -p": ("mysqldump -u root -p{S} db", PLAIN),
    "%env": ("%env TOKEN={S}", PLAIN),
    "%env with a space": ("%env HF_TOKEN {S}", PLAIN),
    "os.environ": ("os.environ['OPENAI_API_KEY'] = '{S}'", PLAIN),
    "setdefault": ('os.environ.setdefault("MY_API_KEY", "{S}")', PLAIN),
    "wandb login": ("wandb login {S}", HEX),
    "address": ("postgresql://me:{S}@h/db", PLAIN),
    "address with a slash": ("mongodb+srv://me:a/{S}@h/db", PLAIN),
    "user is a token": ("git clone https://{S}@github.com/a/b.git", PLAIN),
    "?token=": ("GET https://h/x?token={S}&n=3", PLAIN),
    "access_token": ("https://h/x?n=3&access_token={S}", PLAIN),
    "azure sas": ("https://a.blob.core.windows.net/c?sv=2022&sig={S}%3D&se=2026", PLAIN),
    "amazon": ("https://b.s3.amazonaws.com/k?X-Amz-Date=1&X-Amz-Signature={S}", HEX),
    "google": ("https://storage.googleapis.com/b/k?X-Goog-Signature={S}", HEX),
    "jdbc": ("jdbc:sqlserver://h:1433;user=sa;password={S};encrypt=true", PLAIN),
    "oracle": ("jdbc:oracle:thin:scott/{S}@//h:1521/x", PLAIN),
    "connection string": ("DefaultEndpointsProtocol=https;AccountName=a;AccountKey={S}==;", BASE64),
    "hugging face": ("got hf_{S}abcd", PLAIN),
    "github": ("got ghp_{S}{S}", PLAIN),
    "openai": ("got sk-proj-{S}7", PLAIN),
    "slack": ("https://hooks.slack.com/services/T00000000/B00000000/{S}", PLAIN),
    "amazon id": ("got AKIA{S}", UPPER),
    "jwt": ("got eyJhbGciOiJIUzI1NiJ9.eyJ{S}.abc{S}", PLAIN),
    "private key": ("-----BEGIN RSA PRIVATE KEY-----\\n{S}\\n-----END RSA PRIVATE KEY-----", BASE64),
}
"""What a text that holds a secret looks like, and of what the secret is made."""

PLACES = ("config", "log", "print", "error", "label", "cell")
"""Where each of the texts above is planted."""

FILES = (
    *(
        ".env",
        "prod.env",
        ".ENV.local",
        ".envrc",
        "Credentials.json",
        "kaggle.json",
        "KAGGLE.JSON",
        "secrets.yaml",
    ),
    *("service-account-prod.json", ".git-credentials", "id_ecdsa", "id_rsa", "store.P12", ".npmrc", ".netrc"),
    *(
        "server.pem",
        "server.key",
        "client_secret_1.json",
        "aws_credentials.csv",
        ".pgpass",
        "terraform.tfvars",
    ),
    *("openai_api_key.txt", "hf_token", "release.keystore", "x-firebase-adminsdk-1.json"),
)
"""Names of files that a snapshot leaves out, and publishing too."""

LEFT: dict[str, str] = {
    "positional": "Client('{S}')",
    "in prose": "my magic word, {S}, opens it",
    "spelled backwards": "{S}",
}
"""What nothing tells: these remain, and `docs/run.md` lists them."""

PROGRAM = """
import base64, json, logging, pathlib, pprint, subprocess, sys
from dataclasses import dataclass
import loguru
from runctx import Run

planted = json.loads(pathlib.Path(sys.argv[1]).read_text())
texts, known = planted["texts"], planted["known"]

@dataclass
class Account:
    user: str
    password: str

def at_work(task):
    run = Run({"cmd": texts["config"][0]}, console=False).start()
    run.logger.info("at it")
    told = task.password if isinstance(task, Account) else task["api_key"] if isinstance(task, dict) else str(task)
    logging.getLogger("x").warning("task %s", told)
    print("task", told, flush=True)
    subprocess.run(["echo", told])
    raise ValueError(f"no way with {told}", {"api_key": told})

def login(cfg):
    print("in", cfg.api_key, flush=True)

cfg = {"texts": dict(enumerate(texts["config"])), **known["config"], "lr": 0.1}
with Run({"api_key": "?"}, stage="tasks", capture=True) as run:
    tasks = [*texts["label"], *({"api_key": s} for s in known["task"][:2]), Account("me", known["task"][2])]
    for launcher in ("joblib", "serial"):
        run.map(at_work, tasks, n_jobs=2, on_error="return", launcher=launcher)
    run.map(login, known["task"][3:], into="api_key", n_jobs=2)
sys.path.append("ignored")
import my_secrets
with Run(cfg, capture=True) as run:
    (run.save_dir / "model.txt").write_text("weights")
    for name in planted["files"]:
        (run.save_dir / name).write_text(planted["files"][name])
    loggers = (run.logger.info, loguru.logger.info, logging.getLogger("x").warning)
    for i, text in enumerate(texts["log"]):
        loggers[i % 3](text.replace("{", "{{").replace("}", "}}") if i % 3 < 2 else text)
    for i, text in enumerate(texts["print"]):
        print(text, flush=True) if i % 2 else subprocess.run(["echo", text])
    for secret in (*known["config"].values(), *known["environment"]):
        print(repr(secret), json.dumps(secret), pprint.pformat({"x": secret}, width=20))
        run.logger.info("{} {!r}", secret, secret.encode())
        half = len(secret) // 2
        run.logger.info("| " + secret[:half] + " |\\n| " + secret[half:] + " |")
        print(secret[:half] + "\\n" + secret[half:])
    for secret in known["config"].values():
        try:
            raise KeyError(secret)
        except KeyError:
            run.logger.exception("oh")
    print("\\n".join(planted["left"]))
    try:
        raise OSError("\\n".join(texts["error"]))
    except OSError as error:
        raise RuntimeError(list(known["config"].values())) from error
"""

CELLS = """
from runctx import Run
run = Run({"lr": 0.1}, stage="cells", console=False).start()
"""


@dataclass(frozen=True)
class Trial:
    """What was planted, and every byte that was written."""

    planted: dict[str, str]
    """What and where -> the secret."""
    written: dict[str, bytes]
    """Where it was written -> what."""

    def found(self) -> dict[str, list[str]]:
        """Which of the planted secrets were written, and where."""
        found = {}
        for what, secret in self.planted.items():
            spelled = {
                secret.encode(),
                json.dumps(secret)[1:-1].encode(),
                repr(secret.encode())[2:-1].encode(),
            }
            bare = secret.encode().translate(None, BETWEEN)
            places = [
                place
                for place, data in self.written.items()
                if any(s in data for s in spelled) or bare in data.translate(None, BETWEEN)
            ]
            if places:
                found[what] = places
        return found


BETWEEN = b" \t\r\n'\"|,\\"


def _written(project: Path) -> Iterator[tuple[str, bytes]]:
    for path in project.rglob("*"):
        if path.is_file() and "ignored" not in path.parts:
            inside = path.relative_to(project)
            if inside.parts[0] == "results" and is_secret_file(path.name):
                continue  # what the program itself has saved there
            yield str(inside), path.read_bytes()
            if path.name == "mlflow.db":
                with sqlite3.connect(path) as database:
                    yield "tables of mlflow.db", "\n".join(database.iterdump()).encode()
    objects = ["git", "cat-file", "--batch", "--batch-all-objects"]
    yield ".git, decompressed", subprocess.run(objects, cwd=project, check=True, capture_output=True).stdout


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    """Real runs in real processes, and in a real kernel, with all of it; then published to a real MLflow."""
    folder = tmp_path_factory.mktemp("trial")
    project = folder / "project"
    (project / "ignored").mkdir(parents=True)
    dice = random.Random(1)
    planted: dict[str, str] = {}

    def plant(what: str, make: Make = PLAIN) -> str:
        planted[what] = make(dice)
        return planted[what]

    texts = {
        place: [text.format(S=plant(f"{place}: {what}", make)) for what, (text, make) in TEXTS.items()]
        for place in PLACES
    }
    known = {
        "config": {key: plant(f"config: {key}", make) for key, make in CONFIG.items()},
        "task": [plant(f"task {i}") for i in range(5)],
        "environment": [plant("environment: HF_TOKEN"), plant("environment: DB_PASSWORD", _odd)],
    }
    files = {name: plant(f"file {name}") for name in FILES}
    arguments = [
        "--api-key",
        plant("argument"),
        f"db.password={plant('override')}",
        texts_of(plant("command")),
    ]
    left = [text.format(S=plant(f"left: {what}")) for what, text in LEFT.items()]
    left[-1] = left[-1][::-1]
    planted["left: spelled backwards"] = left[-1]
    data = {"texts": texts, "known": known, "files": {n: f"x={s}" for n, s in files.items()}, "left": left}
    (folder / "planted.json").write_text(json.dumps(data))
    (project / "train.py").write_text(PROGRAM)
    (project / "pyproject.toml").write_text('[tool.runctx]\nvariables = ["MYLAB_*"]\n')
    (project / ".gitignore").write_text("/results/\n/ignored/\n/mlruns/\n/mlflow.db\n")
    git = ("git", "-c", "user.name=Ada", "-c", "user.email=a@b.c")
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *command], cwd=project, check=True)
    for name, secret in files.items():
        (project / name).write_text(f"x={secret}")
    (project / "ignored" / "my_secrets.py").write_text(f"X = '{plant('module')}'\n")
    (project / "new.py").write_text("lr = 0.1\n")

    with pytest.MonkeyPatch.context() as patch:
        for name, value in zip(("HF_TOKEN", "DB_PASSWORD"), known["environment"], strict=True):
            patch.setenv(name, value)
        patch.setenv("MYLAB_CMD", f"--token {plant('environment: recorded')}")
        patch.setenv("RUNCTX_TRACKING", "mlflow")
        patch.setenv("RUNCTX_CACHE", str(project / "cache"))
        program = [sys.executable, "train.py", str(folder / "planted.json"), *arguments]
        done = subprocess.run(program, cwd=project, capture_output=True, text=True)
        assert "RuntimeError" in done.stderr, done.stderr
        kernel = Kernel(project)
        try:
            kernel.run(CELLS)
            for text in texts["cell"]:
                kernel.run(text)
            kernel.run(f"raise ValueError('''{texts['error'][0]}''')")
            kernel.run("run.finish()")
        finally:
            kernel.stop()
        publish = [sys.executable, "-c", "from runctx.cli import main; main()", "publish"]
        subprocess.run(publish, cwd=project, check=True, capture_output=True)
    for name in FILES:
        (project / name).unlink()
    yield Trial(planted, dict(_written(project)))


CONFIG: dict[str, Make] = {"api_key": PLAIN, "db_password": _odd, "client_secret": BASE64, "hf_token": _weak}


def texts_of(secret: str) -> str:
    return f"cmd=python x.py --password {secret}"


def test_of_250_planted_secrets_only_those_remain_that_nothing_tells(trial: Trial) -> None:
    """Values, texts, names and places tell secrets: in no file, object or table is one that the docs do not list."""
    assert len(trial.planted) >= 250
    assert {what: where for what, where in trial.found().items() if not what.startswith("left")} == {}
    assert len(LEFT) <= 5


def test_the_trial_looks_where_they_would_be(trial: Trial) -> None:
    """What is no secret was written everywhere the secrets were looked for."""
    written = b"".join(trial.written.values())
    assert {"tables of mlflow.db", ".git, decompressed"} <= trial.written.keys()
    for text in (b"at it", b"weights", b"lr = 0.1", b"RuntimeError", b"no way with", b"mylab_cmd".upper()):
        assert text in written
    assert trial.planted["left: in prose"].encode() in written


@pytest.mark.parametrize(("text", "make"), TEXTS.values(), ids=TEXTS)
def test_a_text_without_its_secret(text: str, make: Make) -> None:
    """A secret in a text goes, whatever tells it, and the rest of the text stays as it was; so in every text after."""
    secret = make(random.Random(7))
    redactor = Redactor()
    shown = redactor.text(f"before {text.format(S=secret)} after")
    assert secret not in shown
    assert shown.startswith("before ")
    assert REDACTED in shown
    assert redactor.text(shown) == shown


HARMLESS = (
    *(
        "max_tokens=512",
        "tokenizer=bert",
        "tokens: 512",
        "token=the logprob=-0.3",
        "token: hello",
        "pad_token='<pad>'",
    ),
    *(
        "{'token': 'cat', 'p': 0.3}",
        "next token: 'weird'",
        "token=151643",
        "eos_token_id=2",
        "num_tokens=1e9",
    ),
    *(
        "password policy: at least 12 characters",
        "password is required",
        "enter the password: ",
        "password_length=12",
    ),
    *(
        "the secret is out",
        "use --token to log in",
        "--password is not set",
        "no token: log in",
        "bearer of bad news",
    ),
    *(
        "keys: ['a', 'b']",
        "key=3f2a9c0d1e",
        "cache key: resnet50-19c8e357",
        "sort_keys=True",
        "for key, value in x:",
    ),
    *(
        "api_key=None",
        "api_key = os.environ['OPENAI_API_KEY']",
        "password=getpass()",
        "token=args.token",
        "secret=False",
    ),
    *(
        "password=password",
        "token=hf_token",
        "password=${DB_PASSWORD}",
        "password: str",
        "api_key: str | None = None",
    ),
    *(
        "login(password=cfg.db.password)",
        "def f(token: str, password: str = ''):",
        "token = tokens[i]",
        "{password}",
    ),
    *(
        "4f2a9c0de1b3a5f6c7d8e9f00112233445566778",
        "commit 4f2a9c0de1b3a5f6c7d8e9f00112233445566778",
        "git:4f2a9c0de1",
    ),
    *("sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "blake3:af1349b9f5f9a1a6"),
    *("/home/ada/tokens/train_512.bin", "s3://bucket/key/secret_sauce.txt", "results/train/251121-120000"),
    *(
        "https://host:8080/a@b",
        "https://host/x?page=2&key=name&sort=auth",
        "ssh://git@github.com/a/b",
        "git@host:a/b.git",
    ),
    *(
        "https://ada@host/x",
        "docker run -u 1000:1000 -p 8080:80 image",
        "curl -u me https://h",
        "a: b@c, 12:30:15",
    ),
    *(
        "epoch 3 loss=0.1234 lr=0.001",
        "attention_mask: (8, 512)",
        "passed=3 failed=0",
        "auth=ldap",
        "compass=north",
    ),
    *(
        "sk-learn-contrib-and-more-words-here",
        "task-learning-with-sklearn-and-more-words",
        "train_key-value-memory",
    ),
    *(
        "550e8400-e29b-41d4-a716-446655440000",
        "resnet50-19c8e357.pth",
        "params=12345678 tokens/s=3400",
        "PASSED test_key",
    ),
    *("secretary=Ada", "monkey=1", "author='Ada'", "turkey: 3", "n_secret_layers=3", "password: <redacted>"),
)


@pytest.mark.parametrize("text", HARMLESS)
def test_harmless_texts_stay(text: str) -> None:
    """Words of the trade, hashes, paths, source and prose stay to the letter, and so do words from the environment."""
    redactor = Redactor()
    redactor.learn_environment({"DB_PASSWORD": "token", "KEY_FILE": "/home/ada", "API_KEY": "resnet"})
    assert redactor.text(text) == text
    assert redactor.mapping({"note": text}) == {"note": text}


@pytest.mark.parametrize("name", FILES)
def test_files_that_hold_keys(name: str) -> None:
    """They are known by their names, whatever their case and folder."""
    assert is_secret_file(name)
    assert is_secret_file(f"a/b/{name.upper()}")


@pytest.mark.parametrize(
    "name",
    [
        *("tokenizer.json", "special_tokens.txt", "keys.npy", "secret_layers.py", "train.py", ".env.example"),
        *(
            "credentials/provider.py",
            "environment.yml",
            "monkey.png",
            "passport.csv",
            "keyboard.key/notes.txt",
        ),
    ],
)
def test_other_files(name: str) -> None:
    """What only resembles them is recorded."""
    assert not is_secret_file(name)


SPLIT = ("{a}\n{b}", "| {a} |\n| {b} |", "'{a}'\n  '{b}'", '"{a}" \\\r\n    "{b}"', "{a} +\n{b}")


@pytest.mark.parametrize("text", SPLIT)
def test_a_known_secret_split_over_lines(text: str) -> None:
    """A secret that was met is recognised where it is wrapped; the number of lines stays."""
    redactor = Redactor()
    redactor.learn({"password": "hunter22+and/more=="})
    shown = redactor.text("x\n" + text.format(a="hunter22+a", b="nd/more==") + "\ny")
    assert "hunter" not in shown
    assert "more" not in shown
    assert shown.count("\n") == text.count("\n") + 2


@pytest.mark.parametrize(
    "secret", ["it's\"both\\ways", "tab\there+1", "naïve-ключ-7", "a&b<c>d e/f%g", "l1\nl2\nl3"]
)
def test_a_known_secret_escaped(secret: str) -> None:
    """Written by repr, as bytes, as JSON, as JSON in JSON or in an address, a known secret is recognised."""
    from html import escape
    from urllib.parse import quote, quote_plus

    redactor = Redactor()
    redactor.learn({"password": secret})
    encoders = (str, repr, json.dumps, lambda s: json.dumps(json.dumps(s)), quote, quote_plus, escape)
    for encode in (*encoders, lambda s: repr(s.encode())):
        shown = redactor.text(f"<{encode(secret)}>")
        assert REDACTED in shown, encode
        assert not re.search(r"both|here|naïve|l2|c>d", shown), shown


def test_captured_lines_know_what_was_learned_since(tmp_path: Path) -> None:
    """A secret split over two printed lines goes from the captured output; later lessons are heard."""
    redactor = Redactor()
    log = tee.Log(tmp_path / "run.log", redactor.text)
    redactor.learn({"password": "hunter22andmore"})
    log.feed("stdout", b"x hunter22\nandmore y\nz\n")
    log.end()
    assert (tmp_path / "run.log").read_text().splitlines() == [f"x {REDACTED}", f"{REDACTED} y", "z"]
