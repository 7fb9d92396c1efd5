import dataclasses

import pytest
import torch

from coopt_fl.config.schema import Config, DataConfig, StudentConfig
from coopt_fl.core.errors import ConfigError, DataError, OutputError
from coopt_fl.data import open_source
from coopt_fl.students import images
from coopt_fl.students import probe as judge
from coopt_fl.students.checkpoint import load_student
from coopt_fl.students.images import Squares
from coopt_fl.students.loop import Training
from coopt_fl.students.probe import probe_student, random_student
from coopt_fl.students.train import train_student


@pytest.fixture
def train(planted, data, student, tmp_path):
    """Train ``student``, with changes, in a folder named ``name``; return the result."""

    def call(name="a", seed=0, progress=None, **changes):
        config = Config(seed, data, student=dataclasses.replace(student, **changes))
        return train_student(planted, config, tmp_path / name, devices=1, progress=progress)

    return call


class StoppedError(Exception):
    """Simulates the end of the process."""


def stop_after(epochs):
    def progress(point, _total):
        if point.epoch == epochs:
            raise StoppedError

    return progress


def weights(result):
    return load_student(result.checkpoint).model.state_dict()


def equal(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def test_a_folder_is_trained_in_by_one_process_at_a_time(train):
    def another(point, _total):
        with pytest.raises(OutputError, match="in use by another process"):
            train(epochs=3)

    assert len(train(epochs=2, progress=another).curve) == 2
    assert len(train(epochs=3).curve) == 3


@pytest.mark.parametrize("loss", ["cosine", "mse"])
def test_planted_targets_are_learned(train, loss):
    """A student that ignores the image would have a loss of 1: targets are centred, of unit RMS."""
    result = train(loss=loss, epochs=12, augment="none")
    assert result.curve[-1].loss < 0.5
    assert len(result.curve) == 12


def test_a_trained_student_is_better_than_a_random_one(train, data, student):
    result = train(epochs=12, augment="none")
    untrained = probe_student(random_student(student, data, seed=0), data)
    assert probe_student(load_student(result.checkpoint), data) > untrained + 0.2


def test_a_network_with_dropout_and_batch_norm_is_probed_as_it_is(train, data):
    """The probe changes no running statistics, and features are deterministic."""
    student = load_student(train(model="mobilenet_v3_small", epochs=1, batch_size=160).checkpoint)
    before = {key: value.clone() for key, value in student.model.state_dict().items()}
    images = torch.randint(0, 256, (64, 3, 8, 8), dtype=torch.uint8)
    assert torch.equal(student.features(images), student.features(images))
    assert equal(before, student.model.state_dict())
    assert probe_student(student, data, 100) == probe_student(student, data, 100)


@pytest.mark.parametrize("epochs", [1, pytest.param(3, marks=pytest.mark.whole)])
def test_an_interrupted_training_ends_with_the_same_bits(train, epochs):
    whole = train("whole")
    with pytest.raises(StoppedError):
        train("stopped", progress=stop_after(epochs))
    seen = []
    resumed = train("stopped", progress=lambda point, _: seen.append(point))
    assert [point.epoch for point in seen] == list(range(epochs + 1, 5))
    assert [p.loss for p in resumed.curve] == [p.loss for p in whole.curve]
    assert equal(weights(resumed), weights(whole))


@pytest.mark.whole
def test_dropout_too_is_the_same_after_an_interruption(train):
    changes = {"model": "mobilenet_v3_small", "epochs": 2, "batch_size": 160}
    whole = train("whole", **changes)
    with pytest.raises(StoppedError):
        train("stopped", progress=stop_after(1), **changes)
    assert equal(weights(train("stopped", **changes)), weights(whole))


def test_seconds_add_up_over_interruptions(train, tmp_path):
    with pytest.raises(StoppedError):
        train(progress=stop_after(3))
    curve = load_student(tmp_path / "a" / "checkpoint.pt").meta["curve"]
    assert len(curve) == 3
    resumed = train()
    assert resumed.curve[-1].seconds > curve[-1]["seconds"] > 0
    assert resumed.meta["earlier_seconds"] == curve[-1]["seconds"]
    assert train().meta["earlier_seconds"] == curve[-1]["seconds"]  # which has nothing to do


def test_a_finished_training_returns_at_once(train, monkeypatch):
    first = train()
    monkeypatch.setattr("coopt_fl.students.train.devices_for", None)
    again = train()
    assert (again.checkpoint, again.curve) == (first.checkpoint, first.curve)
    assert again.meta == first.meta


@pytest.mark.parametrize("change", [{"lr": 1e-3}, {"seed": 1}, {"model": "convnet:4"}])
def test_a_checkpoint_of_other_settings_is_replaced(train, change):
    before = train(epochs=1)
    old = weights(before)
    after = train(**{"epochs": 1} | change)
    assert after.checkpoint == before.checkpoint
    assert not equal(weights(after), old)
    assert equal(weights(after), weights(train("fresh", **{"epochs": 1} | change)))


def test_a_file_that_is_no_checkpoint_is_not_replaced(train, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "checkpoint.pt").write_text("my thesis")
    with pytest.raises(ConfigError, match="not a checkpoint of a student"):
        train()
    assert (tmp_path / "a" / "checkpoint.pt").read_text() == "my thesis"


def test_the_seed_decides_and_the_random_state_is_left_alone(train):
    before = torch.random.get_rng_state()
    one = train("one", epochs=1)
    torch.rand(7)
    assert equal(weights(one), weights(train("same", epochs=1)))
    assert not equal(weights(one), weights(train("other", epochs=1, seed=1)))
    torch.random.set_rng_state(before)
    train("again", epochs=1)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_streamed_images_give_the_same_student(train, monkeypatch):
    resident = train("resident", epochs=2)
    monkeypatch.setattr("coopt_fl.students.images.RESIDENT_BYTES", 0)
    monkeypatch.setattr("coopt_fl.students.loop.RESIDENT_BYTES", 0)
    used = []
    plain = Squares._streamed
    monkeypatch.setattr(Squares, "_streamed", lambda *args: used.append(1) or plain(*args))
    assert equal(weights(train("streamed", epochs=2)), weights(resident))
    assert len(used) > 1


def test_progress_is_told_once_per_epoch(train):
    told = []
    result = train(progress=lambda *args: told.append(args))
    assert told == [(point, 4) for point in result.curve]
    assert [(p.epoch, p.samples) for p in result.curve] == [(k, 320 * k) for k in range(1, 5)]


def test_a_loss_that_is_not_finite_stops_the_training(planted, data, student, tmp_path):
    planted.targets[5] = float("inf")
    config = dataclasses.replace(student, loss="mse")
    with pytest.raises(ConfigError, match=r"after epoch 1; set a lower student\.lr"):
        train_student(planted, Config(data=data, student=config), tmp_path, devices=1)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_another_source_is_refused(planted, student, tmp_path):
    other = DataConfig(source="synthetic", limit=319)
    assert open_source(other).fingerprint != planted.provenance.source["fingerprint"]
    with pytest.raises(DataError, match="not the source that"):
        train_student(planted, Config(data=other, student=student), tmp_path, devices=1)


def test_an_unknown_model_is_refused_before_anything_is_opened(planted, data, tmp_path):
    with pytest.raises(ConfigError, match=r"student\.model 'resnet81'"):
        unknown = StudentConfig(model="resnet81")
        train_student(planted, Config(data=data, student=unknown), tmp_path)


def test_a_batch_larger_than_the_dataset_is_the_dataset(train):
    assert len(train(batch_size=5000, epochs=1).curve) == 1


def test_a_batch_of_one_is_refused(train):
    with pytest.raises(ConfigError, match=r"student\.batch_size 1 cannot be shared"):
        train(batch_size=1)


@pytest.mark.parametrize("most", [4096, 100])
def test_the_random_student_is_normalised_as_in_training_without_reading_all(
    train, data, student, monkeypatch, most
):
    monkeypatch.setattr("coopt_fl.students.images.MEASURED_ROWS", most)
    trained = load_student(train(epochs=1).checkpoint)
    read, plain = [], images.batches
    monkeypatch.setattr(
        images, "batches", lambda _, ids, *a, **k: read.extend(*ids) or plain(_, ids, *a, **k)
    )
    untrained = random_student(student, data, seed=0)
    assert len(read) <= most
    assert untrained.preprocess == trained.preprocess
    assert untrained.model.image_size == trained.model.image_size


def test_the_judge_moves_a_student_to_where_the_images_are(data, student, monkeypatch):
    untrained, seen = random_student(student, data, seed=0), []

    def encode(features, stream, size, values):
        weight = next(untrained.model.parameters())
        seen.append((values.device.type, weight.device.type))
        raise StoppedError

    monkeypatch.setattr(judge, "pick_device", lambda: torch.device("meta"))
    monkeypatch.setattr(judge, "BATCH", {"meta": 32})
    monkeypatch.setattr(judge, "encode", encode)
    with pytest.raises(StoppedError):
        judge.Judge(data)(untrained)
    assert seen == [("meta", "meta")]


def test_one_image_is_too_few(student, tmp_path):
    one = DataConfig(source="digits", limit=1)
    config = dataclasses.replace(student, objective="simclr")
    with pytest.raises(DataError, match="digits has fewer than 2 readable images to train on"):
        train_student(None, Config(data=one, student=config), tmp_path, devices=1)


def test_a_gpu_without_memory_is_one_sentence(train, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 EiB")

    monkeypatch.setattr(Training, "epoch", full)
    with pytest.raises(ConfigError, match=r"to train the student: lower student\.batch_size"):
        train()
