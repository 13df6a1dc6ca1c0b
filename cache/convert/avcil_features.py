"""Import AV-CIL's released features into a cache.

    DIR/audio_pretrained_feature/audio_pretrained_feature_dict.npy      {id: [768]}
    DIR/visual_pretrained_feature/visual_pretrained_feature_dict.npy    {id: [8 * 196, 768]}, AVE
    DIR/visual_pretrained_feature/visual_features.h5          one data set per id, KS, VS100
    DIR/all_classId_vid_dict.npy      {split: {class index: [ids]}}
    DIR/category_encode_dict.npy      {class name: index in class order}

Features are read clip by clip, so memory holds one shard and the index.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, overload

import numpy as np
from numpy.typing import NDArray

from avcil.cache.convert.safe_pickle import StoredArray, open_dictionary, read_dictionary
from avcil.cache.errors import DictionaryRefused, SourceMissing
from avcil.cache.names import check_names
from avcil.cache.schema import SPLITS, Encoding, Failure, Manifest, Split, Storage, Tokens
from avcil.cache.writer import CacheWriter
from avcil.runtime.progress import track

ENCODER = "audiomae+videomae"
FRAMES = 8  # of each clip, with 14 x 14 tokens each
SECONDS = 10.0
AUDIO = ("audio_pretrained_feature/audio_pretrained_feature_dict.npy",)
VISUAL = (
    "visual_pretrained_feature/visual_pretrained_feature_dict.npy",
    "visual_pretrained_feature/visual_features.h5",
    "visual_features.h5",
)
ORIGIN = "AV-CIL's page (github.com/weiguoPian/AV-CIL_ICCV2023) links to the originals"


class Source(Protocol):
    """Features by clip id."""

    def __contains__(self, clip: str) -> bool: ...

    def __getitem__(self, clip: str) -> NDArray[Any]: ...


@dataclass(frozen=True, slots=True)
class Summary:
    """What an import did."""

    clips: int
    shards: int
    kept: int
    """Shards that an earlier run had written."""
    failures: dict[str, str]


def import_avcil(
    folder: Path,
    dataset: str,
    path: Path | str,
    *,
    splits: Path | None = None,
    storage: Storage | None = None,
) -> Summary:
    """Copy published features into a cache; when repeated, continue where the last call stopped.

    Args:
        folder: the published layout, see above.
        dataset: name of the data set, as in `--dataset`.
        path: the cache.
        splits: folder of the lists of clips, if they are not in `folder`.
        storage: how numbers are stored.

    Raises:
        SourceMissing: a file is missing.
        DictionaryRefused: a file is damaged, or cannot be read without running code in it.
        CacheError: see CacheWriter.open.
    """
    check_names(dataset, ())
    manifest = read_splits(splits or folder, dataset)
    with (
        _open(_find(folder, AUDIO, "audio")) as audio,
        _open(_find(folder, VISUAL, "visual")) as visual,
    ):
        encoding = _encoding(manifest, audio, visual)
        with CacheWriter.open(path, manifest, encoding, storage=storage) as writer:
            pending = writer.pending()
            kept = writer.shards - len(pending)
            with track("import", writer.shards, "shards", done=kept) as bar:
                for shard in pending:
                    clips = [manifest.ids[row] for row in writer.todo(shard)]
                    writer.commit(shard, _Items(clips, audio, visual, encoding))
                    bar.advance()
            return Summary(len(manifest), writer.shards, kept, writer.failures)


def read_splits(folder: Path, dataset: str) -> Manifest:
    """Read AV-CIL's lists of clips.

    Raises:
        SourceMissing, DictionaryRefused: see import_avcil.
    """
    what = "lists of clips"
    names = read_dictionary(_find(folder, ("category_encode_dict.npy",), what))
    lists = read_dictionary(_find(folder, ("all_classId_vid_dict.npy",), what))
    if set(names.values()) != set(range(len(names))):
        raise DictionaryRefused(
            f"{folder}/category_encode_dict.npy does not number its classes 0, 1, 2, ...; {ORIGIN}"
        )
    classes = tuple(sorted(names, key=names.__getitem__))
    try:
        clips: list[tuple[Split, int, str]] = [
            (split, int(label), clip)
            for split in SPLITS
            for label, ids in lists.get(split, {}).items()
            for clip in ids
        ]
        return Manifest.of(dataset, classes, clips)
    except (ValueError, TypeError, AttributeError) as error:
        raise DictionaryRefused(
            f"the lists of clips in {folder} are invalid: {error}; {ORIGIN}"
        ) from error


def _find(folder: Path, names: Sequence[str], what: str) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise SourceMissing(f"no {what} in {folder}: looked for {' or '.join(names)}; {ORIGIN}")


@contextmanager
def _open(path: Path) -> Iterator[Source]:
    if path.suffix == ".npy":
        yield _Dictionary(open_dictionary(path))
        return
    import h5py

    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise _unreadable(path, error) from error
    with file:
        yield _Hdf5(path, file)


def _unreadable(path: Path, error: Exception) -> DictionaryRefused:
    return DictionaryRefused(f"{path} is not a readable HDF5 file ({error}): download it again")


@dataclass(frozen=True, slots=True)
class _Hdf5:
    """A file with one data set per clip."""

    path: Path
    file: Any

    def __contains__(self, clip: str) -> bool:
        return clip in self.file

    def __getitem__(self, clip: str) -> NDArray[Any]:
        try:
            return np.asarray(self.file[clip])
        except (OSError, KeyError) as error:  # h5py raises both for damaged bytes
            raise _unreadable(self.path, error) from error


@dataclass(frozen=True, slots=True)
class _Dictionary:
    """A published dictionary whose arrays are read one by one."""

    content: dict[str, Any]

    def __contains__(self, clip: str) -> bool:
        return clip in self.content

    def __getitem__(self, clip: str) -> NDArray[Any]:
        array = self.content[clip]
        return array.load() if isinstance(array, StoredArray) else np.asarray(array)


def _encoding(manifest: Manifest, audio: Source, visual: Source) -> Encoding:
    """Take the shapes from the first clip that has both."""
    first = next((clip for clip in manifest.ids if clip in audio and clip in visual), None)
    if first is None:
        raise SourceMissing(
            f"none of the {len(manifest)} clips has features: are they really features of "
            f"{manifest.dataset}?"
        )
    tokens = _tokens(first, audio, visual)
    visual_tokens, visual_width = tokens.visual.shape
    audio_tokens, audio_width = tokens.audio.shape
    return Encoding(
        encoder=ENCODER,
        fingerprint=ENCODER,
        visual_tokens=visual_tokens,
        visual_width=visual_width,
        audio_tokens=audio_tokens,
        audio_width=audio_width,
        tokens_per_frame=max(1, visual_tokens // FRAMES),
        visual_rate_hz=FRAMES / SECONDS,
        audio_rate_hz=audio_tokens / SECONDS,
        seconds=SECONDS,
    )


def _tokens(clip: str, audio: Source, visual: Source) -> Tokens:
    return Tokens(visual=_flat(visual[clip]), audio=_flat(audio[clip]))


def _flat(tokens: NDArray[Any]) -> NDArray[Any]:
    """Return [tokens, channels]; published arrays may have an axis of frames, or none of tokens."""
    tokens = np.atleast_1d(tokens)
    return tokens.reshape(math.prod(tokens.shape[:-1]), tokens.shape[-1])


def _same_shape(tokens: Tokens, encoding: Encoding) -> Tokens | Failure:
    """Return the tokens, or a failure if their shape differs from that of the other clips."""
    expected = {
        "visual": (encoding.visual_tokens, encoding.visual_width),
        "audio": (encoding.audio_tokens, encoding.audio_width),
    }
    for name, shape in expected.items():
        found = getattr(tokens, name).shape
        if found != shape:
            return Failure(f"its {name} features have shape {list(found)}, not {list(shape)}")
    return tokens


@dataclass(frozen=True, slots=True)
class _Items(Sequence[Tokens | Failure]):
    """The clips of a shard, read on access."""

    clips: list[str]
    audio: Source
    visual: Source
    encoding: Encoding

    def __len__(self) -> int:
        return len(self.clips)

    @overload
    def __getitem__(self, index: int) -> Tokens | Failure: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Tokens | Failure]: ...

    def __getitem__(self, index: int | slice) -> Tokens | Failure | Sequence[Tokens | Failure]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        clip = self.clips[index]
        lacking = [name for name in ("audio", "visual") if clip not in getattr(self, name)]
        if lacking:
            return Failure(f"no {' and no '.join(lacking)} features in the imported files")
        return _same_shape(_tokens(clip, self.audio, self.visual), self.encoding)
