"""Tar shards: samples found in them, members left out, and that only needed bytes are read."""

import gzip
import io
import re
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from coopt_fl.config.load import from_tree
from coopt_fl.config.schema import DataConfig
from coopt_fl.core import remote
from coopt_fl.core.errors import ConfigError, DataError
from coopt_fl.data import Source, open_labels, open_source
from coopt_fl.data.source import copy_streams
from coopt_fl.data.tar_index import Fields
from tests.unit.data.make import as_tensor, encode, pixels, write
from tests.unit.data.pack import shard, tar

IMAGES = [encode(pixels(seed)) for seed in range(6)]
SPLIT = IMAGES, ["0", "1", "0", "2", "1", "0"]


def config(root: object, **more: object) -> DataConfig:
    return DataConfig("webdataset", str(root), **more)


def assert_seeds(data: DataConfig, *seeds: int) -> None:
    source = open_source(data)
    for image, seed in zip(source.read(source.ids), seeds, strict=True):
        assert torch.equal(image, as_tensor(pixels(seed)))


def test_only_the_bytes_of_an_image_are_read_once_the_index_is_there(
    monkeypatch: pytest.MonkeyPatch, own_cache: Path
) -> None:
    system, asked = fsspec.filesystem("memory"), list[tuple[int, int]]()
    for number in range(12):
        system.pipe_file(f"/some/x-train-{number:03}.tar", shard(SPLIT))
    data = config("memory://some/x-train-{000..010}.tar")
    assert len(open_source(data)) == 66
    assert len([*own_cache.glob("webdataset/*/index.npz")]) == 11
    real = remote.part

    def part(url: str, start: int, stop: int) -> bytes:
        asked.append((start, stop))
        return real(url, start, stop)

    with monkeypatch.context() as patch:
        patch.setattr(remote, "part", part)
        patch.setattr(remote, "stream", None)  # nothing is read from its beginning on
        source = open_source(data)
        (image,) = source.read(np.array([63]))
    assert torch.equal(image, as_tensor(pixels(3)))
    assert [stop - start for start, stop in asked] == [len(IMAGES[3])]
    assert source.where(63) == "x-train-010.tar sample 0003"
    assert len(open_source(config("memory://some"))) == 72
    assert len(open_source(config("memory://some/x-train-*.tar"))) == 72
    assert len(open_source(config("memory://some/x-train-000.tar"))) == 6
    with pytest.raises(DataError, match=r"there is no .*x-train-012|x-train-012.* cannot be read"):
        open_source(config("memory://some/x-train-{010..012}.tar"))
    with pytest.raises(DataError, match="there are no tar files at memory://nowhere"):
        open_source(config("memory://nowhere"))


def test_a_limit_leaves_later_shards_unread(tmp_path: Path, own_cache: Path) -> None:
    for number in range(20):
        write(tmp_path / f"train-{number:02}.tar", shard(SPLIT))
    data = config(tmp_path, limit=13)
    assert_seeds(data, *range(6), *range(6), 0)
    assert open_labels(data, "train").tolist() == [0, 1, 0, 2, 1, 0] * 2 + [0]
    assert len([*own_cache.glob("webdataset/*/index.npz")]) == 8, "as many as are read at once"
    before = open_source(data).fingerprint
    write(tmp_path / "train-03.tar", shard(SPLIT, 1))
    assert open_source(data).fingerprint == before
    write(tmp_path / "train-02.tar", shard(SPLIT, 1))
    assert open_source(data).fingerprint != before


def test_the_index_is_made_anew_when_a_shard_changes(tmp_path: Path) -> None:
    file = write(tmp_path / "train.tar", shard(SPLIT))
    assert_seeds(config(file), 0, 1, 2, 3, 4, 5)
    before = open_source(config(file)).fingerprint
    write(file, shard(SPLIT, 2))
    assert_seeds(config(file), 2, 3, 4, 5)
    assert open_source(config(file)).fingerprint != before


