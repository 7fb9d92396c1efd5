"""The ``coopt`` command: parse, call one function, print. No logic."""

import io
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import click
import typer
from rich.console import Console
from typer.core import TyperGroup

from coopt_fl import __version__
from coopt_fl.core.errors import INTERRUPTED, ConfigError, CooptError
from coopt_fl.core.log import log_of
from coopt_fl.core.progress import Level
from coopt_fl.report import console as show

SPINS = "1000"
"""How often a thread looks whether others are done before it sleeps: on a busy host a small
student's threads would otherwise spin most of its time away (docs/performance.md)."""

WORDS = 300
"""Letters of an unforeseen error that are shown."""

OF_ALL = ("--quiet", "--verbose")
"""Options of every command, which may stand anywhere before a ``--``."""


class Commands(TyperGroup):
    """The commands; an error is one sentence and an exit code."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take the options of all commands to the front, where click looks for them."""
        end = args.index("--") if "--" in args else len(args)
        moved = [word for word in args[:end] if word in OF_ALL]
        rest = [word for word in args[:end] if word not in OF_ALL]
        return super().parse_args(ctx, [*moved, *rest, *args[end:]])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, click.Abort, click.ClickException, BrokenPipeError):
            raise  # which click turns into exit codes
        except Exception as error:
            if ctx.params["verbose"]:
                traceback.print_exception(error)
            sys.exit(_told(error))


app = typer.Typer(
    name="coopt",
    cls=Commands,
    no_args_is_help=True,
    suggest_commands=False,  # which click does, too
    pretty_exceptions_enable=False,
)

Settings = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[CONFIG] [KEY=VALUE]...",
        help="A name in conf/ or a YAML file (default: digits), then settings to change, such as "
        "participants.1.prior=timm:resnet18.a1_in1k or seed=1.",
    ),
]
Changes = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Settings to change, such as student.epochs=5."),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        help="Output directory (default: runs/CONFIG, with a suffix for changed data settings).",
    ),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Make the last line of stdout the result as JSON.")
]
Dataset = Annotated[Path, typer.Argument(help="A run directory, or the dataset folder in it.")]
Checkpoint = Annotated[
    Path, typer.Argument(help="A student's checkpoint (.pt), or the directory of its run.")
]
Elsewhere = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[data.KEY=VALUE]...", help="To judge it elsewhere, such as data.root=DIR."
    ),
]
CodeOfStudent = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...", help="plugins and student.model, for a student of your own code."
    ),
]
Devices = Annotated[int | None, typer.Option(min=1, help="How many devices (default: all).")]


def _show_version(asked: bool) -> None:
    if asked:
        print(f"coopt-fl {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="Print nothing but errors and the result.")
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose", help="Print what Flower and Ray log, too, and the traceback of an error."
        ),
    ] = False,
) -> None:
    """Turn unlabeled images into an optimized dataset, together, and train students on it.

    These two may also stand behind the command: --quiet, --verbose.
    """
    if quiet and verbose:
        raise typer.BadParameter("give --quiet or --verbose, not both")


@app.command()
def run(settings: Settings = None, out: Out = None, as_json: AsJson = False) -> None:
    """Optimize data with all participants (simulated on this host), train a student, probe it.

    The same command on the same directory continues where it was stopped.
    """
    name, changes = _checked(settings)
    from coopt_fl import api

    _print(api.run(name, changes, out=out, progress=_level()).summary, show.summary, as_json)


