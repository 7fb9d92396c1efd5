"""The registry, plug-ins, and functions named ``python:MODULE:FUNCTION``."""

import functools
import operator
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

import coopt_fl
from coopt_fl import registry
from coopt_fl.config.key import keyed
from coopt_fl.config.load import load_config
from coopt_fl.core.errors import ConfigError, CooptError
from coopt_fl.data import open_labels, open_source
from coopt_fl.given import given, take_parts
from coopt_fl.plugins import origin
from coopt_fl.policies.assignment import Member, assigned
from coopt_fl.priors import check_prior, load_prior
from coopt_fl.registry import KEYS, PARTS
from coopt_fl.students.models import build_student
from tests.unit.command import Coopt

SOLVER = """
import coopt_fl

@coopt_fl.register.solver("{name}")
def solve(source, target, seed):
    raise NotImplementedError
"""


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """Undo a test's registrations and imports."""
    before, modules = dict(PARTS._parts), set(sys.modules)
    yield
    PARTS._parts = before
    for name in set(sys.modules) - modules:
        if name.startswith(("coopt_plugin_", "outside_")):
            del sys.modules[name]


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def test_a_file_is_found_beside_the_yaml_and_below_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "here" / "a.py", SOLVER.format(name="first"))
    write(tmp_path / "there" / "b.py", SOLVER.format(name="second"))
    yaml = (
        "plugins: [{}]\ndata: {{source: digits}}\nparticipants: [{{name: a, prior: 'trivial:4'}}]"
    )
    file = write(tmp_path / "there" / "own.yaml", yaml.format("b.py"))
    monkeypatch.chdir(tmp_path / "here")
    assert load_config(str(file), ["targets.solver=second"]).targets.solver == "second"
    changed = load_config("digits", ["plugins=a.py", "targets.solver=first"])
    assert changed.plugins == [str(tmp_path / "here" / "a.py")]


def test_a_module_is_found_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "outside_one.py", SOLVER.format(name="third"))
    monkeypatch.syspath_prepend(tmp_path)
    load_config("digits", ["plugins=[outside_one]", "targets.solver=third"])


def test_an_installed_package_is_found_by_its_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "outside_two.py", SOLVER.format(name="fourth"))
    monkeypatch.syspath_prepend(tmp_path)
    found = [EntryPoint("mine", "outside_two", registry.GROUP)]
    monkeypatch.setattr(registry, "entry_points", lambda group: found)
    monkeypatch.setattr(PARTS, "_searched", False)
    assert "fourth" in PARTS.names("solver")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1 / 0", r"cannot be imported (ZeroDivisionError: division by zero)"),
        ("def f(:", "cannot be imported (SyntaxError"),
        ("import outside_nowhere", "cannot be imported (ModuleNotFoundError"),
        (SOLVER.format(name="ridge"), "has the name of one of this package"),
        (SOLVER.format(name="a b"), "the name 'a b' of a solver is not allowed"),
        (SOLVER.format(name="x") + "def f(a, b, c): ...\ncoopt_fl.register.solver('x')(f)\n",
         "the solver 'x' of"),
        (SOLVER.format(name="x").replace(", seed", ""), "takes (source, target), but is called"),
    ],
)  # fmt: skip
def test_a_plugin_that_cannot_be_used_is_one_sentence(coopt: Coopt, text: str, says: str) -> None:
    write(coopt.folder / "bad.py", text)
    code, _, error = coopt("config", "digits", "plugins=[bad.py]")
    assert code == 2
    assert says in error
    assert len(error.strip().splitlines()) == 1


@pytest.mark.parametrize("plugin", ["missing.py", "outside_missing", "3"])
def test_a_plugin_that_is_not_there(coopt: Coopt, plugin: str) -> None:
    code, _, error = coopt("config", "digits", f"plugins=[{plugin}]")
    assert code == 2
    assert plugin in error


def test_a_name_that_nothing_has_is_answered_with_the_nearest_and_the_way_to_add_one(
    coopt: Coopt,
) -> None:
    write(coopt.folder / "a.py", SOLVER.format(name="procrustean"))
    code, _, error = coopt("config", "digits", "plugins=a.py", "targets.solver=procrustian")
    assert code == 2
    assert "did you mean procrustean?" in error
    for kind in KEYS:
        with pytest.raises(CooptError, match="a plug-in may add others"):
            PARTS.find(kind, "nonsense")


def test_defined_anew_in_a_notebook_it_replaces_the_former() -> None:
    text = "@coopt_fl.register.projection('mine')\ndef mine(features, dim, seed): return {}"
    for value in (1, 2):
        names = {"coopt_fl": coopt_fl, "__name__": "__main__"}
        exec(text.format(value), names)
    assert PARTS.find("projection", "mine").object(None, 1, 0) == 2