def test_fields_of_a_sample(tmp_path: Path) -> None:
    members = []
    for row, image in enumerate(IMAGES[:2]):
        told = b'{"label": "%s", "n": %d, "none": null}' % (b"dog" if row else b"cat", row)
        members += [(f"a/b.c/{row}.left.png", image), (f"a/b.c/{row}.right.png", IMAGES[row + 2])]
        members += [(f"a/b.c/{row}.json", told), (f"a/b.c/{row}.breed", b" eel\n")]
    write(tmp_path / "train.tar", tar([*members, ("a/b.c/._0.left.png", b""), ("plain", b"")]))
    with pytest.raises(DataError, match=r"left\.png and right\.png; choose one by data\.image_col"):
        open_source(config(tmp_path))
    data = config(tmp_path, image_column="right.png")
    assert_seeds(data, 2, 3)
    assert "labels may be in left.png or json or breed" in open_source(data).notes[0]
    for column, wanted in {
        "json.label": [0, 1],
        "json.n": [0, 1],
        "breed": [0, 0],
    }.items():
        data.label_column = column
        assert open_labels(data, "train").tolist() == wanted
    for name, texts in {"json.n": ["0", "1"], "breed": ["eel"] * 2, "cls": None}.items():
        found = open_source(data).column(name)
        assert (None if found is None else found.tolist()) == texts
    for column in ("json.none", "json.absent", "absent"):
        data.label_column = column
        with pytest.raises(
            DataError, match=r"no train sample .* has data\.label_column=.*json\.KEY"
        ):
            open_labels(data, "train")
    with pytest.raises(DataError, match=r"image called jpg, but left\.png, right\.png"):
        open_source(config(tmp_path, image_column="jpg"))


def test_samples_without_an_image_are_counted(tmp_path: Path) -> None:
    write(tmp_path / "train.tar", tar([("0.png", IMAGES[0]), ("1.cls", b"1"), ("2.txt", b"x")]))
    source = open_source(config(tmp_path))
    assert len(source) == 1
    assert "2 left out: samples without an image (1)" in source.notes[0]


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "train.tar", tar([("0.png", IMAGES[0]), ("0.png", IMAGES[1])]))
    with pytest.raises(DataError, match=r"train\.tar has two files 0\.png"):
        open_source(config(tmp_path))


def test_long_names_and_links(tmp_path: Path) -> None:
    out, long = io.BytesIO(), "d" * 150 + "/" + "n" * 150
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo(f"{long}.png")
        member.size = len(IMAGES[0])
        archive.addfile(member, io.BytesIO(IMAGES[0]))
        for kind in (tarfile.SYMTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE):
            other = tarfile.TarInfo("other.png")
            other.type, other.linkname = kind, "/etc/passwd"
            archive.addfile(other)
    write(tmp_path / "train.tar", out.getvalue())
    assert_seeds(config(tmp_path), 0)
    assert open_source(config(tmp_path)).where(0).endswith(long)


@pytest.mark.parametrize("left", [2048, 2500, 3000, 6000])
def test_a_torn_shard_is_an_error_or_used_as_far_as_it_goes(left: int, tmp_path: Path) -> None:
    whole = shard(SPLIT)
    write(tmp_path / "train-0.tar", whole[:left])
    write(tmp_path / "train-1.tar", whole)
    write(tmp_path / "train-2.tar", b"<html>404")
    with pytest.raises(DataError, match=r"train-[02]\.tar cannot be read to its end .*on_error=sk"):
        open_source(config(tmp_path))
    data = config(tmp_path, on_error="skip")
    source = open_source(data)
    rows = len(source) - 6
    assert 0 < rows < 6 and rows == len(open_labels(data, "train")) - 6
    assert_seeds(data, *range(rows), *range(6))
    assert f"train-0.tar is torn after {rows} images" in source.notes[0]
    assert "train-2.tar is torn after 0 images" in source.notes[1]


