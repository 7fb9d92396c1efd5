"""Code from outside: the examples of docs/plugins.md, run; and who decides what is imported."""

import re
import shlex
import sys
import webbrowser
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from flwr.app import Context, Message, RecordDict

import coopt_fl
from coopt_fl.config.key import dataset_key
from coopt_fl.config.load import load_config
from coopt_fl.core.errors import CooptError
from coopt_fl.core.progress import Progress
from coopt_fl.data import Preprocess, open_labels, open_source
from coopt_fl.federation import protocol
from coopt_fl.federation.client_app import identify
from coopt_fl.federation.job import whole_job
from coopt_fl.federation.protocol import task_of
from coopt_fl.optimized.provenance import read_provenance
from coopt_fl.priors import load_prior
from coopt_fl.priors.spec import PriorSpec
from coopt_fl.registry import KEYS, PARTS
from tests.fenced import python_in
from tests.flower.grid import FakeGrid, run_platform, tiny

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "plugins.md"
EXAMPLES = python_in(PAGE.read_text())


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    """Start with only the shipped parts, and unregister this test's afterwards."""
    before = dict(PARTS._parts)
    forget()
    yield
    PARTS._parts = before


def forget() -> None:
    """Put the process into the state before it imported any plug-in."""
    PARTS._parts = {key: part for key, part in PARTS._parts.items() if part.shipped}
    for name in [name for name in sys.modules if name.startswith("coopt_plugin_")]:
        del sys.modules[name]


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    """The examples, in one file."""
    file = tmp_path / "mine.py"
    file.write_text("\n\n".join(EXAMPLES))
    return file


CHOSEN = {
    "source": "stripes",
    "prior": "pooled:4",
    "solver": "shrunk",
    "projection": "widest",
    "reference": "widest_prior",
    "assignment": "in_turn",
    "audit": "wary",
    "objective": "smooth",
    "student": "perceptron:32",
    "tracker": "lines",
}


def configured(plugin: Path) -> dict[str, object]:
    changes = {KEYS[kind].replace("N", "0"): name for kind, name in CHOSEN.items()}
    return {"plugins": f"[{plugin}]", "student.epochs": 2, "student.image_size": 8} | changes


def test_a_run_of_nothing_but_the_examples(plugin: Path, tmp_path: Path) -> None:
    config, out = tiny(**configured(plugin)), tmp_path / "out"
    done = whole_job(config, out, Progress(), lambda: run_platform(config, out))
    assert done["reference"] == "alpha", "the widest: 48 features"
    assert done["participants"][0]["prior"] == "pooled:4"
    assert [one["samples"] for one in done["participants"]] == [80, 63, 60], "blocks in turn"
    assert done["student"]["model"] == "perceptron:32"
    assert done["student"]["probe_accuracy"] > 0.6, "stripes are four classes, and easy"
    used = read_provenance(out / "dataset").plugins
    made = {f"{kind} {name.partition(':')[0]}" for kind, name in CHOSEN.items()}
    assert used.keys() == made - {"objective smooth", "student perceptron", "tracker lines"}
    assert len((out / "student" / "tracking" / "lines.txt").read_text().splitlines()) == 2
    assert all(re.fullmatch(r"mine\.py sha256:[0-9a-f]{64}", origin) for origin in used.values())


def test_the_page_has_one_example_of_each_kind_in_few_lines(plugin: Path) -> None:
    tiny(**configured(plugin))
    ours = [part.kind for part in PARTS.all() if not part.shipped]
    assert sorted(ours) == sorted(KEYS)
    said = [[line for line in example.split("\n") if line] for example in EXAMPLES]
    assert max(map(len, said)) <= 11


def test_the_key_follows_the_file_that_a_part_comes_from(plugin: Path) -> None:
    key = dataset_key(tiny(**{"plugins": f"[{plugin}]", "targets.solver": "shrunk"}), "data")
    shipped = dataset_key(tiny(**{"plugins": f"[{plugin}]"}), "data")
    assert shipped == dataset_key(tiny(), "data"), "a plug-in that is not used changes nothing"
    plugin.write_text(plugin.read_text() + "# another\n")
    forget()
    again = dataset_key(tiny(**{"plugins": f"[{plugin}]", "targets.solver": "shrunk"}), "data")
    assert key != again


