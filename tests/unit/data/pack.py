"""The same images and labels, packed as each source takes them."""

import csv
import gzip
import io
import json
import re
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import fsspec

from coopt_fl.config.schema import DataConfig
from tests.unit.data import make

Split = tuple[Sequence[bytes], Sequence[str]]
"""The bytes of images, and their labels."""

Splits = Mapping[str, Split]

NUMBER = re.compile(r"-?\d+")


def typed(labels: Sequence[str]) -> list[str] | list[int]:
    """Convert labels to integers if all are integers, for formats with types."""
    return [int(one) for one in labels] if all(map(NUMBER.fullmatch, labels)) else list(labels)


def tar(samples: Sequence[tuple[str, bytes]]) -> bytes:
    """A tar file with these names and contents."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in samples:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


def shard(split: Split, start: int = 0, stop: int | None = None) -> bytes:
    """Some samples of a split as a shard."""
    rows = list(enumerate(zip(*split, strict=True)))[start:stop]
    members = []
    for row, (image, label) in rows:
        members += [(f"{row:04}.png", image), (f"{row:04}.cls", label.encode())]
    return tar(members)


def parquet(root: Path, splits: Splits) -> DataConfig:
    for name, (images, labels) in splits.items():
        make.parquet(root / f"{name}.parquet", list(images), label=typed(labels))
    return DataConfig("parquet", str(root))


def repository(root: Path, splits: Splits) -> DataConfig:
    """Write a repository in the layout of the Hugging Face Hub, with a card."""
    for name, (images, labels) in splits.items():
        half = len(images) // 2
        for number, part in enumerate([slice(half), slice(half, None)]):
            path = root / f"data/{name}-0000{number}-of-00002.parquet"
            structs = [{"bytes": image, "path": None} for image in images[part]]
            make.parquet(path, structs, label=typed(labels)[part])
    make.write(root / "README.md", b"---\nlicense: cc-by-4.0\n---\n# words\n")
    return DataConfig("parquet", str(root))


def converted(root: Path, splits: Splits) -> DataConfig:
    """Write Parquet files in the layout of the Hub's automatic conversion."""
    for name, (images, labels) in splits.items():
        make.parquet(root / f"default/{name}/0000.parquet", list(images), label=typed(labels))
    return DataConfig("parquet", str(root))


def saved(root: Path, splits: Splits) -> DataConfig:
    """Write files with ``save_to_disk``."""
    import datasets

    made = {
        name: datasets.Dataset.from_dict(
            {
                "label": typed(labels),
                "image": [{"bytes": one, "path": None} for one in images],
            }
        ).cast_column("image", datasets.Image())
        for name, (images, labels) in splits.items()
    }
    datasets.DatasetDict(made).save_to_disk(str(root))
    return DataConfig("hf", str(root))


def shards(root: Path, splits: Splits) -> DataConfig:
    for name, split in splits.items():
        make.write(root / f"x-{name}-000.tar", shard(split, 0, 3))
        make.write(root / f"x-{name}-001.tar", shard(split, 3))
    return DataConfig("webdataset", str(root))


def remote(root: Path, splits: Splits) -> DataConfig:
    """Write shards to fsspec's ``memory:`` file system, which belongs to a single process."""
    url = f"memory://{root.parent.name}/{root.name}"
    for name, split in splits.items():
        fsspec.filesystem("memory").pipe_file(f"{url}/x-{name}-000.tar", shard(split))
    return DataConfig("webdataset", url)


def compressed(root: Path, splits: Splits) -> DataConfig:
    """Write compressed shards, which can only be read sequentially."""
    for name, split in splits.items():
        make.write(root / f"x-{name}-000.tar.gz", gzip.compress(shard(split)))
    return DataConfig("webdataset", str(root))


def _files(root: Path, name: str, images: Sequence[bytes]) -> list[str]:
    paths = [f"files/{name}/{row}.png" for row in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        make.write(root / path, image)
    return paths


def one_list(root: Path, splits: Splits) -> DataConfig:
    """One CSV file with a column of splits."""
    rows: list[Any] = []
    for name, (images, labels) in splits.items():
        paths = _files(root, name, images)
        rows += zip(paths, labels, [name] * len(paths), strict=True)
    with (root / "all.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "split"), *rows])
    return DataConfig("manifest", str(root / "all.csv"))


def lists(root: Path, splits: Splits) -> DataConfig:
    """Write JSON lines beside each split's images, as for Hugging Face's ``imagefolder``."""
    for name, (images, labels) in splits.items():
        lines = []
        for row, (image, label) in enumerate(zip(images, labels, strict=True)):
            make.write(root / f"{name}/{row}.png", image)
            lines.append(json.dumps({"file_name": f"{row}.png", "label": label}))
        make.write(root / f"{name}/metadata.jsonl", "\n".join(lines).encode())
    return DataConfig("manifest", str(root))


PACKED: dict[str, Callable[[Path, Splits], DataConfig]] = {
    made.__name__: made
    for made in (
        *(parquet, repository, converted, saved, shards, remote, compressed, one_list, lists),
    )
}