def test_a_compressed_shard_is_a_stream_whatever_its_name(tmp_path: Path) -> None:
    write(tmp_path / "train.tar", gzip.compress(shard(SPLIT)))
    with pytest.raises(DataError, match=r"is compressed, .*rename it to train\.tar\.gz"):
        open_source(config(tmp_path))
    (tmp_path / "train.tar").rename(tmp_path / "train.tar.gz")
    with pytest.raises(DataError, match=r"coopt publish-shards parquet data\.source=webdataset"):
        open_source(config(tmp_path))


class Plain(SimpleHTTPRequestHandler):
    """A web server without support for ranges, like Python's own."""

    def log_message(self, *_: object) -> None:
        pass


class Ranged(Plain):
    """A web server with support for ranges."""

    def do_GET(self) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if asked is None:
            return super().do_GET()
        content = Path(self.translate_path(self.path)).read_bytes()
        start, stop = int(asked[1]), int(asked[2]) + 1
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content[start:stop])))
        self.end_headers()
        self.wfile.write(content[start:stop])
        return None


@contextmanager
def serving(folder: Path, kind: type[Plain]) -> Iterator[str]:
    """Serve a folder, and yield its URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(kind, directory=folder)) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    with serving(tmp_path / "web", Plain) as url:
        yield url


def test_a_web_server_with_ranges_is_read_at_any_place(tmp_path: Path) -> None:
    write(tmp_path / "web/x-train-0.tar", shard(SPLIT))
    with serving(tmp_path / "web", Ranged) as url:
        assert_seeds(config(f"{url}/x-train-{{0..0}}.tar"), 0, 1, 2, 3, 4, 5)


class Rows(Dataset[torch.Tensor]):
    """A dataset of images for a DataLoader."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, row: int) -> torch.Tensor:
        return self.source.read(np.array([row]))[0]


def test_a_bucket_is_read_in_processes_that_were_forked(bucket: str) -> None:
    """The parent has used it before; connections and threads do not survive a fork."""
    remote.store(f"{bucket}/deep/train/0.tar", shard(SPLIT))
    data = config(bucket)
    assert_seeds(data, 0, 1, 2, 3, 4, 5)
    loader = DataLoader(Rows(open_source(data)), num_workers=1, multiprocessing_context="fork")
    for seed, (image,) in enumerate(loader):
        assert torch.equal(image, as_tensor(pixels(seed)))


def test_a_web_server_without_ranges_is_a_stream(server: str, tmp_path: Path) -> None:
    write(tmp_path / "web/x-train-0.tar", shard(SPLIT))
    write(tmp_path / "web/x-test-0.tar", shard(SPLIT, 3))
    for root in (f"{server}/x-train-{{0..0}}.tar", server):
        data = config(root, limit=5)
        with pytest.raises(DataError) as caught:
            open_source(data)
        said = f"`coopt publish-shards parquet data.source=webdataset '?data.root={server}"
        assert caught.match(said) and caught.match("data.limit=5 --out DIR")
        copy_streams(data, lambda split, done: None)
        assert_seeds(data, 0, 1, 2, 3, 4)
        assert open_labels(data, "train").tolist() == [0, 1, 0, 2, 1]


def test_a_url_has_no_password() -> None:
    tree = {"data": {"source": "webdataset", "root": "https://ann:secret@host/x-train-0.tar"}}
    with pytest.raises(ConfigError, match=r"data\.root: 'https://host.* must have no user, passw"):
        from_tree(tree, [], "it", whole=False)


def test_labels_in_json_may_be_anything() -> None:
    fields = Fields(None, "json.label")
    assert fields.text == "json"
    for content, label in {
        b'{"label": 3}': "3",
        b'{"label": true}': "True",
        b'{"label": null}': "",
        b"[]": "",
        b"no json": "",
    }.items():
        assert fields.label_of(content) == label
