"""Commands that share: images as shards, and datasets with their students."""

from pathlib import Path
from typing import Annotated

import typer

from coopt_fl.cli.options import AsJson, Dataset, Settings, checked, level
from coopt_fl.cli.show import print_result
from coopt_fl.report import console as show


def publish_shards(
    out: Annotated[str, typer.Option(help="Where to: a directory, file:// or s3:// URL.")],
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Publish the images for participants that do not hold them: a file for each block.

    The same command continues where it was stopped.
    """
    name, changes = checked(settings)
    from coopt_fl import api

    published = api.publish_shards(name, changes, url=out, progress=level())
    print_result(published, show.published, as_json)


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

    print_result(api.push(run, url, progress=level()), show.pushed, as_json)


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

    print_result(api.pull(url, out=out, progress=level()), show.pulled, as_json)
