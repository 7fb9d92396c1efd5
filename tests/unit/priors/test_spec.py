import pytest

from coopt_fl.core.errors import PriorError
from coopt_fl.priors import parse_prior
from coopt_fl.priors.spec import PriorSpec, forms, nearest


@pytest.mark.parametrize(
    ("text", "scheme", "name", "size", "seed"),
    [
        ("timm:resnet18.a1_in1k", "timm", "resnet18.a1_in1k", None, None),
        (
            "timm:tf_efficientnet_lite0@bundled?size=96",
            "timm",
            "tf_efficientnet_lite0@bundled",
            96,
            None,
        ),
        ("torchvision:resnet50/IMAGENET1K_V2", "torchvision", "resnet50/IMAGENET1K_V2", None, None),
        ("open_clip:ViT-B-32/openai?size=128", "open_clip", "ViT-B-32/openai", 128, None),
        ("checkpoint:C:/my runs/student.pt", "checkpoint", "C:/my runs/student.pt", None, None),
        ("random:resnet18?seed=0&size=64", "random", "resnet18", 64, 0),
        ("trivial:16", "trivial", "16", None, None),
    ],
)
def test_a_spec_is_taken_apart(
    text: str, scheme: str, name: str, size: int | None, seed: int | None
) -> None:
    assert parse_prior(text) == PriorSpec(scheme, name, size, seed)


@pytest.mark.parametrize("text", ["", "resnet18", "tim:resnet18", "TIMM:resnet18"])
def test_an_unknown_scheme_lists_all_schemes(text: str) -> None:
    with pytest.raises(PriorError) as error:
        parse_prior(text)
    assert all(form in str(error.value) for form in forms())


def test_an_unknown_scheme_names_the_nearest() -> None:
    with pytest.raises(PriorError, match=r"nearest: torchvision"):
        parse_prior("torchvison:resnet18/DEFAULT")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("timm:", "write timm:NAME"),
        ("timm:?size=3", "write timm:NAME"),
        ("timm:resnet18?siez=96", "no option 'siez'.*size"),
        ("timm:resnet18?seed=1", "no option 'seed'.*size"),
        ("trivial:8?size=4", "no option 'size'.*none"),
        ("random:resnet18?size=0", "size must be a whole number from 1 on"),
        ("random:resnet18?size=-4", "size must be a whole number from 1 on"),
        ("random:resnet18?size=big", "size must be a whole number from 1 on"),
        ("random:resnet18?size=4&size=8", "size is given twice"),
        ("random:resnet18?seed", "seed must be a whole number from 0 on"),
    ],
)
def test_what_cannot_be_meant_is_refused(text: str, says: str) -> None:
    with pytest.raises(PriorError, match=says):
        parse_prior(text)


def test_nearest_says_nothing_when_nothing_is_near() -> None:
    assert nearest("zzzz", ["resnet18"]) == ""
    assert nearest("resnet81", ["resnet18", "vit"]) == " (nearest: resnet18)"
