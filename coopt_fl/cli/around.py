"""Commands around a run: configurations, this host, and the keys of a deployment."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from coopt_fl.bench import MODULES
from coopt_fl.cli.options import AsJson, Settings, checked, level, named
from coopt_fl.cli.show import print_result
from coopt_fl.core.errors import ConfigError
from coopt_fl.report import console as show


def config(
    settings: Settings = None,
    fit: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write a configuration that suits the images in this folder, which contains "
            "train/ and val/, or Parquet files (CONFIG gives the participants; default: parquet).",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The YAML file that --fit writes (default: DIR's name).")
    ] = None,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain", help="Explain the keys or sections given, such as student.lr; else all."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Print the resolved configuration, every key with its value; or fit one, or explain keys."""
    if (fit is not None) + explain > 1 or (out and not fit):
        raise ConfigError("give only one of --fit and --explain; --out goes with --fit alone")
    if explain:
        from coopt_fl.config.explain import explain as explained

        print_result(explained(settings or []), show.explained, as_json)
    elif fit:
        from coopt_fl.ops.fit import fit as fitted

        print_result(fitted(fit, out, *named(settings, "parquet")), show.fitted, as_json)
    else:
        from coopt_fl.config.load import load_config

        print_result(asdict(load_config(*named(settings))), show.configuration, as_json)


def doctor(settings: Settings = None, as_json: AsJson = False) -> None:
    """Show devices, versions, parts, and which priors and sources can be used here, or why not.

    Settings make a difference only if they name plug-ins: coopt doctor plugins=mine.py
    """
    if settings:
        checked(settings)
    from coopt_fl.ops import doctor

    print_result(doctor.examine(), show.examined, as_json)


def bench(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...",
            help=f"{', '.join(MODULES)} (default: all).",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the results to this file, as JSON.")
    ] = None,
    compare: Annotated[
        Path | None, typer.Option(help="Show what changed since the run that wrote this file.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure how close this host comes to its limits: ratios to rooflines of the same run."""
    from coopt_fl.bench import suite

    def show_row(row: dict[str, Any]) -> None:
        if level() != "quiet":
            print(suite.line(row), file=sys.stderr)

    found = suite.bench(names or [], out, compare, show_row)
    print_result(found, suite.rendered, as_json)


def certificate(
    hosts: Annotated[
        list[str],
        typer.Argument(metavar="HOST...", help="Host names and IP addresses of the platform."),
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for the files.")] = Path(
        "certificates"
    ),
    as_json: AsJson = False,
) -> None:
    """Make a private CA and the platform's TLS certificate, for a deployment.

    Participants need ca.crt; the SuperLink and nginx need server.pem and server.key. The CA is
    valid for 10 years, the certificate for 397 days: the same command renews it and keeps the keys.
    """
    from coopt_fl.ops import certificates

    print_result(certificates.make_certificate(hosts, out), show.certified, as_json)


def key(
    file: Annotated[
        Path, typer.Argument(help="File for the private key; the public key goes to FILE.pub.")
    ],
    as_json: AsJson = False,
) -> None:
    """Make the key pair by which the SuperLink authenticates a participant's SuperNode.

    The platform registers FILE.pub; FILE never leaves the participant's host. A key does not
    expire: it is valid until the platform unregisters it.
    """
    from coopt_fl.ops import certificates

    print_result(certificates.make_key_pair(file), show.key_pair, as_json)
