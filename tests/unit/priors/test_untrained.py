"""``random:NAME`` and ``trivial:DIM``: determined by their spec alone."""

import pytest
import torch

from coopt_fl.core.errors import PriorError
from coopt_fl.priors import check_prior, load_prior


@pytest.mark.parametrize("spec", ["random:test_resnet?size=32", "random:squeezenet1_1?size=64"])
def test_random_weights_come_from_the_spec_alone(spec: str) -> None:
    torch.manual_seed(1)
    first = load_prior(spec)
    after = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), after), "loading changed the global random state"
    assert load_prior(spec).sha256 == first.sha256
    assert load_prior(f"{spec}&seed=5").sha256 != first.sha256


def test_random_weights_differ_between_seeds_and_architectures() -> None:
    specs = [f"random:{name}?seed={seed}" for name in ("test_vit", "test_vit2") for seed in (0, 1)]
    assert len({load_prior(spec).sha256 for spec in specs}) == 4


@pytest.mark.parametrize(
    ("name", "width"),
    [("squeezenet1_1", 512), ("shufflenet_v2_x0_5", 1024), ("mobilenet_v3_small", 1024)],
)
def test_torchvision_classifiers_lose_their_last_layer(name: str, width: int) -> None:
    assert load_prior(f"random:{name}?size=64").width == width


def test_a_transformer_of_fixed_size_is_built_for_the_size() -> None:
    prior = load_prior("random:test_vit?size=64")
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    assert prior.preprocess.size == 64
    assert prior.features(images).shape == (2, prior.width)


def test_a_size_that_an_architecture_cannot_take_is_refused() -> None:
    with pytest.raises(PriorError, match=r"random:squeezenet1_1.*cannot take images of 4 px"):
        load_prior("random:squeezenet1_1?size=4")


def test_an_unknown_architecture_names_the_nearest() -> None:
    spec = "random:test_resent"
    with pytest.raises(PriorError, match=r"nearest: test_resnet") as error:
        load_prior(spec)
    assert check_prior(spec) == str(error.value)


def test_trivial_features_are_linear_in_a_thumbnail() -> None:
    prior = load_prior("trivial:40")
    generator = torch.Generator().manual_seed(0)
    small = torch.randint(0, 128, (3, 3, 4, 4), dtype=torch.uint8, generator=generator)
    zero = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    base = prior.features(zero)
    parts = prior.features(small) - base
    doubled = prior.features(small * 2) - base
    torch.testing.assert_close(doubled, 2 * parts, rtol=1e-4, atol=1e-4)
    enlarged = small.repeat_interleave(4, 2).repeat_interleave(4, 3)
    assert torch.linalg.matrix_rank(parts) == 3
    assert prior.features(enlarged).shape == (3, 40)


def test_trivial_is_the_same_everywhere_and_differs_by_width() -> None:
    assert load_prior("trivial:8").sha256 == load_prior("trivial:8").sha256
    assert load_prior("trivial:8").sha256 != load_prior("trivial:9").sha256


@pytest.mark.parametrize("dim", ["0", "-3", "many", "1.5"])
def test_trivial_needs_a_width(dim: str) -> None:
    with pytest.raises(PriorError, match="DIM in trivial:DIM"):
        load_prior(f"trivial:{dim}")


def test_an_impossible_device_is_one_sentence() -> None:
    with pytest.raises(PriorError, match=r"prior 'trivial:8' cannot be loaded: .+"):
        load_prior("trivial:8", device="cuda:99")


def test_too_little_memory_on_the_gpu_says_what_to_lower(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(spec: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("coopt_fl.priors.schemes.trivial.load", exhausted)
    with pytest.raises(PriorError, match=r"trivial:8.*lower simulation\.actors"):
        load_prior("trivial:8")
