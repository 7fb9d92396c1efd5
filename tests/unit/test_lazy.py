import pytest

from coopt_fl.core.lazy import Lazy


def test_values_are_made_whenever_they_are_looked_at_and_only_of_the_names() -> None:
    made: list[str] = []

    def make(name: str) -> str:
        made.append(name)
        return name.upper()

    lazy = Lazy(["b", "a"], make)
    assert (list(lazy), len(lazy), lazy.keys() >= {"a"}) == (["b", "a"], 2, True)
    assert made == []
    assert dict(lazy) == {"b": "B", "a": "A"}
    with pytest.raises(KeyError):
        lazy["c"]
    assert "c" not in made
