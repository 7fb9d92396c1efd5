import pytest
import torch
from torch import Tensor, nn

from coopt_fl.core import runtime
from coopt_fl.core.errors import ConfigError
from coopt_fl.data.image import Preprocess
from coopt_fl.priors import Prior, load_prior
from coopt_fl.priors.prior import weights_sha256

SPEC = "random:test_resnet?size=32"


@pytest.fixture(scope="module")
def prior() -> Prior:
    return load_prior(SPEC)


def noise(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def test_features_are_those_of_the_bare_model(prior: Prior) -> None:
    images = noise(5, 3, 40, 50)
    with torch.no_grad():
        expected = prior.model.eval()(prior.preprocess(images, "cpu"))
    features = prior.features(images)
    assert features.shape == (5, prior.width)
    assert features.dtype == torch.float32
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)


def test_features_are_ordinary_tensors_without_a_graph(prior: Prior) -> None:
    features = prior.features(noise(2, 3, 32, 32))
    assert not features.requires_grad
    features -= features.mean(0)
    assert torch.linalg.vector_norm(features.mean(0)) < 1e-4


def test_a_row_does_not_depend_on_its_neighbours(prior: Prior) -> None:
    ours, theirs = noise(3, 3, 32, 32), noise(5, 3, 32, 32, seed=1)
    beside_images = prior.features(torch.cat([ours, theirs]))[:3]
    beside_padding = prior.features(torch.cat([ours, torch.zeros_like(theirs)]))[:3]
    assert torch.equal(beside_images, beside_padding)
    torch.testing.assert_close(beside_images, prior.features(ours), rtol=1e-4, atol=1e-5)


def test_images_of_mixed_sizes_come_as_a_list(prior: Prior) -> None:
    wide, tall = noise(3, 32, 60), noise(3, 50, 40)
    together = prior.features([wide, tall])
    torch.testing.assert_close(together[:1], prior.features(wide[None]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together[1:], prior.features(tall[None]), rtol=1e-4, atol=1e-5)


def test_auto_is_float32_on_a_cpu(prior: Prior) -> None:
    images = noise(2, 3, 32, 32)
    assert torch.equal(prior.features(images, "auto"), prior.features(images))


def test_an_explicit_precision_is_honoured_or_refused(
    prior: Prior, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = noise(2, 3, 32, 32)
    if runtime.has_bfloat16():
        exact, rounded = prior.features(images), prior.features(images, "bfloat16")
        off = (exact - rounded).norm() / exact.norm()
        assert 0 < off < 0.05, "8 bits of mantissa"
    with pytest.raises(ConfigError, match="no instructions for float16"):
        prior.features(images, "float16")
    monkeypatch.setattr(runtime, "has_bfloat16", lambda: False)
    with pytest.raises(ConfigError, match="no instructions for bfloat16"):
        prior.features(images, "bfloat16")


def test_batch_statistics_are_never_updated(prior: Prior) -> None:
    prior.features(noise(8, 3, 32, 32))
    assert weights_sha256(prior.model) == prior.sha256
    assert not prior.model.training


class Two(nn.Module):
    def __init__(self, first: Tensor, second: Tensor) -> None:
        super().__init__()
        self.register_buffer("first", first)
        self.register_buffer("second", second)


def test_the_sha256_sees_every_bit_shape_dtype_and_name() -> None:
    one = torch.arange(6.0)
    changed = one.clone()
    changed[3] = torch.nextafter(changed[3], torch.tensor(9.0))
    renamed = nn.Module()
    renamed.register_buffer("first", one)
    renamed.register_buffer("other", one)
    models = [
        Two(one, one),
        Two(one, changed),
        Two(changed, one),
        Two(one, one.reshape(2, 3)),
        Two(one, one.view(torch.int32)),
        Two(one, one.bfloat16()),
        Two(one, torch.tensor(1)),
        renamed,
    ]
    assert len({weights_sha256(model) for model in models}) == len(models)


def test_the_sha256_is_of_values_not_of_their_place_in_memory() -> None:
    kernel = torch.randn(2, 3, 4, 4)
    permuted = kernel.to(memory_format=torch.channels_last)
    assert weights_sha256(Two(kernel, kernel)) == weights_sha256(Two(permuted, kernel))


def test_features_do_not_need_square_or_large_images() -> None:
    identity = Preprocess(4, 4, "bilinear", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    prior = Prior("pool", 3, "", identity, pool, torch.device("cpu"))
    grey = torch.full((1, 3, 8, 5), 51, dtype=torch.uint8)
    torch.testing.assert_close(prior.features(grey), torch.full((1, 3), 0.2))
