"""Exported students, loaded by the printed code in the other tool, on real images."""

import json
import resource
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from sklearn.datasets import load_digits, load_sample_image
from timm.models.beit import Beit
from timm.models.hiera import Hiera
from torch import Tensor, nn

from coopt_fl import api
from coopt_fl.core.errors import ConfigError, OutputError
from coopt_fl.students.checkpoint import LoadedStudent, load_student, save_student
from coopt_fl.students.export import _difference as difference
from coopt_fl.students.export import destinations, export_student, onnx
from coopt_fl.students.export import timm as timm_export
from coopt_fl.students.images import resizing
from coopt_fl.students.models import build_student
from tests.unit.command import Coopt

MEAN, STD = (0.48, 0.45, 0.4), (0.23, 0.22, 0.26)


def trained(folder: Path, name: str, size: int) -> Path:
    """Write a student with random batch norm statistics, as after training."""
    model = build_student(name, size, seed=0)
    generator = torch.Generator().manual_seed(1)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.copy_(0.1 * torch.randn(layer.num_features, generator=generator))
            layer.running_var.copy_(torch.rand(layer.num_features, generator=generator) + 0.5)
    path = folder / "student" / "checkpoint.pt"
    meta = {"license": "non-commercial"}
    save_student(path, LoadedStudent(model, resizing(size, MEAN, STD), meta))
    return path


def photograph(size: int) -> Image.Image:
    """A photograph, already of the student's size, so that resizing does not matter."""
    whole = Image.fromarray(load_sample_image("china.jpg")).crop((100, 0, 500, 400))
    return whole.resize((size, size))


def by_example(example: str, image: Image.Image) -> Tensor:
    """Return the features (m,) computed by the printed code."""
    names: dict[str, Any] = {"image": image}
    with torch.no_grad():
        exec(example, names)
    return torch.as_tensor(names["features"])[0]


def of_checkpoint(path: Path, image: Image.Image) -> Tensor:
    pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)
    return load_student(path).features(pixels[None])[0].clone()


@pytest.mark.parametrize(
    ("name", "size", "target"),
    [
        pytest.param("resnet18", 72, "timm", marks=pytest.mark.whole),
        pytest.param("resnet18", 72, "torchvision", marks=pytest.mark.whole),
        pytest.param("resnet50", 72, "timm", marks=pytest.mark.whole),
        pytest.param("resnet50", 72, "torchvision", marks=pytest.mark.whole),
        pytest.param("vit_b_32", 96, "torchvision", marks=pytest.mark.whole),
        pytest.param("shufflenet_v2_x0_5", 72, "torchvision", marks=pytest.mark.whole),
        pytest.param("timm:tf_efficientnet_lite0", 72, "timm", marks=pytest.mark.whole),
        pytest.param("timm:convnext_atto", 72, "timm", marks=pytest.mark.whole),
        pytest.param("timm:vit_tiny_patch16_224.augreg_in21k", 96, "timm", marks=pytest.mark.whole),
        ("timm:vit_tiny_patch16_224", 32, "timm"),
        pytest.param("timm:dla46_c", 32, "timm", marks=pytest.mark.whole),
        pytest.param("timm:coat_lite_tiny", 96, "timm", marks=pytest.mark.whole),  # shares weights
        pytest.param("timm:test_vit", 32, "onnx", marks=pytest.mark.whole),
        pytest.param("resnet18", 32, "onnx", marks=pytest.mark.whole),
        pytest.param("convnet:4", 8, "onnx", marks=pytest.mark.whole),
        pytest.param("convnet:4", 80, "onnx", marks=pytest.mark.whole),
    ],
)
def test_the_printed_code_gives_the_features_of_the_checkpoint(
    name: str, size: int, target: str, tmp_path: Path
) -> None:
    if target == "onnx":
        pytest.importorskip("onnxruntime")
    path = trained(tmp_path, name, size)
    done = api.export(tmp_path, to=target, out=tmp_path / "out", progress=None)
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == done.files
    image = photograph(size)
    wanted, found = of_checkpoint(path, image), by_example(done.example, image)
    assert float((found - wanted).abs().max()) <= 1e-4 * float(wanted.abs().max())


