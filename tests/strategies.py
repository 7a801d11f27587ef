"""What can stand in a lock or a configuration, the odd included."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from hypothesis import strategies as st

from runctx.model import (
    Cell,
    Command,
    Data,
    Environment,
    Failure,
    Lock,
    Omission,
    Origin,
    Session,
    Source,
    Summary,
    Tasks,
)

ODD_TEXTS = (
    *(
        "",
        " ",
        "\t",
        "\n",
        "\n\n",
        " \n",
        "\n ",
        "a\n b",
        " a\nb",
        "\ta\nb",
        "a\n\tb",
        "a\n\n",
        "  \n \n",
        "a\n  \nb",
    ),
    *(
        "a\r\nb",
        "a\rb",
        "\x85",
        "a\n\x85b",
        "a\u2028b",
        "a\n\u2028b",
        "\u2029\n",
        "\ufeff",
        "\ufeffa\nb",
        "a\n\ufeffb",
    ),
    *(
        "\x00",
        "a\n\x00b",
        "\x07",
        "\x7f",
        "\x80",
        "\x9f",
        "\u200b",
        "\ue000",
        "\ufffe",
        "\uffff",
        "\U0001f600",
    ),
    *(
        "1234e567",
        "1e5",
        "0o17",
        "0x1F",
        "0b1",
        "017",
        "12:30",
        "-1:2:3",
        "1_000",
        "1__0",
        "-_1",
        "+_1",
        "._",
        "._5",
    ),
    *(
        ".5",
        "+1",
        "1.",
        "-0o7",
        "1,000",
        "inf",
        "nan",
        ".inf",
        "-.Inf",
        ".NaN",
        "2001-01-01",
        "2001-01-01 1:2:3",
    ),
    *(
        "yes",
        "No",
        "on",
        "OFF",
        "y",
        "N",
        "true",
        "False",
        "null",
        "Null",
        "NULL",
        "~",
        "=",
        "<<",
        "-",
        "?",
        "_",
    ),
    *(
        "- a",
        "a: b",
        "a:",
        ":a",
        "# x",
        "a #b",
        "'",
        '"',
        "%x",
        "@x",
        "`x",
        "[",
        "]",
        "{a",
        "|",
        ">",
        "!x",
        "&x",
        "*x",
    ),
    *(
        "---",
        "...",
        "--- a",
        "a\n---\nb",
        "---\na",
        "a\n...\nb",
        "%YAML 1.1\n",
        "? a",
        ", ",
        "a, b",
        "${x}",
        r"\${x}",
    ),
    *("\\", "\\\\", "\\n", "???", "x" * 300, "word " * 60),
)

texts = st.one_of(st.sampled_from(ODD_TEXTS), st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
names = st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=8)
numbers = st.one_of(st.integers(-(2**70), 2**70), st.floats(allow_nan=False))
scalars = st.one_of(st.none(), st.booleans(), numbers, texts)
config_keys = st.one_of(texts, st.integers(-(2**70), 2**70), st.booleans(), st.floats(allow_nan=False))


def nested(
    keys: st.SearchStrategy[Any], leaves: st.SearchStrategy[Any] = scalars
) -> st.SearchStrategy[dict[Any, Any]]:
    """Mappings of mappings and lists."""
    values = st.recursive(
        leaves,
        lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=3)),
        max_leaves=10,
    )
    return st.dictionaries(keys, values, max_size=4)


plain_configs = nested(st.one_of(config_keys, st.none()))
"""Whatever a lock may hold under `config`."""

_times = st.datetimes(datetime(1900, 1, 2), datetime(8999, 12, 30), timezones=st.just(UTC))
_sizes = st.integers(0, 2**62)
_text_or_none = st.none() | texts
_text_to_text = st.dictionaries(texts, texts, max_size=3)


def _few(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(strategy, max_size=2).map(tuple)


_origins = st.lists(
    st.builds(
        Origin,
        layer=texts,
        where=texts,
        value=scalars | st.binary(max_size=20) | plain_configs | st.lists(scalars, max_size=3),
        reads=_few(texts),
    ),
    min_size=1,
    max_size=2,
).map(tuple)
_omissions = _few(st.builds(Omission, what=texts, why=texts))
_data = st.builds(
    Data,
    path=texts,
    kind=st.sampled_from(["file", "folder", "glob"]),
    digest=_text_or_none,
    bytes=_sizes,
    files=_sizes,
    strength=st.sampled_from(["content", "stat", "skipped"]),
    manifest=_text_or_none,
    changed_during_run=st.booleans(),
    run=_text_or_none,
)


_tasks = st.builds(
    Tasks,
    name=texts,
    function=texts,
    into=_text_or_none,
    launcher=texts,
    total=_sizes,
    done=_sizes,
    failed=_sizes,
    seconds=st.floats(0, 1e12),
    longest=st.floats(0, 1e12),
    workers=_sizes,
    commits=_few(texts),
    failed_keys=_few(texts),
    digest=_text_or_none,
    results=_text_or_none,
)
_numbers = st.floats(allow_nan=False)  # equal locks must compare as equal
_metrics = st.dictionaries(
    texts,
    st.builds(Summary, last=_numbers, min=_numbers, max=_numbers, points=st.integers(1, 2**62)),
    max_size=3,
)
_sessions = st.builds(
    Session,
    started=_times,
    seconds=st.none() | st.floats(0, 1e12),
    status=texts,
    commit=_text_or_none,
    host=texts,
    pid=_sizes,
)


def _locks(upstream: st.SearchStrategy[tuple[Lock, ...]]) -> st.SearchStrategy[Lock]:
    return st.builds(
        Lock,
        runctx=texts,
        id=texts,
        stage=texts,
        status=st.sampled_from(["running", "submitted", "done", "failed", "interrupted"]),
        started=_times,
        resumed=st.none() | _times,
        seconds=st.none() | st.floats(0, 1e12),
        save_dir=texts,
        error=st.none() | st.builds(Failure, type=texts, message=texts, traceback=texts),
        command=st.builds(
            Command,
            kind=st.sampled_from(["script", "module", "notebook", "console"]),
            entry=texts,
            argv=_few(texts),
            cwd=texts,
            python=texts,
            host=texts,
            pid=_sizes,
            user=texts,
            slurm_job=_text_or_none,
        ),
        seed=st.none() | st.integers(-(2**70), 2**70),
        config=plain_configs,
        config_digest=_text_or_none,
        config_structure=_text_or_none,
        origins=st.dictionaries(texts, _origins, max_size=3),
        keys_read=_few(texts),
        source=st.builds(
            Source,
            repository=_text_or_none,
            branch=_text_or_none,
            head=_text_or_none,
            commit=_text_or_none,
            tree=_text_or_none,
            dirty=st.booleans(),
            files=_text_to_text,
            copies=_text_or_none,
            cells=_few(st.builds(Cell, number=_sizes, code=texts)),
            skipped=_omissions,
        ),
        inputs=_few(_data),
        outputs=_few(_data),
        parents=_few(texts),
        upstream=upstream,
        environment=st.builds(
            Environment,
            python=texts,
            platform=texts,
            cpu=texts,
            cpus=_sizes,
            memory=_sizes,
            devices=_few(texts),
            packages=_text_to_text,
            variables=_text_to_text,
        ),
        tasks=_few(_tasks),
        metrics=_metrics,
        sessions=_few(_sessions),
        omissions=_omissions,
    )


locks = _locks(st.one_of(st.just(()), _few(_locks(st.just(())))))
