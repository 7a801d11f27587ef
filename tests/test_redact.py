"""Secrets stay out of whatever is written, and words of the trade stay in."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runctx import config, lock, yamlfile
from runctx.redact import REDACTED, Redactor
from tests.strategies import names, nested, numbers
from tests.test_lock import LOCK

SECRET_KEYS = """
password db_password dbPassword DB_PASSWORD db-password dbpassword password1 passwd userpwd passphrase
passcode secret secrets client_secret clientSecret secret_key secret_id api_key apiKey APIKey
OPENAI_API_KEY api_keys apikey access_key AWS_SECRET_ACCESS_KEY private_key hf_token token token2
HF_TOKEN hfToken api-token auth_token access_tokens refresh_token aws_session_token credentials
aws.credentials smtp_pass authorization cookie wandb_key basic_auth connection_string
""".split()  # noqa: SIM905 - a list of thirty lines would show less

HARMLESS_KEYS = """
max_tokens maxTokens tokens num_tokens tokenizer tokenizer_name token_ids token_dim pad_token
pad_token_id eos_token cls_token use_cls_token image_tokens tokens_per_batch per_token max_token
mask_token tokenization keys key key_dim num_keys key_size sort_key prng_key query_key_value keypoints
keyboard monkey cookiecutter author authority auth attention_mask pass_rate forward_pass n_pass passes
compass bypass num_secret_layers secretary secretion_rate password_policy password_length password_file
credential_type pin_memory
""".split()  # noqa: SIM905

# texts that are nobody's ordinary word, nor part of what a lock or a replaced secret says anyway
secrets = st.text("ABCDEFGHJKLMNPQRSTUVWXYZ0123456789!$%&+-_.", min_size=12, max_size=40)


@pytest.mark.parametrize("key", SECRET_KEYS)
def test_secret_keys(key: str) -> None:
    """A key that names a secret is one, in every spelling and at every depth."""
    assert Redactor().is_secret(key)
    assert Redactor().is_secret(f"a.b.{key}")
    assert Redactor().mapping({"a": [{key: "x"}]}) == {"a": [{key: REDACTED}]}


@pytest.mark.parametrize("key", HARMLESS_KEYS)
def test_words_of_the_trade_are_no_secrets(key: str) -> None:
    """Hyperparameters whose names resemble secrets are recorded: they may explain why a result changed."""
    assert not Redactor().is_secret(key)
    assert Redactor().mapping({key: {"a": 512}}) == {key: {"a": 512}}


def test_patterns_name_further_secrets() -> None:
    """A project's globs match the dotted key or its last part."""
    redactor = Redactor(["pin", "site.*.id"])
    assert [redactor.is_secret(k) for k in ("pin", "card.pin", "site.a.id", "site.id", "pins")] == [
        True
    ] * 3 + [False] * 2


@given(st.data(), secrets, st.sampled_from(SECRET_KEYS))
def test_a_secret_is_nowhere(data: st.DataObject, secret: str, key: str) -> None:
    """A value under a secret key is found in no text that is written: configuration, lock, log, or source."""
    around = data.draw(nested(names))
    plain = {
        "note": f"before: {secret}",
        **around,
        "deep": {"list": [{key: data.draw(st.sampled_from([secret, [secret], {"user": {"id": secret}}]))}]},
        "after": [f"{secret}{secret}", {"k": f"x{secret}"}],
    }
    redactor = Redactor()
    shown = redactor.mapping(plain)
    told = [
        config.to_yaml(shown).decode(),
        lock.encode(lock.decode(yamlfile.dump({**lock.to_plain(LOCK), "config": shown}))).decode(),
        redactor.text(f"ValueError: {secret!s} ({secret})\n{secret}"),
        redactor.text(f"x = '{secret}'  # {secret}"),
    ]
    assert not [text for text in told if secret in text]


@given(st.dictionaries(names, st.text(min_size=6, max_size=12), min_size=2, max_size=4))
def test_a_secret_that_begins_another(values: dict[str, str]) -> None:
    """Of secrets that overlap, none leaves its rest behind."""
    long = "".join(values.values()) + "the-rest"
    redactor = Redactor()
    redactor.mapping({"password": list(values.values()), "token": long})
    assert "the-rest" not in redactor.text(f"[{long}]")


@pytest.mark.parametrize(
    "start", ["Bearer ", "token=", "curl --token ", "https://h/?sig=", "export API_KEY="]
)
def test_a_secret_that_is_met_after_a_part_of_it(start: str) -> None:
    """A longer secret around a known one is replaced whole, and known from then on."""
    redactor = Redactor()
    redactor.mapping({"password": "abc123"})
    assert redactor.text(f"abc123, {start}xabc123zzz") == f"{REDACTED}, {start}{REDACTED}"
    assert redactor.text("see xabc123zzz") == f"see {REDACTED}"


@given(nested(names))
def test_nothing_else_changes(value: dict[Any, Any]) -> None:
    """A configuration without secrets comes out as it went in, as a copy; doing it again changes nothing."""
    redactor = Redactor()
    plain = {"x": value}
    shown = redactor.mapping(plain)
    assert redactor.mapping(shown) == shown
    if REDACTED not in repr(shown):
        assert shown == plain
        assert shown is not plain