def test_timms_model_says_how_images_are_prepared_and_can_be_fine_tuned(tmp_path: Path) -> None:
    path = trained(tmp_path, "resnet18", 72)
    api.export(path, to="timm", out=tmp_path / "out", progress=None)
    model = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True, num_classes=7)
    own = load_student(path).model.backbone.state_dict()
    assert all(torch.equal(model.state_dict()[key], value) for key, value in own.items())
    known = timm.data.resolve_model_data_config(model)
    assert (known["mean"], known["std"], known["input_size"]) == ([*MEAN], [*STD], (3, 72, 72))
    assert (known["crop_pct"], known["interpolation"]) == (1.0, "bilinear")
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert not {"hf_hub_id", "url", "tag"} & set(written["pretrained_cfg"])
    assert written["pretrained_cfg"]["license"] == "non-commercial"  # not ImageNet's


@pytest.mark.whole
def test_an_onnx_graph_takes_batches_of_any_size_and_names_its_preprocessing(
    tmp_path: Path,
) -> None:
    runtime = pytest.importorskip("onnxruntime")
    path = trained(tmp_path, "convnet:4", 8)
    api.export(path, to="onnx", out=tmp_path / "out", progress=None)
    session = runtime.InferenceSession(tmp_path / "out" / "model.onnx")
    digits = (load_digits().images[:70] * 15).astype(np.uint8)
    images = torch.from_numpy(digits)[:, None].repeat(1, 3, 1, 1)
    wanted = load_student(path).features(images)
    for rows in (1, 2, 3, 70):
        (found,) = session.run(None, {"images": images[:rows].numpy()})
        np.testing.assert_allclose(found, wanted[:rows].numpy(), atol=1e-4)
    known = json.loads(session.get_modelmeta().custom_metadata_map["coopt"])
    assert (known["mean"], known["std"], known["input_size"]) == ([*MEAN], [*STD], [3, 8, 8])
    assert known["license"] == "non-commercial"


@pytest.mark.whole
@pytest.mark.parametrize(
    ("name", "size", "target", "says"),
    [
        ("convnet:4", 8, "timm", "timm has no 'convnet:4': export it to onnx"),
        ("timm:test_vit", 32, "torchvision", "torchvision has no 'timm:test_vit'"),
        ("efficientnet_b0", 72, "timm", "is another model than timm's of that name"),
        ("resnet18", 32, "timm", "student.image_size=96"),
        ("resnet18", 32, "torchvision", "student.image_size=96"),
        ("timm:test_resnet", 32, "timm", "student.image_size=96"),
        ("convnet:4", 8, "tensorflow", "give one of timm, torchvision, onnx"),
    ],
)
def test_what_no_library_has_is_refused_and_nothing_is_left(
    name: str, size: int, target: str, says: str, tmp_path: Path
) -> None:
    path = trained(tmp_path, name, size)
    with pytest.raises(ConfigError, match=says):
        api.export(path, to=target, out=tmp_path / "out", progress=None)
    assert not [*tmp_path.glob("out/*")]


@pytest.mark.parametrize(("factor", "rounding"), [(2.0, False), (1.001, True)])
def test_an_export_that_gives_other_features_is_not_kept(
    factor: float, rounding: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = trained(tmp_path, "resnet18", 72)
    plain = timm_export.fill

    def spoilt(model: nn.Module, *how: Any) -> None:
        plain(model, *how)
        model.layer1[0].conv1.weight.data.mul_(factor)

    monkeypatch.setattr(timm_export, "fill", spoilt)
    with pytest.raises(ConfigError, match=r"is another model than timm's.*differ by") as refused:
        api.export(path, to="timm", out=tmp_path / "out", progress=None)
    assert ("may be rounding" in str(refused.value)) == rounding
    assert not [*tmp_path.glob("out/*")]


def test_features_are_compared_at_their_own_scale(tmp_path: Path) -> None:
    """Small features are compared, too; features that are all 0 are refused."""
    student = load_student(trained(tmp_path, "convnet:4", 8))
    last = [layer for layer in student.model.modules() if isinstance(layer, nn.BatchNorm2d)][-1]
    last.weight.data.mul_(1e-6)
    last.bias.data.mul_(1e-6)
    assert difference(student, lambda images: student.features(images).clone()) < 1e-4
    assert difference(student, lambda images: 1.01 * student.features(images)) > 1e-3
    last.weight.data.zero_()
    last.bias.data.zero_()
    with pytest.raises(ConfigError, match="are all 0"):
        difference(student, student.features)


@pytest.mark.parametrize("target", ["timm", "torchvision"])
def test_a_full_disk_is_one_sentence(tmp_path: Path, target: str) -> None:
    trained(tmp_path, "resnet18", 72)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))
    try:
        with pytest.raises(OutputError, match=r"cannot write in .*out: .*File too large"):
            api.export(tmp_path, to=target, out=tmp_path / "out", progress=None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, before)


