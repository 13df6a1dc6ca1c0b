"""Dictionaries as AV-CIL publishes them."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest


def _save(path: Path, content: object, protocol: int = 3) -> None:
    """Write as np.save does, in the pickle protocol of the NumPy of that day."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.empty((), object)
    array[()] = content
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|O", "fortran_order": False, "shape": ()}
        )
        pickle.dump(array, file, protocol=protocol)


@pytest.fixture
def save() -> Callable[..., None]:
    """Return a function that saves a dictionary: save(path, content, protocol=3)."""
    return _save