@given(numbers)
def test_secrets_of_every_type(number: float) -> None:
    """A number, bytes, or a whole mapping under a secret key is replaced; a switch or nothing is none."""
    shown = Redactor().mapping(
        {"password": number, "token": b"x", "secrets": {"a": {"b": 1}}, "api_key": [1]}
    )
    assert shown == {"password": REDACTED, "token": REDACTED, "secrets": REDACTED, "api_key": REDACTED}
    switches = {"use_auth_token": True, "hf_token": None, "password": ""}
    assert Redactor().mapping(switches) == switches


def test_what_is_redacted_already() -> None:
    """A value that was redacted before is no secret itself: text that is redacted twice stays as it is."""
    redactor = Redactor()
    redactor.mapping({"api_key": "hunter22", "password": REDACTED})
    line = redactor.text("key hunter22, token=abcdef123456\n")
    assert line == f"key {REDACTED}, token={REDACTED}\n"
    assert redactor.text(line) == line


def test_a_number_is_found_in_text() -> None:
    """A secret number is remembered as it would be printed."""
    redactor = Redactor()
    redactor.mapping({"password": 12345678})
    assert redactor.text("login 12345678") == f"login {REDACTED}"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:abc@host/db", f"postgresql://me:{REDACTED}@host/db"),
        ("https://me:p@ss:w@host/x?y=1", f"https://me:{REDACTED}@host/x?y=1"),
        ("https://:abc@host", f"https://:{REDACTED}@host"),
        ("see http://a:b@c and http://d:e@f", f"see http://a:{REDACTED}@c and http://d:{REDACTED}@f"),
        ('["http://a:b@c","x@y"]', f'["http://a:{REDACTED}@c","x@y"]'),
        ("https://host:8080/a@b", "https://host:8080/a@b"),
        ("git@host:ada/digits.git", "git@host:ada/digits.git"),
        ("time 12:30, a: b@c", "time 12:30, a: b@c"),
        ("hf_" + "a" * 30, REDACTED),
        ("Bearer ghp_" + "a1" * 18 + ".", f"Bearer {REDACTED}."),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.abc-_def", REDACTED),
        (
            "-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc=\n-----END RSA PRIVATE KEY-----",
            f"{REDACTED}-----END RSA PRIVATE KEY-----",
        ),
        ("AKIA" + "A" * 16, REDACTED),
        ("task-learning-with-sklearn-and-more-words", "task-learning-with-sklearn-and-more-words"),
    ],
)
def test_secrets_known_by_their_shape(text: str, shown: str) -> None:
    """Passwords in addresses and tokens of known shape are replaced; doing it again changes nothing."""
    assert Redactor().text(text) == Redactor().text(shown) == shown


@pytest.mark.parametrize(
    "code",
    [
        "password = 'S'",
        'password: str = "S"',
        "password: str | None = 'S'",
        "hf_token=f'S'",
        "api_key = b'S'",
        'secret = """S"""',
        'login("me", password="S")',
        "db = {'host': 'h', 'password': 'S'}",
        'os.environ["OPENAI_API_KEY"] = "S"',
        "password: str = field(default='S')",
        "cfg.db.password = 'S'",
        'secret = "S\'S"',
        "secret = 'S\\'S'",
    ],
)
def test_literals_in_source(code: str) -> None:
    """A literal beside a secret name is replaced in source text, and known from then on."""
    redactor = Redactor()
    assert redactor.text(code.replace("S", "hunter22")) == code.replace("S'S", "S").replace(
        "S\\'S", "S"
    ).replace("S", REDACTED)
    assert "hunter22" not in redactor.text(f"print: {code.replace('S', 'hunter22')}")


@pytest.mark.parametrize(
    "code",
    [
        "lr = '0.1'",
        "api_key = os.getenv('OPENAI_API_KEY')",
        "pad_token = '<pad>'",
        "x = {'tokens': 'a'}",
        "'a: b'",
    ],
)
def test_other_source_stays(code: str) -> None:
    """Source without secrets is kept to the letter, names of variables that hold them included."""
    assert Redactor().text(code) == code


@pytest.mark.parametrize(
    "text",
    [
        *(
            "a" * 500_000 + "://",
            "a-" * 250_000 + "://x",
            "http://a:" * 50_000,
            "eyJ-" * 100_000,
            "a='" * 100_000,
        ),
        *(
            "password = " + " " * 500_000,
            "token: a|" * 50_000,
            "secret = '" + "\\" * 500_000,
            "sk-" * 100_000,
        ),
    ],
    ids=lambda text: text[:12],
)
def test_hostile_text_takes_no_time_to_speak_of(text: str) -> None:
    """Half a megabyte made to slow a pattern down takes no wait; quadratic time would be hours."""
    Redactor().text(text)


def test_it_travels_to_other_processes() -> None:
    """A copy in another process knows the same secrets."""
    redactor = Redactor(["pin"])
    redactor.mapping({"pin": "hunter22"})
    again = pickle.loads(pickle.dumps(redactor))
    assert again.is_secret("pin")
    assert again.text("hunter22") == REDACTED
