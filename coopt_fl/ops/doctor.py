"""``coopt doctor``: which priors and sources this host can use; loads and downloads nothing."""

from typing import Any

from coopt_fl.config.load import config_names, load_config
from coopt_fl.config.schema import DataConfig
from coopt_fl.core.runtime import devices
from coopt_fl.data.sources import hf
from coopt_fl.data.sources.downloads import DOWNLOADS, address, present, to_fetch
from coopt_fl.optimized.provenance import versions
from coopt_fl.priors import check_prior
from coopt_fl.priors.hub import answers
from coopt_fl.registry import KEYS, PARTS
from coopt_fl.students.export import destinations, onnx

TREES = {
    "tiny_imagenet": "train/WNID/images/*.JPEG and val/images/*.JPEG",
    "imagefolder": "train/CLASS/* and val/CLASS/*, or only images to train on",
    "parquet": "*train*.parquet and *test*.parquet, or a repository of the Hugging Face hub",
    "hf": "what save_to_disk wrote, or give data.root=hf://USER/NAME",
    "webdataset": "*train*.tar and *test*.tar, or give a URL such as s3://DIR/x-{000..099}.tar",
    "manifest": "train.csv and test.csv (or .tsv, .jsonl), or give one such file",
    "arrays": "train-images.npy, as source.save(DIR) writes it",
}
"""Files that sources look for in ``data.root``."""


def examine() -> dict[str, Any]:
    """Return devices, versions, parts, exports, and each prior's and source's problem or None."""
    configs = [load_config(name) for name in config_names()]
    priors = dict.fromkeys(one.prior for config in configs for one in config.participants)
    return {
        "devices": devices(),
        "versions": versions(),
        "parts": {kind: PARTS.names(kind) for kind in KEYS},
        "plug-ins": {
            f"{part.kind} {part.name}": part.origin for part in PARTS.all() if not part.shipped
        },
        "priors": {spec: _prior_problem(spec) for spec in priors},
        "sources": {
            name: _source_problem(name) for name in PARTS.names("source") if name != "python"
        },
        "exports": destinations() | {"to onnx, on this host": onnx.problem() or "yes"},
    }


def _prior_problem(spec: str) -> str | None:
    problem = check_prior(spec)
    return problem and problem.removeprefix(f"prior {spec!r}: ")


def _source_problem(name: str) -> str | None:
    if name == "hf" and (missing := hf.problem()):
        return missing
    if name in DOWNLOADS:
        return _download_problem(name)
    if PARTS.find("source", name).fact("needs_root"):
        return f"give data.root=DIR that holds {TREES.get(name, 'its files')}"
    return None


def _download_problem(name: str) -> str | None:
    if present(DataConfig(source=name)) or answers(address(name)):
        return None
    fetch = to_fetch(name)
    return f"not in the cache, and the network does not answer: fetch {fetch}, set data.root"
