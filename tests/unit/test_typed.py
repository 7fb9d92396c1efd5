"""Data is read back as written, or refused in one sentence that names the field."""

import json
import math
import shutil
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import NoneType, UnionType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from coopt_fl.core.errors import ConfigError, OutputError, ParticipantError, VerificationError
from coopt_fl.core.typed import LATER, Count, Sha256, decode, matching, parse, read, within
from coopt_fl.data.shards import manifest
from coopt_fl.federation import protocol
from coopt_fl.federation.plan import Change
from coopt_fl.optimized.provenance import Provenance
from coopt_fl.optimized.verify import verify
from tests.unit.data.test_shards_refused import MANIFEST
from tests.unit.test_protocol import EXAMPLES, records_of

DATASET = Path(__file__).parents[1] / "fixtures/ef90e68/run/dataset"
CHANGE = Change("bob", [1, 5], ["ann", "cyd"], "it lies", {"distance": [0.5, None]}, rejected=True)


@dataclass(frozen=True)
class Inner:
    sum: Sha256
    rows: Count
    name: Annotated[str, matching("[a-z]+", "a name")]


@dataclass(frozen=True)
class Outer:
    inner: dict[str, Inner]
    size: tuple[int, int] | None
    share: Annotated[float, within(0, 1)]
    ids: NDArray[np.int64]
    fine: bool
    rest: dict[str, Any]


SUM = "0" * 64
INNER = {"sum": SUM, "rows": 3, "name": "x"}
OUTER: dict[str, Any] = {
    "inner": {"a": INNER},
    "size": [2, 3],
    "share": 1,
    "ids": np.arange(3),
    "fine": True,
    "rest": {"x": [None, {"y": 1.5}]},
}


def test_plain_values_become_dataclasses() -> None:
    found = decode(Outer, OUTER)
    assert found.inner == {"a": Inner(SUM, 3, "x")}
    assert (found.size, found.share, found.fine) == ((2, 3), 1.0, True)
    assert type(found.share) is float
    assert found.ids is OUTER["ids"]  # a payload's targets are not copied
    assert found.rest == OUTER["rest"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"size": [2]}, "size is [2], not a list of 2"),
        ({"size": [1 << 63, 2]}, "size[0] is 9223372036854775808, not from -92"),
        ({"share": "1"}, "share is '1', not float"),
        ({"share": 10**400}, "share is 1000"),
        ({"fine": 1}, "fine is 1, not bool"),
        ({"ids": np.zeros(3, np.int32)}, "ids is int32, not an array of int64"),
        ({"ids": np.array(3)}, "ids is a single number"),
        ({"rest": {"x": "\ud800"}}, "rest['x'] cannot be written as JSON"),
        ({"inner": {"a": None}}, "inner['a'] is None, not dict"),
        ({"inner": {"a": INNER | {"more": 1}}}, "inner['a']: keys differ, ['more']"),
        ({"inner": {"a": INNER | {"rows": -1}}}, "inner['a'].rows is -1, not from 0 to"),
        ({"inner": {"a": INNER | {"name": "É"}}}, "inner['a'].name is 'É', not a name"),
        ({"inner": {"\udfff": INNER}}, "inner is '\\udfff', not text"),
        ({"more": 1}, "it: keys differ, ['more']"),
    ],
)
def test_the_sentence_names_the_field(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError) as refused:
        decode(Outer, OUTER | change)
    assert says in str(refused.value)
    str(refused.value).encode()


def test_a_file_is_read_or_refused_with_the_error_and_advice_given(tmp_path: Path) -> None:
    path = tmp_path / "some.json"
    path.write_text('{"a": [1, 2]}')
    assert read(path, dict[str, list[int]]) == {"a": [1, 2]}
    with pytest.raises(
        ConfigError, match=r"some\.json is damaged \(it\['a'\]\[0\] .*run the command"
    ):
        read(path, dict[str, list[str]])
    path.write_text("{")
    with pytest.raises(OutputError, match=r"some\.json is damaged \(Expecting .*; give another"):
        read(path, dict[str, Any], OutputError, "give another --out")
    with pytest.raises(OutputError, match="no regular file"):
        read(tmp_path, dict[str, Any], OutputError, "give another --out")


@given(st.binary() | st.text().map(str.encode) | st.just(b"[" * 200_000))
def test_any_bytes_are_refused(content: bytes) -> None:
    for kind in (Provenance, manifest.Manifest, Change):
        with pytest.raises(ValueError):
            parse(kind, content)


def read_provenance(tree: Any) -> Provenance:
    """Read the provenance and verify the dataset by it, which may report faults but not fail."""
    with TemporaryDirectory() as name:
        folder = Path(shutil.copytree(DATASET, Path(name) / "dataset"))
        (folder / "provenance.json").write_text(json.dumps(tree))
        return verify(folder)[0]


def read_manifest(tree: Any) -> manifest.Manifest:
    content = json.dumps(tree, indent=1).encode() + b"\n"
    found = manifest.parse(content)
    assert found.encode() == content
    for key in ("format", "complete"):
        del tree[key]
    return found


