"""Layers laid on each other: the upper wins, remembers what it beat, and files can be merged in any grouping."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runctx.config.layers import (
    DELETE,
    REPLACE,
    Branch,
    Layer,
    Leaf,
    Setting,
    at,
    below,
    dotted,
    leaves,
    merge,
    plain,
    tree,
)
from runctx.errors import ConfigError

KEYS = st.sampled_from(["a", "b", "c", 1])
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(0, 9), st.just([1, {"a": 2}]), st.just("${a}"))
MARKERS = st.one_of(
    st.just({}),
    st.just({}),
    st.just({REPLACE: True}),
    st.just({REPLACE: False}),
    st.just({DELETE: True}),
    st.lists(KEYS, max_size=2).map(lambda keys: {DELETE: keys}),
)


def mappings(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[Any, Any]]:
    return st.builds(
        lambda markers, rest: {**markers, **rest}, MARKERS, st.dictionaries(KEYS, inner, max_size=3)
    )


LAYERS = mappings(st.recursive(SCALARS, mappings, max_leaves=6))


def layer(name: str) -> Layer:
    return Layer(kind="config file", name=name)


def read(values: dict[Any, Any], name: str = "x.yaml") -> Branch:
    return tree(values, layer(name))


def laid(lower: Any, upper: Any) -> Any:
    """The meaning of one layer on plain values, written down a second time and without trees."""
    if not isinstance(upper, dict):
        return upper
    result = dict(lower) if isinstance(lower, dict) else {}
    if upper.get(REPLACE) is True or upper.get(DELETE) is True:
        result = {}
    for key in upper[DELETE] if isinstance(upper.get(DELETE), list) else []:
        result.pop(key, None)
    for key, value in upper.items():
        if key in (REPLACE, DELETE):
            continue
        if ends(value):
            result.pop(key, None)
        else:
            result[key] = laid(result.get(key), value)
    return result


def ends(value: Any) -> bool:
    """Whether a mapping says nothing but `_delete_: true`."""
    if not isinstance(value, dict) or value.get(DELETE) is not True:
        return False
    return all(key in (REPLACE, DELETE) or ends(inner) for key, inner in value.items())


def shape(branch: Branch) -> Any:
    return (
        branch.whole,
        branch.removed,
        {key: child if isinstance(child, tuple) else shape(child) for key, child in branch.children.items()},
    )


@given(st.lists(LAYERS, min_size=1, max_size=4))
def test_merging_means_what_the_markers_say(stack):
    """Layers laid one after the other give what a naive fold over plain dicts gives."""
    merged, expected = Branch(), {}
    for values in stack:
        merged, expected = merge(merged, read(values)), laid(expected, values)
    assert plain(merged) == expected


@given(LAYERS, LAYERS, LAYERS, LAYERS)
def test_merging_is_associative(a, b, c, d):
    """However layers are grouped when they are merged, the values are the same."""
    a, b, c, d = (read(values) for values in (a, b, c, d))
    expected = plain(merge(merge(merge(a, b), c), d))
    assert plain(merge(a, merge(merge(b, c), d))) == expected
    assert plain(merge(a, merge(b, merge(c, d)))) == expected
    assert plain(merge(merge(a, b), merge(c, d))) == expected


@given(LAYERS, LAYERS)
def test_merging_modifies_neither(a, b):
    """Both trees can be used again after they were merged."""
    lower, upper = read(a), read(b)
    before = shape(lower), shape(upper)
    merge(lower, upper)
    assert (shape(lower), shape(upper)) == before


@given(st.lists(LAYERS, min_size=1, max_size=4))
def test_the_winner_is_the_last_that_set_the_key(stack):
    """The last setting of each leaf is that of the highest layer with this key; those below it stand in order."""
    merged = Branch()
    for number, values in enumerate(stack):
        merged = merge(merged, read(values, str(number)))
    own = [dict(leaves(read(values))) for values in stack]
    for path, leaf in leaves(merged):
        numbers = [int(setting.layer.name) for setting in leaf]
        assert numbers == sorted(set(numbers))
        assert numbers[-1] == max(number for number, said in enumerate(own) if path in said)
        assert all(
            own[number][path][0].value == setting.value for number, setting in zip(numbers, leaf, strict=True)
        )


@given(LAYERS, LAYERS, st.lists(KEYS, max_size=3))
def test_mounting_and_merging_commute(a, b, path):
    """Two trees merged and then mounted are the two mounted trees merged."""
    path = tuple(path)
    mounted = merge(below(read(a), path), below(read(b), path))
    assert plain(mounted) == plain(below(merge(read(a), read(b)), path))
    assert isinstance(at(mounted, path), Branch)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"opt": {REPLACE: "yes"}}, "x.yaml:3: _replace_ cannot be 'yes'"),
        ({"opt": {REPLACE: ["lr"]}}, "x.yaml:3: _replace_ cannot be ['lr']"),
        ({"opt": {DELETE: "lr"}}, "x.yaml:3: _delete_ cannot be 'lr'"),
        ({"opt": {DELETE: [["lr"]]}}, "x.yaml:3: _delete_ cannot be [['lr']]"),
        ({"opt": {DELETE: None}}, "x.yaml:3: _delete_ cannot be None"),
    ],
)
def test_a_wrong_marker_is_named(values, said):
    """A marker with a value it cannot have is refused with file, line and what is right."""
    (marker,) = values["opt"]
    with pytest.raises(ConfigError) as error:
        tree(values, layer("x.yaml"), {("opt", marker): 3})
    assert error.value.message == said
    assert f"{marker}: true" in error.value.hint


def test_a_mapping_that_contains_itself_is_refused():
    """A cycle of dicts is an error, not a crash."""
    values: dict[str, Any] = {}
    values["self"] = values
    with pytest.raises(ConfigError, match="contains itself"):
        read(values)


@given(
    st.lists(st.lists(st.one_of(st.text(max_size=4), st.integers(), st.booleans(), st.none())), max_size=20)
)
def test_different_paths_have_different_texts(paths):
    """No two paths are written alike."""
    keyed = {tuple((type(key), key) for key in path) for path in paths}
    assert len({dotted(tuple(path)) for path in paths}) == len(keyed)


def test_where_a_setting_is():
    """A setting says its file, and the line where it is known."""
    assert Setting(1, layer("a.yaml"), 7).where == "a.yaml:7"
    assert Setting(1, layer("argument 3")).where == "argument 3"


def _said(leaf: Branch | Leaf | None) -> list[tuple[str, Any]]:
    assert isinstance(leaf, tuple)
    return [(setting.layer.name, setting.value) for setting in leaf]