FUNCTIONS = """
import numpy as np
import coopt_fl
from torch import nn

def images(data, split):
    if split == "train":
        images = np.random.default_rng(0).integers(0, 256, (20, 8, 8), np.uint8)
        return coopt_fl.data.from_arrays(images, np.arange(20))

def prior(spec):
    half = (0.5, 0.5, 0.5)
    model = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())
    return model, coopt_fl.Preprocess(spec.size or 8, spec.size or 8, "bilinear", half, half)

def student(name, image_size):
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * image_size**2, 5))

number = 3
"""


@pytest.fixture
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    write(tmp_path / "outside_three.py", FUNCTIONS)
    monkeypatch.syspath_prepend(tmp_path)
    return "python:outside_three"


def test_functions_named_by_their_module(functions: str) -> None:
    data = load_config("digits", [f"data.source={functions}:images"]).data
    labels = open_labels(data, "train")
    assert labels is not None
    assert (len(open_source(data)), labels.tolist()) == (20, list(range(20)))
    with pytest.raises(CooptError, match="has no test split"):
        open_source(data, "test")
    loaded = load_prior(f"{functions}:prior?size=4")
    assert (loaded.width, loaded.preprocess.size) == (12, 4)
    assert build_student(f"{functions}:student", 8, seed=0).width == 5
    config = load_config(
        "digits", [f"data.source={functions}:images", f"participants.0.prior={functions}:prior"]
    )
    used = keyed(config)["plugins"]
    assert used.keys() == {f"source {functions}:images", f"prior {functions}:prior"}
    assert all(value.startswith("outside_three.py sha256:") for value in used.values())


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("python:outside_three", "write python:MODULE:FUNCTION"),
        ("python:outside_three:nothing", "outside_three has no function 'nothing'"),
        ("python:outside_three:number", "outside_three has no function 'number'"),
        ("python:outside_gone:f", "there is no module 'outside_gone'"),
    ],
)
def test_a_function_that_is_not_there(functions: str, name: str, says: str) -> None:
    assert says in (check_prior(name) or "")
    with pytest.raises(ConfigError, match=says):
        build_student(name, 8, seed=0)
    with pytest.raises(ConfigError, match=says):
        open_source(coopt_fl.DataConfig(name))


def test_what_is_installed_is_known_by_its_version() -> None:
    from typer import Typer

    assert origin(Typer).startswith("typer ")


def test_no_file_makes_a_command_import_anything(coopt: Coopt, functions: str) -> None:
    """Neither a checkpoint nor a dataset, one's own or a stranger's, causes an import."""
    arguments = ["--prior", "trivial:8", "data.limit=20", "student.epochs=1", "shared.size=8",
                 "targets.dim=4", "student.model=python:outside_three:student",
                 "data.source=python:outside_three:images", "student.image_size=8"]  # fmt: skip
    code, _, error = coopt("centralized", "digits", *arguments, "--out", "run")
    assert code == 0, error
    del sys.modules["outside_three"]
    for words in ("probe run/student/checkpoint.pt", "train run"):
        code, _, error = coopt(*words.split())
        assert code == 2
        assert "python:outside_three:images" in error
        assert "outside_three" not in sys.modules
    named = "data.source=python:outside_three:images"
    code, _, error = coopt("probe", "run/student/checkpoint.pt", named)
    assert code == 2
    assert "student.model=python:outside_three:student" in error
    assert "outside_three" not in sys.modules
    student = "student.model=python:outside_three:student"
    code, _, error = coopt("train", "run", named)
    assert code == 2
    assert student in error
    assert "outside_three" not in sys.modules
    assert coopt("probe", "run/student/checkpoint.pt", named, student)[0] == 0


def test_a_report_imports_nothing_that_a_run_names(coopt: Coopt, tmp_path: Path) -> None:
    arguments = ["--prior", "trivial:16", "data.limit=60", "student.epochs=1", "shared.size=16",
                 "targets.dim=4", "student.model=convnet:2"]  # fmt: skip
    code, _, error = coopt("centralized", "digits", *arguments, "--out", "run")
    assert code == 0, error
    write(coopt.folder / "evil.py", "import pathlib; pathlib.Path('ran').touch()")
    for file in ("run/summary.json", "run/dataset/provenance.json"):
        text = Path(file).read_text().replace('"source": "digits"', '"source": "python:evil:run"')
        assert "python:evil" in text
        Path(file).write_text(text.replace('"plugins": []', '"plugins": ["evil.py"]'))
    code, _, error = coopt("report", "run", "--out", "page.html")
    assert not Path("ran").exists()
    assert code == 0, error


def test_an_object_is_named_by_its_digest_and_nothing_else(tmp_path: Path) -> None:
    """Its name has no path, which could be that of anything."""
    file = write(tmp_path / "evil.pkl", "")
    with given({}):
        for name in (str(file), "../evil.pkl", "parts", "mine@abc"):
            assert "names no object of a program" in (check_prior(f"module:{name}") or "")


