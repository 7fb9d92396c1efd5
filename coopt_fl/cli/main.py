"""The ``coopt`` command: each command parses, calls one function and prints its result."""

import gc
import io
import os
import sys
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import click
import typer
from typer.core import TyperGroup

from coopt_fl import __version__
from coopt_fl.cli.around import bench, certificate, config, doctor, key
from coopt_fl.cli.options import (
    AsJson,
    Changes,
    Checkpoint,
    CodeOfStudent,
    Dataset,
    Devices,
    Elsewhere,
    Out,
    Settings,
    checked,
    level,
)
from coopt_fl.cli.sharing import publish_shards, pull, push
from coopt_fl.cli.show import print_result, tell_error
from coopt_fl.core.errors import INTERRUPTED, ConfigError, OutputError
from coopt_fl.report import console as show

SPINS = "1000"
"""How often an OpenMP thread polls before it sleeps: with the default, the threads of a small
student on a busy host spend most of their time spinning (docs/performance.md)."""

GARBAGE_EVERY = 10_000
"""New objects until Python looks for garbage. With its own 700, a ninth of the CPU time of
importing what a run needs goes into that (docs/performance.md)."""

OF_ALL = ("--quiet", "--verbose")
"""Options of every command, which may stand anywhere before a ``--``."""


class Commands(TyperGroup):
    """Reports an error of any command as one sentence and an exit code."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Move the options of all commands to the front, where click looks for them."""
        end = args.index("--") if "--" in args else len(args)
        moved = [word for word in args[:end] if word in OF_ALL]
        rest = [word for word in args[:end] if word not in OF_ALL]
        return super().parse_args(ctx, [*moved, *rest, *args[end:]])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        helped = "--help" in ctx.args  # asked now, since click removes it
        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, click.Abort, click.ClickException, BrokenPipeError):
            raise  # click turns these into exit codes
        except Exception as error:
            if helped and isinstance(error, OSError):
                raise  # main() reports help that cannot be printed
            if ctx.params["verbose"]:
                traceback.print_exception(error)
            sys.exit(tell_error(error))


app = typer.Typer(
    name="coopt",
    cls=Commands,
    no_args_is_help=True,
    suggest_commands=False,  # click suggests them as well
    pretty_exceptions_enable=False,
)


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

    The options --quiet and --verbose may also follow the command.
    """
    if quiet and verbose:
        raise typer.BadParameter("give --quiet or --verbose, not both")


@app.command()
def run(settings: Settings = None, out: Out = None, as_json: AsJson = False) -> None:
    """Optimize data with all participants (simulated on this host), train a student, probe it.

    The same command on the same directory continues where it was stopped.
    """
    name, changes = checked(settings)
    from coopt_fl import api

    print_result(api.run(name, changes, out=out, progress=level()).summary, show.summary, as_json)


@app.command()
def centralized(
    prior: Annotated[str, typer.Option(help="A participant's name, or SCHEME:NAME of a prior.")],
    settings: Settings = None,
    out: Annotated[
        Path | None, typer.Option(help="Output directory (default: runs/CONFIG-centralized-PRIOR).")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Assign all targets by one prior, without Flower: the baseline, in the same format."""
    name, changes = checked(settings)
    from coopt_fl import api

    done = api.centralized(name, changes, prior=prior, out=out, progress=level())
    print_result(done.summary, show.summary, as_json)


@app.command()
def train(
    dataset: Annotated[
        str,
        typer.Argument(
            help="A run directory, the dataset folder in it, or a URL that a dataset was pushed to."
        ),
    ],
    changes: Changes = None,
    model: Annotated[
        str | None, typer.Option(help="convnet:WIDTH, a torchvision name, or timm:NAME.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Output directory (default: students/MODEL beside the dataset)."),
    ] = None,
    devices: Devices = None,
    as_json: AsJson = False,
) -> None:
    """Train a student on an optimized dataset; the same command continues a stopped training.

    From a URL, the dataset is pulled first, as by `coopt pull`.
    """
    from coopt_fl import api
    from coopt_fl.core.runtime import is_first_process

    settings = [*(changes or []), *([f"student.model={model}"] if model else [])]
    trained = api.train(dataset, settings, out=out, devices=devices or "auto", progress=level())
    if is_first_process():
        print_result(trained, show.trained, as_json)


