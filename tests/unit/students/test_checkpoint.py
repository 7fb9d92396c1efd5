import pickle
import resource
from contextlib import contextmanager

import pytest
import torch

from coopt_fl.core.errors import ConfigError, OutputError
from coopt_fl.students.checkpoint import LoadedStudent, load_student, save_student
from coopt_fl.students.images import normalise, resizing
from coopt_fl.students.models import build_student

PREPROCESS = resizing(8, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))


def saved(path, seed=0, name="convnet:4"):
    student = build_student(name, 8, seed)
    meta = {"epochs": 1, "data": {"source": "digits"}}
    save_student(path, LoadedStudent(student, PREPROCESS, meta))
    return student


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (5, 3, 8, 8), dtype=torch.uint8, generator=generator)


def test_a_round_trip_gives_the_same_features(tmp_path, images):
    student = saved(tmp_path / "deep" / "er" / "c.pt").eval()
    loaded = load_student(tmp_path / "deep" / "er" / "c.pt")
    assert not loaded.model.training
    model = loaded.model
    assert (model.name, model.image_size, model.width) == ("convnet:4", 8, 16)
    assert loaded.preprocess == PREPROCESS
    assert loaded.meta == {"epochs": 1, "data": {"source": "digits"}}
    found = loaded.features(images)
    assert found.dtype == torch.float32 and found.shape == (5, 16)
    with torch.no_grad():
        torch.testing.assert_close(
            found, student(normalise(images / 255, PREPROCESS)), rtol=1e-4, atol=1e-5
        )


def test_features_of_larger_images_are_those_of_the_resized_ones(tmp_path, images):
    saved(tmp_path / "c.pt")
    loaded = load_student(tmp_path / "c.pt")
    large = images.repeat_interleave(3, 2).repeat_interleave(3, 3)
    assert loaded.features(large).shape == (5, 16)
    mixed = loaded.features([images[0], large[0]])
    torch.testing.assert_close(mixed[0], loaded.features(images[:1])[0])


@pytest.mark.parametrize("part", [0, 1, 100, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused(tmp_path, part):
    saved(tmp_path / "c.pt")
    whole = (tmp_path / "c.pt").read_bytes()
    keep = part if isinstance(part, int) else int(part * len(whole))
    (tmp_path / "c.pt").write_bytes(whole[:keep])
    with pytest.raises(ConfigError, match="not a checkpoint of a student"):
        load_student(tmp_path / "c.pt")


class Evil:
    def __reduce__(self):
        return (print, ("code from a checkpoint was run",))


FOREIGN = {
    "text": b"hello\n",
    "an image": b"\x89PNG\r\n\x1a\n",
    "empty pickle": pickle.dumps({}),
    "code": pickle.dumps(Evil()),
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_a_foreign_file_is_refused_and_none_of_its_code_is_run(tmp_path, content, capsys):
    (tmp_path / "c.pt").write_bytes(content)
    with pytest.raises(ConfigError, match="not a checkpoint of a student"):
        load_student(tmp_path / "c.pt")
    assert "was run" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [[1], {"weights": {}}, {"format": 0}, {"format": 1}])
def test_another_content_of_torch_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "c.pt")
    with pytest.raises(ConfigError, match="not a checkpoint of a student"):
        load_student(tmp_path / "c.pt")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"there is no checkpoint .*c\.pt.*coopt train"):
        load_student(tmp_path / "c.pt")
    with pytest.raises(ConfigError, match="there is no checkpoint"):
        load_student(tmp_path)


def test_weights_of_another_network_are_refused(tmp_path):
    saved(tmp_path / "c.pt")
    content = torch.load(tmp_path / "c.pt", weights_only=True)
    torch.save(content | {"name": "convnet:8"}, tmp_path / "c.pt")
    with pytest.raises(ConfigError, match="do not fit 'convnet:8'"):
        load_student(tmp_path / "c.pt")


@contextmanager
def disk_with_room_for(size):
    """Limit the size of files, so that writing fails midway with an OSError, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_the_old_checkpoint_and_nothing_else(tmp_path):
    saved(tmp_path / "c.pt", name="convnet:64")
    before = (tmp_path / "c.pt").read_bytes()
    with (
        disk_with_room_for(len(before) // 2),
        pytest.raises(OutputError, match=r"cannot write .*c\.pt: File too large"),
    ):
        saved(tmp_path / "c.pt", seed=1, name="convnet:64")
    assert (tmp_path / "c.pt").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["c.pt"]
