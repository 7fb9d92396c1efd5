"""Commands that share images as shards, and datasets with their students."""

from pathlib import Path
from typing import Annotated

import typer

from coopt_fl.cli.options import AsJson, Dataset, Settings, checked, level
from coopt_fl.cli.show import print_result
from coopt_fl.report import console as show


def publish_shards(
    out: Annotated[str, typer.Option(help="Destination: a directory, file:// or s3:// URL.")],
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Publish the images as shards, one file per block, for participants that do not hold them.

    The same command continues where it was stopped.
    """
    name, changes = checked(settings)
    from coopt_fl import delivery

    published = delivery.publish_shards(name, changes, url=out, progress=level())
    print_result(published, show.published, as_json)


def push(
    run: Dataset,
    url: Annotated[
        str,
        typer.Argument(help="Destination: a directory, file:// or s3:// URL, or hf://USER/NAME."),
    ],
    as_json: AsJson = False,
) -> None:
    """Push a dataset with card, Croissant description and student to a URL, for `coopt pull`.

    The same command continues where it was stopped. hf:// makes one commit by huggingface_hub; a
    repository that it creates is private. Our tests do not contact the Hugging Face hub.
    """
    from coopt_fl import delivery

    print_result(delivery.push(run, url, progress=level()), show.pushed, as_json)


def pull(
    url: Annotated[str, typer.Argument(help="The URL or directory given to `coopt push`.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Output directory (default: runs/NAME, NAME being the URL's last part)."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Pull a dataset that was pushed and verify every digest; `coopt train` takes it as your own.

    The same command continues where it was stopped.
    """
    from coopt_fl import delivery

    print_result(delivery.pull(url, out=out, progress=level()), show.pulled, as_json)