@app.command()
def pretrain(
    settings: Settings = None,
    objective: Annotated[
        str | None,
        typer.Option(
            help="simclr, byol, dino, moco, simsiam, swav, dcl, instdisc; or, on the targets of "
            "--dataset, regression or rela (default: student.objective)."
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
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds, from `seed` on.")] = 1,
    probe_every: Annotated[int, typer.Option(min=1, help="Epochs between two probes.")] = 1,
    against: Annotated[
        Path | None,
        typer.Option(help="Output of a baseline's pretrain, to print the speed-up over it."),
    ] = None,
    devices: Devices = None,
    as_json: AsJson = False,
) -> None:
    """Train a student without labels, by our regression or by a self-supervised baseline.

    All objectives share the loop, images, optimizer, precision, clock and probe. The same command
    continues where it was stopped.
    """
    chosen = [f"student.objective={objective}"] if objective else []
    name, changes = checked(settings, chosen)
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
        progress=level(),
    )
    if is_first_process():
        print_result(found, show.pretrained, as_json)


@app.command()
def probe(
    checkpoint: Checkpoint,
    changes: Elsewhere = None,
    as_json: AsJson = False,
) -> None:
    """Judge a student by a linear probe on its frozen features, on the data it was trained on."""
    from coopt_fl import api

    print_result(api.probe(checkpoint, changes or [], progress=level()), show.probed, as_json)


@app.command()
def evaluate(
    checkpoint: Checkpoint,
    changes: Elsewhere = None,
    fine_tune: Annotated[
        int, typer.Option(min=0, help="Epochs of fine-tuning the whole student; 0: none.")
    ] = 5,
    as_json: AsJson = False,
) -> None:
    """Judge a student as a classifier: linear, kNN, per class, with few labels, and fine-tuned."""
    from coopt_fl import api

    found = api.evaluate(checkpoint, changes or [], fine_tune=fine_tune, progress=level())
    print_result(asdict(found), show.evaluated, as_json)


@app.command()
def embed(
    model: Annotated[
        str, typer.Argument(help="A student's checkpoint or run, or SCHEME:NAME of a prior.")
    ],
    source: Annotated[
        str,
        typer.Argument(help="A folder of images, or a value of data.source (see `coopt doctor`)."),
    ],
    out: Annotated[Path, typer.Option(help="The Parquet file to write.")],
    changes: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[data.KEY=VALUE]...", help="Settings of the images, such as data.root=DIR."
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="The split: train or test.")] = "train",
    as_json: AsJson = False,
) -> None:
    """Write the embeddings of images as a Parquet file: id, image, embedding, label if known.

    The same command continues where it was stopped.
    """
    from coopt_fl import api

    made = api.embed(model, source, changes or [], out=out, split=split, progress=level())
    print_result(asdict(made), show.embedded, as_json)


@app.command()
def export(
    checkpoint: Checkpoint,
    to: Annotated[
        str, typer.Option(help="timm, torchvision or onnx; `coopt doctor` says which work here.")
    ],
    out: Annotated[Path, typer.Option(help="The folder for the files.")],
    changes: CodeOfStudent = None,
    as_json: AsJson = False,
) -> None:
    """Export a student to another tool's format, verify its features, and print how to load it."""
    from coopt_fl import api

    exported = api.export(checkpoint, changes or [], to=to, out=out, progress=level())
    print_result(asdict(exported), show.exported, as_json)


@app.command()
def inspect(dataset: Dataset, as_json: AsJson = False) -> None:
    """Verify every checksum and id of an optimized dataset, and print its provenance."""
    from coopt_fl import api

    found = api.inspect(dataset)
    print_result(found, show.inspected, as_json)
    if found["problems"]:
        raise typer.Exit(1)


@app.command()
def report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN_DIR...", help="Output directories of run, centralized or pretrain."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="The HTML file to write.")] = Path(
        "report.html"
    ),
    as_json: AsJson = False,
) -> None:
    """Show one or several runs on one HTML page, which can be read offline."""
    from coopt_fl import api

    found = api.write_report(runs, out=out, progress=level())
    print_result(found, show.reported, as_json)


for command in (publish_shards, push, pull, config, doctor, bench, certificate, key):
    app.command()(command)


def _require_working_folder() -> None:
    try:
        Path.cwd()
    except FileNotFoundError:
        raise ConfigError("the working folder was removed: change to another one (cd)") from None


def main() -> None:
    """Run the command line."""
    gc.set_threshold(GARBAGE_EVERY)
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)  # before torch is imported
    if not os.environ.get("COLUMNS", "1").strip("0"):  # 0 without a terminal, where nothing fits
        del os.environ["COLUMNS"]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # or a character outside its encoding would raise
            stream.reconfigure(errors="backslashreplace")
    try:
        _require_working_folder()
        app()
    except Exception as error:  # outside of any command
        if isinstance(error, OSError) and error.filename is None:  # while printing help or version
            error = OutputError(f"this cannot be printed ({error.strerror}): print it elsewhere")
        sys.exit(tell_error(error))
    except SystemExit as ended:
        if ended.code != INTERRUPTED:  # typer's exit code after Ctrl-C
            raise
        print("interrupted; the same command continues", file=sys.stderr, flush=True)
        os._exit(INTERRUPTED)  # without waiting for Ray's threads