def test_a_part_of_a_plugin_is_not_pickled(tmp_path: Path) -> None:
    """Other processes import the plug-in; only parts defined in the program itself are pickled."""
    plugin = write(tmp_path / "mine.py", SOLVER.format(name="of_a_plugin"))
    load_config("digits", [f"plugins=[{plugin}]"])

    @coopt_fl.register.solver("of_the_program")
    def solve(source: object, target: object, seed: int) -> None: ...

    with given({}):
        PARTS._parts = {key: part for key, part in PARTS._parts.items() if part.shipped}
        take_parts([])
        assert PARTS.has("solver", "of_the_program")
        assert not PARTS.has("solver", "of_a_plugin")
        known = PARTS.find("solver", "of_the_program").origin
    assert known.startswith("test_outside.py sha256:"), "as the program knew it"


def test_a_broken_installed_plugin_is_said_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [EntryPoint("broken", "outside_missing", registry.GROUP)]
    monkeypatch.setattr(registry, "entry_points", lambda group: found)
    monkeypatch.setattr(PARTS, "_searched", False)
    monkeypatch.setattr(PARTS, "_broken", None)
    for _ in range(2):
        with pytest.raises(ConfigError, match="'broken' cannot be imported"):
            PARTS.names("solver")


REQUIRED = {"objective": {"on_targets": True}}


@pytest.mark.parametrize("kind", KEYS)
def test_a_part_is_registered_if_it_can_be_called_as_the_shipped_ones(kind: str) -> None:
    register = getattr(coopt_fl.register, kind)
    for number, part in enumerate([one for one in PARTS.parts(kind) if one.shipped]):
        register(f"own{number}", **REQUIRED.get(kind, {}))(part.object)
    with pytest.raises(ConfigError, match=rf"the {kind} 'wrong' takes \(\), but is called with \("):
        register("wrong", **REQUIRED.get(kind, {}))(lambda: None)
    with pytest.raises(ConfigError, match=rf"the {kind} 'wrong' is no function or class: 3"):
        register("wrong", **REQUIRED.get(kind, {}))(3)
    assert not PARTS.has(kind, "wrong")


def test_what_a_part_is_made_of_does_not_matter() -> None:
    def two(source: float, target: float) -> float:
        return source + target

    @functools.wraps(two)
    def three(source: float, target: float, seed: int) -> float:
        return two(source, target) + seed

    class Solver:
        def __call__(self, source: float, target: float, seed: int, *, scale: int = 1) -> float:
            return scale * three(source, target, seed)

    parts = (three, Solver(), functools.partial(Solver(), scale=2), operator.itemgetter(3))
    for number, part in enumerate(parts):
        coopt_fl.register.solver(f"own{number}")(part)
    assert [PARTS.find("solver", f"own{k}").call(1, 2, 3) for k in range(3)] == [6, 6, 12]
    with pytest.raises(
        ConfigError, match=r"'own3' failed with TypeError: .* got 3 \(operator\.py\)"
    ):
        PARTS.find("solver", "own3").call(1, 2, 3)

    def needs_more(source: float, target: float, seed: int, *, scale: int) -> float:
        return 0.0

    with pytest.raises(ConfigError, match=r"missing a required.* argument: 'scale'"):
        coopt_fl.register.solver("more")(needs_more)
    with pytest.raises(ConfigError, match=r"takes \(source.*, target.*\).*, but is called with"):
        coopt_fl.register.solver("less")(functools.wraps(three)(two))


def test_an_assignment_that_forgets_a_block_is_refused() -> None:
    members = [Member("a"), Member("b")]
    for policy in (lambda blocks, members: ["a"], lambda blocks, members: ["a", "nobody"]):
        with pytest.raises(ConfigError, match="must give one of a, b for each of 2 blocks"):
            assigned(policy, range(2), members)


def test_an_error_in_a_part_names_the_part_and_its_line(coopt: Coopt) -> None:
    write(coopt.folder / "mine.py", SOLVER.format(name="unfinished"))
    arguments = ["--prior", "trivial:16", "data.limit=60", "student.epochs=1", "shared.size=16"]
    write(
        coopt.folder / "two.py",
        "import coopt_fl\n\n@coopt_fl.register.projection('wrong')\n"
        "def wrong(features, dim, seed):\n    return {}['a']\n",
    )
    settings = ["targets.dim=4", "plugins=[mine.py,two.py]", "targets.projection=wrong"]
    code, _, error = coopt("centralized", "digits", *arguments, *settings, "--out", "run")
    assert code == 2
    assert "the projection 'wrong' failed with KeyError: " in error
    assert "(two.py, line 5, in wrong)" in error
    with pytest.raises(
        ConfigError, match=r"'unfinished' failed with NotImplementedError.*\(mine\.py, line 6, in"
    ):
        PARTS.find("solver", "unfinished").call(None, None, 0)
