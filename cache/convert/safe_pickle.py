"""Read published dictionaries (`np.save` of a dict) without executing what is pickled in them.

A pickle is a program. This reader supports dict, list, tuple, str, bytes, numbers, NumPy arrays and
NumPy scalars; a file that names anything else is refused. Arrays stay in the file until they are
loaded, so opening a dictionary of 20 GB takes only the memory of its index.

    read_dictionary(path)       everything in memory, for lists of clips
    open_dictionary(path)       arrays as StoredArray, for features
"""

from __future__ import annotations

import math
import pickle
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np
from numpy.typing import NDArray

from avcil.cache.errors import DictionaryRefused

LEAVE_BYTES = 1024  # larger arrays stay in the file
TEXT_BYTES = 1 << 20  # no id is longer; a longer text is array data in an old protocol
AGAIN = (
    "if you trust the file, save it again with a current NumPy, "
    "`np.save(path, np.load(path, allow_pickle=True))`, in a disposable environment"
)


@dataclass(frozen=True, slots=True)
class StoredArray:
    """An array that was left in its file."""

    path: Path
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool

    def load(self) -> NDArray[Any]:
        """Read the array."""
        count = math.prod(self.shape)
        flat = np.fromfile(self.path, self.dtype, count, offset=self.offset)
        return flat.reshape(self.shape, order="F" if self.fortran else "C")


_INVALID = (  # what the unpickler and NumPy raise on a damaged file
    pickle.UnpicklingError,
    EOFError,
    struct.error,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    OverflowError,
    MemoryError,
)


def open_dictionary(path: Path) -> dict[Any, Any]:
    """Read a dictionary whose larger arrays are StoredArray.

    Raises:
        DictionaryRefused: it is not a dictionary, is damaged, or contains code.
    """
    try:
        with path.open("rb") as file:
            content = _read_pickle(file, path)
    except DictionaryRefused:
        raise
    except _INVALID as error:
        raise _refused(path, f"its pickle is damaged or of another kind ({error})") from error
    if not isinstance(content, dict):
        raise _refused(path, f"it holds a {type(content).__name__}, not a dictionary")
    return content


def read_dictionary(path: Path) -> dict[Any, Any]:
    """Read a dictionary with all its arrays into memory.

    Raises:
        DictionaryRefused: see open_dictionary.
    """
    loaded = _load(open_dictionary(path))
    assert isinstance(loaded, dict)
    return loaded


def _load(content: Any) -> Any:
    if isinstance(content, StoredArray):
        return content.load()
    if isinstance(content, dict):
        return {key: _load(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return type(content)(_load(item) for item in content)
    return content


def _read_pickle(file: BinaryIO, path: Path) -> Any:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    else:
        shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    if dtype.kind != "O" or shape != ():
        raise _refused(path, f"it holds an array of {dtype} {shape}, not a dictionary")
    return _Unpickler(file, path).load_array()


def _refused(path: Path, why: str) -> DictionaryRefused:
    return DictionaryRefused(f"{path} cannot be read safely: {why}; {AGAIN}")


@dataclass(slots=True)
class _Span:
    """Bytes that were left in the file."""

    offset: int
    length: int


class _DType:
    """Replaces numpy.dtype while unpickling: numbers and texts only."""

    __slots__ = ("dtype",)

    def __init__(self, name: str, *_: object) -> None:
        self.dtype = np.dtype(name)
        if self.dtype.kind not in "biufSUO":
            raise ValueError(f"arrays of {name!r} are not supported")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if self.dtype.kind != "O":
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """Replaces an array while unpickling; `value` is its content."""

    __slots__ = ("value",)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, fortran, data = state
        self.value = _array(tuple(map(int, shape)), kind.dtype, bool(fortran), data)


@dataclass(slots=True)
class _Pending:
    """An array in the file, before its path is known."""

    span: _Span
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool


def _array(shape: tuple[int, ...], dtype: np.dtype[Any], fortran: bool, data: Any) -> Any:
    if dtype.kind == "O":
        return data[0] if shape == () else list(data)
    size = math.prod(shape) * dtype.itemsize
    if isinstance(data, _Span):
        if data.length != size:
            raise ValueError(f"an array of {shape} has {data.length} bytes, not {size}")
        return _Pending(data, shape, dtype, fortran)
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


def _scalar(kind: _DType, data: bytes) -> Any:
    return np.frombuffer(data, kind.dtype)[0].item()


def _latin(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise ValueError(f"bytes in encoding {encoding!r}")
    return text.encode("latin1")


_KNOWN: dict[tuple[str, str], Callable[..., Any]] = {
    ("multiarray", "_reconstruct"): lambda *_: _Array(),
    ("multiarray", "scalar"): _scalar,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _DType,
    ("_codecs", "encode"): _latin,
}
_ARRAY_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")


class _Unpickler(pickle._Unpickler):
    """The unpickler written in Python, because the one in C cannot leave bytes in the file."""

    read: Callable[[int], bytes]
    append: Callable[[object], None]
    _unframer: Any

    def __init__(self, file: BinaryIO, path: Path) -> None:
        super().__init__(file)
        self._source, self._path = file, path
        self._size = path.stat().st_size

    def load_array(self) -> Any:
        """Return the content of the outermost array."""
        return self._resolved(self.load().value)

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        """Return one of our replacements; nothing is ever imported."""
        place = "multiarray" if module in _ARRAY_MODULES else module
        if (place, name) not in _KNOWN:
            raise _refused(self._path, f"it would run {module}.{name}")
        return _KNOWN[place, name]

    def persistent_load(self, pid: Any) -> Any:
        """Refuse references to things outside the file."""
        raise _refused(self._path, "it refers to another file")

    def _resolved(self, value: Any) -> Any:
        """Put the values in place of `_Array` and `_Pending`."""
        if isinstance(value, _Array):
            return self._resolved(value.value)
        if isinstance(value, _Pending):
            span = value.span
            return StoredArray(self._path, span.offset, value.shape, value.dtype, value.fortran)
        if isinstance(value, dict):
            return {key: self._resolved(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self._resolved(item) for item in value)
        return value

    def _load_bytes(self, width: int) -> None:
        length = int.from_bytes(self.read(width), "little")
        framed = self._unframer.current_frame is not None
        if framed or length < LEAVE_BYTES:
            self.append(self.read(length))
            return
        span = _Span(self._source.tell(), length)
        if span.offset + length > self._size:
            raise pickle.UnpicklingError("the file ends within an array")
        self._source.seek(length, 1)
        self.append(span)

    def _load_text(self) -> None:
        length = int.from_bytes(self.read(4), "little")
        if length > TEXT_BYTES:
            raise _refused(self._path, "its arrays are written as text, as pickle protocol 2 does")
        self.append(self.read(length).decode("utf-8", "surrogatepass"))

    dispatch: ClassVar[dict[int, Callable[..., None]]] = {
        **pickle._Unpickler.dispatch,
        pickle.BINBYTES[0]: lambda self: self._load_bytes(4),
        pickle.BINBYTES8[0]: lambda self: self._load_bytes(8),
        pickle.BINUNICODE[0]: lambda self: self._load_text(),
    }
