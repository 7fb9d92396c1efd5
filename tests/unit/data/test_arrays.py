"""Saved arrays, and errors about arrays that do not match."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from coopt_fl.config.schema import DataConfig
from coopt_fl.core.errors import DataError
from coopt_fl.data import open_source

GREY = np.zeros((3, 4, 4), np.uint8)
FLAT = np.zeros(3 * (2 * 2 + 3 * 3), np.uint8)
SIZES = np.array([[2, 2], [3, 3]])

WRONG = {
    "float": ({"images": GREY.astype(float)}, r"train-images are float64 \(3, 4, 4\), not uint8"),
    "channels": ({"images": np.zeros((3, 4, 4, 2), np.uint8)}, r"\(3, 4, 4, 2\), not uint8 \(N, H"),
    "no rows": (
        {"images": GREY[:0]},
        r"train-images are uint8 \(0, 4, 4\), so that there are none",
    ),
    "not flat": ({"images": GREY, "sizes": SIZES}, r"not uint8 \(bytes,\), as beside sizes"),
    "size type": ({"images": FLAT, "sizes": SIZES[0]}, r"train-sizes are int64 \(2,\), not int64"),
    "no sizes": ({"images": FLAT, "sizes": SIZES[:0]}, "train-sizes have no rows"),
    "size 0": ({"images": FLAT, "sizes": SIZES - 2}, "train-sizes hold 0 to 1, and not only"),
    "short": ({"images": FLAT[1:], "sizes": SIZES}, "have 38 bytes, but by their sizes 39"),
    "labels": ({"images": GREY, "labels": np.zeros(2, int)}, r"train-labels are int64 \(2,\), not"),
    "int32": ({"images": GREY, "labels": np.zeros(3, np.int32)}, r"labels are int32 \(3,\), not"),
}


def saved(root: Path, arrays: dict[str, NDArray[np.generic]]) -> DataConfig:
    for part, array in arrays.items():
        np.save(root / f"train-{part}.npy", array)
    return DataConfig(source="arrays", root=str(root))


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_wrong_is_named(kind: str, tmp_path: Path) -> None:
    arrays, said = WRONG[kind]
    with pytest.raises(DataError, match=said):
        open_source(saved(tmp_path, arrays))


def test_sound_ones_are_read(tmp_path: Path) -> None:
    source = open_source(
        saved(tmp_path, {"images": FLAT, "sizes": SIZES, "labels": np.zeros(2, int)})
    )
    assert [image.shape for image in source.read(source.ids)] == [(3, 2, 2), (3, 3, 3)]