def test_a_source_brings_its_labels(plugin: Path) -> None:
    config = tiny(**configured(plugin) | {"data.limit": 80})
    source, labels = open_source(config.data), open_labels(config.data, "train")
    assert (len(source), labels.shape) == (80, (80,))
    bright = torch.stack(source.read(source.ids)).float().mean((1, 2)).view(80, 4, 2).sum(2)
    assert (bright.argmax(1).numpy() == labels).all()


def test_a_prior_takes_the_options_it_declares(plugin: Path) -> None:
    tiny(plugins=f"[{plugin}]")
    assert load_prior("pooled:2?size=16").width == 12
    with pytest.raises(CooptError, match="no option 'seed'; pooled has: size"):
        load_prior("pooled:2?seed=1")


def test_the_tutorial_s_parts_and_command_make_a_run(tmp_path: Path) -> None:
    text = (DOCS / "tutorials" / "own-parts.md").read_text()
    (code,) = python_in(text)
    (command,) = re.findall(r"^coopt run digits (.*?)^```", text, re.DOTALL | re.MULTILINE)
    file, out = tmp_path / "mine.py", tmp_path / "out"
    file.write_text(code)
    changes = dict(word.split("=") for word in shlex.split(command) if "=" in word)
    config = tiny(**changes | {"plugins": f"[{file}]", "student.epochs": 1})
    done = whole_job(config, out, Progress(), lambda: run_platform(config, out))
    assert [one["prior"] for one in done["participants"]][2] == "pooled:8"
    assert done["student"]["model"] == "perceptron:64"
    assert {*read_provenance(out / "dataset").plugins} == {"assignment in_turn", "prior pooled"}


def test_a_prior_that_does_not_fit_on_the_gpu_is_named(tmp_path: Path) -> None:
    class Huge(torch.nn.Flatten):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            if len(images) > 1:  # one image is tried, to learn the width
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward(images)

    @coopt_fl.register.prior("huge", form="huge:SIDE")
    def huge(spec: PriorSpec) -> tuple[torch.nn.Module, Preprocess]:
        return Huge(), Preprocess(8, 8, "bilinear", mean=(0.5,) * 3, std=(0.5,) * 3)

    config = tiny(**{"participants.0.prior": "huge:8"})
    with pytest.raises(CooptError, match="huge:8 with batches of 8 does not fit on the GPU: lower"):
        run_platform(config, tmp_path)


MODULE = "antigravity"
"""A module of the standard library whose import opens a web browser."""


@pytest.mark.parametrize("field", ["prior", "source", "plugins", "object"])
def test_no_message_makes_a_named_participant_import_anything(
    field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    config = tiny()
    if field == "prior":
        config.participants[0].prior = f"python:{MODULE}:fly"
    elif field == "object":
        config.participants[0].prior = f"module:mine@{'0' * 64}"
    elif field == "source":
        config.data.source = f"python:{MODULE}:fly"
    else:
        config.plugins = [MODULE]
    request = protocol.Describe(task_of(config, "", simulated=True), measure=False)
    message = Message(protocol.encode(request), 100, protocol.DESCRIBE)
    reply = FakeGrid(1, lambda _: {"name": "alpha"})._answer(message)
    error = protocol.error_in(reply.content)
    assert (error is None) == (field == "plugins"), "it is not asked to use them"
    assert error is None or "only if its own node-config names it" in str(error)
    assert not opened
    assert MODULE not in sys.modules


def test_a_named_participant_imports_what_its_own_node_names(plugin: Path) -> None:
    task = task_of(load_config("digits"), "")
    node = {"name": "alpha", "plugins": str(plugin), "prior": "pooled:2"}
    assert not PARTS.has("prior", "pooled")
    known = identify(Context(1, 2, node, RecordDict(), {}), task)
    assert known.prior.width == 12


def test_a_simulated_participant_imports_what_the_run_does(plugin: Path) -> None:
    config = tiny(plugins=f"[{plugin}]", **{"participants.0.prior": "pooled:2"})
    task = task_of(config, "", simulated=True)
    forget()
    partition = {"partition-id": 0, "num-partitions": 3}
    known = identify(Context(1, 2, partition, RecordDict(), {}), task)
    assert known.prior.width == 12
    assert task_of(config, "").plugins == [], "a deployment's messages name none"
