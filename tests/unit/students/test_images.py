import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode

from coopt_fl.config.schema import DataConfig
from coopt_fl.core.errors import DataError
from coopt_fl.data import open_source
from coopt_fl.data.source import CorruptImage
from coopt_fl.students import images
from coopt_fl.students.images import Squares, measure, measured_ids, normalise, own_size

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path):
    """Five images of different sizes, shorter edges 10, 12, 14, 16 and 40."""
    generator = np.random.default_rng(0)
    for k, (width, height) in enumerate([(10, 11), (20, 12), (14, 14), (16, 33), (40, 41)]):
        pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        (tmp_path / "train").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "train" / f"{k}.png")
    return tmp_path


def opened(folder, on_error="raise"):
    return open_source(DataConfig(source="imagefolder", root=str(folder), on_error=on_error))


def everything(squares, rows, batch_size=2):
    parts = list(squares.batches(rows, batch_size))
    return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])


def reads_of(monkeypatch):
    """Return a list that records the number of images of each read."""
    reads, plain = [], images.batches

    def counted(source, blocks, *rest, **more):
        reads.append(sum(map(len, blocks)))
        return plain(source, blocks, *rest, **more)

    monkeypatch.setattr(images, "batches", counted)
    return reads


@pytest.mark.parametrize("size", [8, 13])
def test_resident_and_streamed_give_the_same_bits_in_the_order_asked_for(folder, size, monkeypatch):
    source, order = opened(folder), torch.tensor([3, 0, 4, 1])
    ids = source.ids[[4, 2, 0, 1, 3]]
    one = everything(Squares(source, ids, size, CPU, "raise"), order)
    monkeypatch.setattr(images, "RESIDENT_BYTES", 0)
    two = everything(Squares(source, ids, size, CPU, "raise"), order)
    assert torch.equal(one[0], two[0]) and one[0].dtype == torch.uint8
    assert one[0].shape == (4, 3, size, size)
    assert torch.equal(one[1], order) and torch.equal(two[1], order)


def test_images_of_the_right_size_are_left_as_they_are():
    source = open_source(DataConfig(source="digits", limit=20))
    squares = Squares(source, source.ids, 8, CPU, "raise")
    found, _ = everything(squares, squares.rows)
    assert torch.equal(found, torch.stack(source.read(source.ids)))


def test_a_row_stands_for_the_id_of_the_dataset_and_not_of_the_source():
    source = open_source(DataConfig(source="digits", limit=20))
    ids = source.ids[::-1][:5].copy()
    found, _ = everything(Squares(source, ids, 8, CPU, "raise"), torch.tensor([0]))
    assert torch.equal(found[0], source.read(ids[:1])[0])


@pytest.mark.parametrize(("spare", "kept"), [(-1, False), (0, True)])
def test_what_does_not_fit_is_read_again_in_every_epoch(monkeypatch, spare, kept):
    source = open_source(DataConfig(source="digits", limit=20))
    monkeypatch.setattr(images, "RESIDENT_BYTES", 20 * 192 + spare)
    squares = Squares(source, source.ids, 8, CPU, "raise")
    reads = reads_of(monkeypatch)
    everything(squares, squares.rows)
    assert reads == ([] if kept else [20])


def test_a_corrupt_image_stops_or_is_left_out_as_the_settings_say(folder):
    (folder / "train" / "2.png").write_bytes(b"\x89PNG\r\n\x1a\n and nothing more")
    source = opened(folder, "skip")
    with pytest.raises(CorruptImage, match=r"2\.png") as caught:
        Squares(source, source.ids, 8, CPU, "raise")
    squares = Squares(source, source.ids, 8, CPU, "skip")
    assert squares.rows.tolist() == [row for row in range(5) if row != caught.value.id]


def test_the_own_size_is_the_shorter_edge_or_the_median_of_it(folder):
    assert own_size(open_source(DataConfig(source="digits", limit=4))) == 8
    assert own_size(opened(folder)) == 14


@pytest.mark.parametrize(("side", "expected"), [(300, 224), (3, 8)])
def test_the_own_size_stays_within_its_limits(tmp_path, side, expected):
    (tmp_path / "train").mkdir()
    Image.new("RGB", (side, side + 5)).save(tmp_path / "train" / "0.png")
    assert own_size(opened(tmp_path)) == expected


def test_the_normalisation_is_that_of_the_pixels():
    source = open_source(DataConfig(source="synthetic", limit=50))
    squares = Squares(source, source.ids, 8, CPU, "raise")
    pixels, _ = everything(squares, squares.rows)
    found = measure(squares, squares.rows)
    assert found == measure(squares, squares.rows.flip(0))  # to the last bit
    scaled = pixels.double() / 255
    assert found.mean == pytest.approx(scaled.mean((0, 2, 3)).tolist())
    assert found.std == pytest.approx(scaled.std((0, 2, 3), correction=0).tolist())
    normal = normalise(pixels / 255, found)
    assert normal.dtype == torch.float32
    assert normal.mean((0, 2, 3)).abs().max() < 1e-5


class Allocations(TorchDispatchMode):
    """Keeps every created tensor of one shape alive, so that no memory is reused."""

    def __init__(self, shape):
        super().__init__()
        self.shape, self.made = shape, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.shape == self.shape:
            self.made.append(result)
        return result


def test_resident_images_are_allocated_once():
    source = open_source(DataConfig(source="synthetic", limit=600))
    with Allocations((600, 3, 8, 8)) as seen:
        squares = Squares(source, source.ids, 8, CPU, "raise")
    assert len({image.untyped_storage().data_ptr() for image in seen.made}) == 1
    first, _ = next(squares.batches(squares.rows, 600))
    assert first.is_contiguous(memory_format=torch.channels_last)


def test_it_is_measured_on_few_of_many_images(monkeypatch):
    monkeypatch.setattr("coopt_fl.students.images.MEASURED_ROWS", 10)
    assert measured_ids(np.arange(31)).tolist() == list(range(0, 31, 4))
    assert measured_ids(np.arange(10)).tolist() == list(range(10))


def test_nothing_to_measure_is_named():
    source = open_source(DataConfig(source="digits", limit=20))
    squares = Squares(source, source.ids, 8, CPU, "raise")
    with pytest.raises(DataError, match=r"none of the images .* see data\.root"):
        measure(squares, squares.rows[:0])
