"""``probe.json``, which ``coopt probe`` writes beside a checkpoint."""

from pathlib import Path

import pytest

from coopt_fl.config.schema import DataConfig
from coopt_fl.core.errors import ConfigError
from coopt_fl.students.judgements import JUDGEMENTS, judgements, keep_judgement

HERE, ELSEWHERE = DataConfig("digits"), DataConfig("digits", limit=9)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(b"a student")
    return path


def test_one_judgement_for_each_set_of_images(checkpoint: Path) -> None:
    assert judgements(checkpoint) == []
    for data, accuracy in ((HERE, 0.5), (ELSEWHERE, None), (HERE, 0.75)):
        assert keep_judgement(checkpoint, data, {"lbfgs": accuracy}) == checkpoint.with_name(
            JUDGEMENTS
        )
    known = {one.data["limit"]: one.accuracy["lbfgs"] for one in judgements(checkpoint)}
    assert known == {9: None, None: 0.75}


def test_those_of_a_student_that_was_replaced_are_forgotten(checkpoint: Path) -> None:
    keep_judgement(checkpoint, HERE, {"lbfgs": 0.5})
    checkpoint.write_bytes(b"another student")
    assert judgements(checkpoint) == []
    keep_judgement(checkpoint, ELSEWHERE, {"lbfgs": 0.25})
    assert [one.accuracy for one in judgements(checkpoint)] == [{"lbfgs": 0.25}]


def test_a_damaged_file_is_named_and_replaced_by_the_next_probe(checkpoint: Path) -> None:
    checkpoint.with_name(JUDGEMENTS).write_text('{"judgements": 3}')
    with pytest.raises(ConfigError, match=r"probe\.json is damaged .*`coopt probe` again"):
        judgements(checkpoint)
    keep_judgement(checkpoint, HERE, {"lbfgs": 0.5})
    assert len(judgements(checkpoint)) == 1


def test_where_nothing_can_be_written_the_result_is_not_lost(checkpoint: Path) -> None:
    place = checkpoint.with_name(JUDGEMENTS)
    place.mkdir()
    assert keep_judgement(checkpoint, HERE, {"lbfgs": 0.5}) is None
    assert list(place.iterdir()) == []