@app.command()
def centralized(
    prior: Annotated[str, typer.Option(help="A participant's name, or SCHEME:NAME of a prior.")],
    settings: Settings = None,
    out: Annotated[
        Path | None, typer.Option(help="Output directory (default: runs/CONFIG-centralized-PRIOR).")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Let one prior label everything, without Flower: the baseline, in the same format."""
    name, changes = _checked(settings)
    from coopt_fl import api

    done = api.centralized(name, changes, prior=prior, out=out, progress=_level())
    _print(done.summary, show.summary, as_json)


@app.command()
def train(
    dataset: Annotated[
        str,
        typer.Argument(
            help="A run directory, the dataset folder in it, or the URL that one was pushed to."
        ),
    ],
    changes: Changes = None,
    model: Annotated[
        str | None, typer.Option(help="convnet:WIDTH, a torchvision name, or timm:NAME.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where the student goes (default: students/ beside it).")
    ] = None,
    devices: Devices = None,
    as_json: AsJson = False,
) -> None:
    """Train a student on an optimized dataset; the same command continues a stopped training.

    What a URL names is pulled first, as by `coopt pull`.
    """
    from coopt_fl import api
    from coopt_fl.core.runtime import is_first_process

    settings = [*(changes or []), *([f"student.model={model}"] if model else [])]
    trained = api.train(dataset, settings, out=out, devices=devices or "auto", progress=_level())
    if is_first_process():
        _print(trained, show.trained, as_json)


@app.command()
def pretrain(
    settings: Settings = None,
    objective: Annotated[
        str | None,
        typer.Option(
            help="simclr, byol, dino, moco, simsiam, swav, dcl, instdisc; regression and rela on "
            "the targets of --dataset (default: student.objective)."
        ),
    ] = None,
    dataset: Annotated[
        Path | None, typer.Option(help="Output of `coopt run` or `coopt centralized`.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Output directory (default: runs/CONFIG-OBJECTIVE). A training there with other "
            "settings is replaced."
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many, from `seed` on.")] = 1,
    probe_every: Annotated[int, typer.Option(min=1, help="Epochs between two probes.")] = 1,
    against: Annotated[
        Path | None,
        typer.Option(help="Output of another pretrain: how many times faster is this one?"),
    ] = None,
    devices: Devices = None,
    as_json: AsJson = False,
) -> None:
    """Train a student without labels, by our regression or by a self-supervised baseline.

    Every objective has the same loop, images, optimizer, precision, clock and probe. The same
    command continues where it was stopped.
    """
    chosen = [f"student.objective={objective}"] if objective else []
    name, changes = _checked(settings, chosen)
    from coopt_fl import api
    from coopt_fl.core.runtime import is_first_process

    found = api.pretrain(
        name,
        changes,
        dataset=dataset,
        out=out,
        seeds=seeds,
        probe_every=probe_every,
        devices=devices or "auto",
        against=against,
        progress=_level(),
    )
    if is_first_process():
        _print(found, show.pretrained, as_json)


@app.command()
def probe(
    checkpoint: Checkpoint,
    changes: Elsewhere = None,
    as_json: AsJson = False,
) -> None:
    """Judge a student by a linear classifier on its frozen features, on the data it came from."""
    from coopt_fl import api

    _print(api.probe(checkpoint, changes or [], progress=_level()), show.probed, as_json)


@app.command()
def evaluate(
    checkpoint: Checkpoint,
    changes: Elsewhere = None,
    fine_tune: Annotated[
        int, typer.Option(min=0, help="Epochs of training all of it on the labels; 0: none.")
    ] = 5,
    as_json: AsJson = False,
) -> None:
    """Judge a student as a classifier: linear, kNN, by class, with few labels, and fine-tuned."""
    from coopt_fl import api

    found = api.evaluate(checkpoint, changes or [], fine_tune=fine_tune, progress=_level())
    _print(asdict(found), show.evaluated, as_json)


@app.command()
def embed(
    model: Annotated[
        str, typer.Argument(help="A student's checkpoint or run, or SCHEME:NAME of a prior.")
    ],
    source: Annotated[
        str, typer.Argument(help="A folder of images, or as data.source (`coopt doctor`).")
    ],
    out: Annotated[Path, typer.Option(help="The Parquet file.")],
    changes: Annotated[
        list[str] | None,
        typer.Argument(metavar="[data.KEY=VALUE]...", help="Where they are, as in data.root=DIR."),
    ] = None,
    split: Annotated[str, typer.Option(help="train or test.")] = "train",
    as_json: AsJson = False,
) -> None:
    """Write the embeddings of images as a Parquet file: id, image, embedding, label where known.

    The same command continues where it was stopped.
    """
    from coopt_fl import api

    made = api.embed(model, source, changes or [], out=out, split=split, progress=_level())
    _print(asdict(made), show.embedded, as_json)


@app.command()
def export(
    checkpoint: Checkpoint,
    to: Annotated[str, typer.Option(help="timm, torchvision or onnx (`coopt doctor`: which).")],
    out: Annotated[Path, typer.Option(help="The folder that gets the files.")],
    changes: CodeOfStudent = None,
    as_json: AsJson = False,
) -> None:
    """Write a student as other tools read it, verify its features, and print how to load it."""
    from coopt_fl import api

    exported = api.export(checkpoint, changes or [], to=to, out=out, progress=_level())
    _print(asdict(exported), show.exported, as_json)


@app.command()
def inspect(dataset: Dataset, as_json: AsJson = False) -> None:
    """Verify every checksum and id of an optimized dataset, and print where it comes from."""
    from coopt_fl import api

    found = api.inspect(dataset)
    _print(found, show.inspected, as_json)
    if found["problems"]:
        raise typer.Exit(1)


@app.command()
def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN_DIR...", help="What run, centralized or pretrain wrote."),
    ],
    out: Annotated[Path, typer.Option("--out", help="The HTML file.")] = Path("report.html"),
    as_json: AsJson = False,
) -> None:
    """Show one or several runs on one HTML page, which is readable offline."""
    from coopt_fl import api

    found = api.write_report(runs, out=out, progress=_level())
    _print(found, show.reported, as_json)


@app.command()
def publish_shards(
    out: Annotated[str, typer.Option(help="Where to: a directory, file:// or s3:// URL.")],
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Publish the images for participants that do not hold them: a file for each block.

    The same command continues where it was stopped.
    """
    name, changes = _checked(settings)
    from coopt_fl import api

    published = api.publish_shards(name, changes, url=out, progress=_level())
    _print(published, show.published, as_json)


@app.command()
def push(
    run: Dataset,
    url: Annotated[
        str,
        typer.Argument(help="Where to: a directory, file:// or s3:// URL, or hf://USER/NAME."),
    ],
    as_json: AsJson = False,
) -> None:
    """Push a dataset with card, Croissant description and student to a URL, to be pulled there.

    The same command continues where it was stopped. To the Hugging Face hub goes one commit, by
    huggingface_hub, to a repository that is private if it is new; our tests do not ask the hub.
    """
    from coopt_fl import api

    _print(api.push(run, url, progress=_level()), show.pushed, as_json)


@app.command()
def pull(
    url: Annotated[str, typer.Argument(help="What `coopt push` was given.")],
    out: Annotated[
        Path | None, typer.Option(help="Output directory (default: runs/NAME, after the URL).")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Pull a dataset that was pushed, verify every digest, and train on it as on one of yours.

    The same command continues where it was stopped.
    """
    from coopt_fl import api

    _print(api.pull(url, out=out, progress=_level()), show.pulled, as_json)


@app.command()
def config(
    settings: Settings = None,
    fit: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write a configuration that suits the images in this folder, which holds train/ "
            "and val/, or Parquet files (CONFIG gives the participants; default: parquet).",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The YAML file that --fit writes (default: DIR's name).")
    ] = None,
    explain: Annotated[
        bool,
        typer.Option("--explain", help="Explain keys or sections, such as student.lr; none: all."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Print the resolved configuration: every key with its value; or fit one, or explain keys."""
    if (fit is not None) + explain > 1 or (out and not fit):
        raise ConfigError("give one of --fit and --explain; --out goes with --fit alone")
    if explain:
        from coopt_fl.config.explain import explain as explained

        _print(explained(settings or []), show.explained, as_json)
    elif fit:
        from coopt_fl.ops.fit import fit as fitted

        _print(fitted(fit, out, *_named(settings, "parquet")), show.fitted, as_json)
    else:
        from coopt_fl.config.load import load_config

        _print(asdict(load_config(*_named(settings))), show.configuration, as_json)


@app.command()
def doctor(settings: Settings = None, as_json: AsJson = False) -> None:
    """Show devices, versions, parts, and which priors and sources can be used here, or why not.

    Settings matter where they name plug-ins: coopt doctor plugins=mine.py
    """
    if settings:
        _checked(settings)
    from coopt_fl.ops import doctor

    _print(doctor.examine(), show.examined, as_json)


@app.command()
def bench(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...",
            help="optimize, handwritten, alignment, student, sharing, fusion, startup, imports, "
            "transport (default: all).",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Keep the results here, as JSON.")] = None,
    compare: Annotated[
        Path | None, typer.Option(help="Show what changed since the run that wrote this file.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure how near to the hardware this host comes: ratios to rooflines of the same run."""
    from coopt_fl.bench import suite

    def told(row: dict[str, Any]) -> None:
        if _level() != "quiet":
            print(suite.line(row), file=sys.stderr)

    found = suite.bench(names or [], out, compare, told)
    _print(found, suite.rendered, as_json)


@app.command()
def certificate(
    hosts: Annotated[
        list[str],
        typer.Argument(
            metavar="HOST...", help="Names and IP addresses by which the platform is reached."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder of the files.")] = Path("certificates"),
    as_json: AsJson = False,
) -> None:
    """Make a private CA and the platform's TLS certificate, for a deployment.

    Participants need ca.crt, the SuperLink and nginx server.pem and server.key. The CA is valid
    for 10 years, the certificate for 397 days: the same command renews it and keeps the keys.
    """
    from coopt_fl.ops import certificates

    _print(certificates.make_certificate(hosts, out), show.certified, as_json)


@app.command()
def key(
    file: Annotated[Path, typer.Argument(help="Gets the private key; FILE.pub gets the public.")],
    as_json: AsJson = False,
) -> None:
    """Make the key pair by which the SuperLink knows a participant's SuperNode.

    The platform registers FILE.pub; FILE never leaves the participant's host. A key does not
    expire: it is valid until the platform unregisters it.
    """
    from coopt_fl.ops import certificates

    _print(certificates.make_key_pair(file), show.key_pair, as_json)


def main() -> None:
    """Run the command line."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)  # before torch is imported
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a letter that a terminal lacks ends no command
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except Exception as error:  # outside of any command
        sys.exit(_told(error))
    except SystemExit as ended:
        if ended.code != INTERRUPTED:  # which is what typer makes of Ctrl-C
            raise
        print("interrupted; the same command continues", file=sys.stderr, flush=True)
        os._exit(INTERRUPTED)  # without waiting for Ray's threads


def _told(error: Exception) -> int:
    """Say in one sentence what went wrong, and return the exit code."""
    if isinstance(error, CooptError):
        sentence, code = f"error: {error}", error.exit_code
    else:
        from coopt_fl.core.typed import plain_words  # which imports numpy

        place, what = log_of(error), plain_words(str(error))[:WORDS]
        known = f"{type(error).__name__}: {what}" if what else type(error).__name__
        where = f"its traceback is in {place}" if place else "--verbose shows its traceback"
        sentence, code = f"error: this was not foreseen: {known}; {where}", 1
    Console(stderr=True).print(sentence, markup=False, highlight=False, soft_wrap=True)
    return code


def _level() -> Level:
    """Return how much the options ask for."""
    asked = click.get_current_context().find_root().params
    return "quiet" if asked["quiet"] else "verbose" if asked["verbose"] else "normal"


def _named(settings: list[str] | None, default: str = "digits") -> tuple[str, list[str]]:
    """Return the configuration's name, which comes first and has no '=', and the changes."""
    name, *changes = settings or [default]
    return (default, [name, *changes]) if "=" in name else (name, changes)


def _checked(settings: list[str] | None, more: Sequence[str] = ()) -> tuple[str, list[str]]:
    """Return the same once it is valid: commands import what takes seconds only then."""
    from coopt_fl.config.load import load_config

    name, changes = _named(settings)
    changes += more
    load_config(name, changes)
    return name, changes


def _print(value: dict[str, Any], render: Callable[[dict[str, Any]], Any], as_json: bool) -> None:
    """Print for people, or as one line for machines (then people read stderr)."""
    console = Console(stderr=as_json)
    if not console.file.isatty():
        console.width = show.PIPE_WIDTH
    console.print(render(value), crop=False)  # or what is to be copied would lose its end
    if as_json:
        utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
        print(json.dumps(value, ensure_ascii=not utf8), flush=True)