@dataclass(frozen=True)
class Case:
    """A valid value, how it is read back, and the only error that this may raise."""

    kind: type
    tree: Any
    read: Callable[[Any], Any]
    error: type[Exception]


def of_message(example: Any) -> Case:
    kind = type(example)
    tree = {k: vars(v) if is_dataclass(v) else v for k, v in vars(example).items()}
    return Case(kind, tree, lambda tree: protocol.decode(kind, records_of(tree)), ParticipantError)


CASES = [
    Case(
        Provenance,
        json.loads((DATASET / "provenance.json").read_bytes()),
        read_provenance,
        VerificationError,
    ),
    Case(manifest.Manifest, json.loads(MANIFEST.encode()), read_manifest, ValueError),
    Case(Change, asdict(CHANGE), lambda tree: decode(Change, tree), ValueError),
    *map(of_message, EXAMPLES),
]

ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=5)
"""Text, including lone surrogates, which JSON can contain."""
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3),
    max_leaves=6,
)
ARRAYS = st.sampled_from([np.float16, np.float32, np.int64]).flatmap(
    lambda dtype: arrays(dtype, array_shapes(min_dims=0, max_dims=3, max_side=3))
)
NEAR: dict[type, list[Any]] = {
    bool: [0, 1],
    float: [3, 10**400, True, math.nan],
    int: [True, 1.0, -1, 1 << 63, -(1 << 63) - 1],
    str: ["", "a\udfff", "A" * 64],
}
"""Values that could be mistaken for a value of the type."""


def instead_of(old: Any) -> st.SearchStrategy[Any]:
    if isinstance(old, np.ndarray):
        return st.sampled_from([np.zeros((), old.dtype), old.astype(np.int32)]) | ARRAYS | VALUES
    return st.sampled_from(NEAR[type(old)]) | VALUES if type(old) in NEAR else VALUES


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every container in a tree with each of its keys, and with a new one."""
    keys = list(value) if isinstance(value, dict) else range(len(value))
    yield value, "new" if isinstance(value, dict) else len(value)
    for key in keys:
        yield value, key
        if isinstance(value[key], dict | list):
            yield from places(value[key])


def change(tree: Any, data: st.DataObject) -> None:
    """Replace, add or remove a value anywhere."""
    node, key = data.draw(st.sampled_from(list(places(tree))))
    known = key in node if isinstance(node, dict) else key < len(node)
    if known and data.draw(st.integers(0, 9)) == 0:
        del node[key]
    elif known or isinstance(node, dict):
        node[key] = data.draw(instead_of(node.get(key) if isinstance(node, dict) else node[key]))
    else:
        node.append(data.draw(VALUES))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.kind.__name__)
def test_a_valid_value_is_read_back(case: Case) -> None:
    tree = deepcopy(case.tree)
    assert fits(case.kind, case.read(tree), tree)


@pytest.mark.whole
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.kind.__name__)
@settings(max_examples=200)
@given(data=st.data())
def test_whatever_is_changed_is_read_or_refused(case: Case, data: st.DataObject) -> None:
    tree = deepcopy(case.tree)
    change(tree, data)
    try:
        found = case.read(tree)
    except case.error:
        return
    assert fits(case.kind, found, tree)
    plain = {key: value for key, value in tree.items() if not isinstance(value, np.ndarray)}
    json.dumps(plain, ensure_ascii=False).encode()


def fits(hint: Any, found: Any, told: Any) -> bool:
    """Return whether ``found`` is fully of type ``hint`` and has the values of ``told``."""
    origin, args = get_origin(hint), get_args(hint)
    if is_dataclass(hint):
        kinds = get_type_hints(hint)
        later = {one.name for one in fields(hint) if LATER in one.metadata}
        return (type(found), told.keys() | later) == (hint, kinds.keys()) and all(
            fits(kinds[name], getattr(found, name), told[name]) for name in told
        )
    if origin is UnionType:
        (kind,) = (one for one in args if one is not NoneType)
        return (found is None and told is None) or fits(kind, found, told)
    if origin is dict:
        return (type(found), type(told), found.keys()) == (dict, dict, told.keys()) and all(
            fits(args[0], key, key) and fits(args[1], found[key], told[key]) for key in found
        )
    if origin in (list, tuple):
        kinds = args if origin is tuple else args * len(told)
        return (type(found), type(told), len(found)) == (origin, list, len(told)) and all(
            map(fits, kinds, found, told)
        )
    if origin is np.ndarray:
        dtype = get_args(args[1])[0]
        same = found.dtype == told.dtype == dtype and np.array_equal(found, told, equal_nan=True)
        return same and found.ndim > 0
    if hint is Any:
        return json.dumps(found) == json.dumps(told)
    kinds = (int, float) if hint is float else (hint,)
    equal = found == told or (found != found and told != told)
    within_int64 = type(found) is not int or -(2**63) <= found < 2**63
    return type(found) is hint and type(told) in kinds and equal and within_int64