class Unsteady(nn.Module):
    """A model whose control flow depends on the values."""

    def forward(self, images: Tensor) -> Tensor:
        means = images.mean((2, 3))
        return means if float(means.sum()) > 0 else -means


def unsteady(name: str, size: int) -> nn.Module:
    return Unsteady()


@pytest.mark.whole
def test_a_model_that_is_no_graph_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    name = f"python:{__name__}:unsteady"
    path = trained(tmp_path, name, 8)
    given = [f"student.model={name}"]
    with pytest.raises(ConfigError, match=r"no ONNX graph of python:.*unsteady: .*data-dependent"):
        api.export(path, given, to="onnx", out=tmp_path / "out", progress=None)


def windows(name: str, size: int) -> nn.Module:
    """A transformer with windowed attention, whose queries are 5-D."""
    stages = (1, 1, 1, 1)
    return Hiera((size, size), num_classes=0, embed_dim=8, num_heads=1, stages=stages)


def biased(name: str, size: int) -> nn.Module:
    """A transformer whose attention has a position bias."""
    return Beit(size, 8, num_classes=0, embed_dim=16, depth=1, num_heads=2, use_rel_pos_bias=True)


@pytest.mark.whole
@pytest.mark.parametrize("kind", ["windows", pytest.param("biased", marks=pytest.mark.whole)])
def test_fused_attention_becomes_a_graph_and_stays_fused(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    name = f"python:{__name__}:{kind}"
    student = load_student(trained(tmp_path, name, 32), name)
    done = export_student(student, tmp_path, "onnx", tmp_path / "out")
    assert (done.files, done.difference < 1e-4) == (["model.onnx"], True)
    assert {one.fused_attn for one in student.model.modules() if hasattr(one, "fused_attn")} == {
        True
    }


class Clamped(nn.Module):
    """The means of three clamps of the same scaled pixels, each by bounds that are buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))
        for k, bounds in enumerate([(-torch.inf, torch.inf), (-0.2, 0.6), (0.3, 0.9)]):
            self.register_buffer(f"least_{k}", torch.tensor(bounds[0]))
            self.register_buffer(f"most_{k}", torch.tensor(bounds[1]))

    def forward(self, images: Tensor) -> Tensor:
        scaled, kept = self.scale * images, dict(self.named_buffers())
        parts = [scaled.clamp(kept[f"least_{k}"], kept[f"most_{k}"]) for k in range(3)]
        return torch.cat([part.mean((2, 3)) for part in parts], 1)


def clamped(name: str, size: int) -> nn.Module:
    return Clamped()


def test_all_clamps_of_one_value_keep_their_bounds(tmp_path: Path) -> None:
    """As in Gemma 4; the graph's features are compared with the checkpoint's."""
    pytest.importorskip("onnxruntime")
    name = f"python:{__name__}:clamped"
    student = load_student(trained(tmp_path, name, 16), name)
    done = export_student(student, tmp_path, "onnx", tmp_path / "out")
    assert (done.files, done.difference < 1e-4) == (["model.onnx"], True)


def test_without_its_packages_onnx_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = trained(tmp_path, "convnet:4", 8)
    monkeypatch.setattr(onnx, "NEEDS", ("not_there",))
    with pytest.raises(ConfigError, match=r"ONNX needs not_there: pip install"):
        api.export(path, to="onnx", out=tmp_path / "out", progress=None)


def test_the_command_prints_the_code_unbroken(coopt: Coopt) -> None:
    trained(coopt.folder, "timm:test_vit", 32)
    code, out, _ = coopt("export", str(coopt.folder), "--to", "timm", "--out", "timm-student")
    assert (code, (coopt.folder / "timm-student" / "config.json").is_file()) == (0, True)
    example = out[out.index("import timm") :]
    assert by_example(example, photograph(32)).shape == (64,)


def test_the_doctor_says_where_students_can_be_exported(
    coopt: Coopt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx, "NEEDS", ("not_there",))
    code, out, _ = coopt("doctor", "--json")
    found = json.loads(out.splitlines()[-1])["exports"]
    assert (code, found.keys() - destinations().keys()) == (0, {"to onnx, on this host"})
    assert "ONNX needs not_there" in found["to onnx, on this host"]
