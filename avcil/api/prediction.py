"""`avcil.predict`: the classes of clips, by the trained model of a run.

Shapes: N clips, C classes learned.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from avcil.api.extraction import default_workers
from avcil.api.predictions import Maps, Predictions
from avcil.api.runs import Run, load_run
from avcil.cache.convert.avcil_features import ENCODER as IMPORTED
from avcil.cache.format import quantize
from avcil.cache.schema import Clips, Failure, Tokens
from avcil.extract.datasets.files import files_below, is_clip
from avcil.extract.decode.decoders import Decoders
from avcil.extract.decode.media import Silent
from avcil.extract.encode import encode_clips, threads_beside
from avcil.extract.encoders import check_encoder, load_encoder
from avcil.extract.encoders.base import Encoder
from avcil.extract.errors import EncoderError
from avcil.extract.plan import Settings
from avcil.incremental.errors import ConfigError
from avcil.incremental.runs.results import Run as Folder
from avcil.incremental.train.trained import Trained, load_trained
from avcil.runtime.device import choose_device
from avcil.runtime.progress import log, track
from avcil.runtime.stopping import interrupts_raise

if TYPE_CHECKING:
    import pandas

Inputs: TypeAlias = "Path | str | Sequence[Path | str] | Clips | Sequence[Tokens]"
"""What can be predicted: files and folders, clips of a cache, or tokens."""
AT_ONCE = 64
"""Clips whose tokens are classified together."""


def predict(
    run: Path | str | Run,
    clips: Inputs,
    *,
    top: int = 1,
    explain: Path | str | None = None,
    encoder: str | None = None,
    device: str = "auto",
    silent: Silent = "refuse",
    workers: int | None = None,
    patience: float = 120.0,
    data: Path | str = "data",
) -> pandas.DataFrame:
    """Predict the classes of clips with the model of a run after its last task.

    Args:
        run: a run or its folder.
        clips: files and folders of media, clips that `FeatureStore.load` returned, or tokens.
        top: number of classes to return for each clip.
        explain: folder for pictures of which sounds guided which frames.
        encoder: as for `extract`, if the name in the run does not lead to it.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        silent: whether clips without sound fail or are encoded as silence, with a note.
        workers: decoding processes; from the number of cores if left out.
        patience: seconds after which to give up decoding a file.
        data: folder whose `encoders` holds the small part that is kept of downloaded encoders.

    Returns:
        see `Model.predict`.

    Raises:
        RunDamaged: the run folder cannot be read.
        NoModel: the run does not keep what prediction needs.
        EncoderError: the encoder is unknown, or not the one of the run.
        ConfigError: `explain` and a head in which audio does not guide video.
    """
    loaded = run if isinstance(run, Run) else load_run(run)
    return loaded.model(device).predict(
        clips,
        top=top,
        explain=explain,
        encoder=encoder,
        silent=silent,
        workers=workers,
        patience=patience,
        data=data,
    )


@dataclass(eq=False)
class Model:
    """The trained model of a run. It keeps the encoder for further calls."""

    run: Run
    trained: Trained
    _encoders: dict[str, Encoder] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, run: Run, device: str = "auto") -> Model:
        """Load the model of a run after its last finished task; see `Run.model`."""
        folder = Folder(run.folder, dict(run.config), run.results)
        return cls(run, load_trained(folder, choose_device(device)))

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes that it knows, in learning order."""
        return self.trained.classes

    def predict(
        self,
        clips: Inputs,
        *,
        top: int = 1,
        explain: Path | str | None = None,
        encoder: str | None = None,
        silent: Silent = "refuse",
        workers: int | None = None,
        patience: float = 120.0,
        data: Path | str = "data",
    ) -> pandas.DataFrame:
        """Return the most likely classes of clips.

        Args:
            clips: files and folders of media, clips that `FeatureStore.load` returned, or tokens.
            top: number of classes to return for each clip.
            explain: folder for pictures of which sounds guided which frames.
            encoder: as for `extract`, if the name in the run does not lead to it.
            silent: whether clips without sound fail or are encoded as silence, with a note.
            workers: decoding processes; from the number of cores if left out.
            patience: seconds after which to give up decoding a file.
            data: folder whose `encoders` holds the small part that is kept of downloaded encoders.

        Returns:
            one row for each clip and class, best first, with the columns `clip`, `rank` from 1,
            `class`, `probability` (the softmax of the scores) and `note`. A clip that cannot be
            decoded has a single row without rank, with the reason as `note`.

        Raises:
            EncoderError: the encoder is unknown, or not the one of the run.
            ConfigError: `explain` and a head in which audio does not guide video.
        """
        if top < 1:
            raise ConfigError(f"top must be at least 1, not {top}")
        maps = None if explain is None else Maps(Path(explain), self.trained)
        table = Predictions(self.classes, min(top, len(self.classes)))
        with interrupts_raise():
            if (named := _named_tokens(clips)) is not None:
                self._add(named, table, maps)
                return table.frame()
            chosen = self._encoder(encoder, Path(data) / "encoders")
            files = list(_files(clips, table))  # type: ignore[arg-type]
            settings = self._settings(silent, patience, workers or self._workers(len(files)))
            with closing(self._encoded(files, chosen, settings, table)) as encoded:
                self._add(encoded, table, maps)
        return table.frame()

    def _add(
        self, clips: Iterable[tuple[str, Tokens]], table: Predictions, maps: Maps | None
    ) -> None:
        """Classify clips, some at a time."""
        waiting: list[tuple[str, Tokens]] = []
        for clip in clips:
            waiting.append(clip)
            if len(waiting) == AT_ONCE:
                self._classify(waiting, table, maps)
                waiting = []
        if waiting:
            self._classify(waiting, table, maps)

    def _classify(
        self, clips: Sequence[tuple[str, Tokens]], table: Predictions, maps: Maps | None
    ) -> None:
        padded = self.trained.pad([tokens for _, tokens in clips])
        probabilities = self.trained.scores(padded).softmax(1).numpy()
        for (name, tokens), row in zip(clips, probabilities, strict=True):
            table.add(name, row, tokens.note)
        if maps is not None:
            answers = [self.classes[int(row.argmax())] for row in probabilities]
            maps.draw([name for name, _ in clips], padded, answers)

    def _encoded(
        self, files: Sequence[Path], encoder: Encoder, settings: Settings, table: Predictions
    ) -> Generator[tuple[str, Tokens], None, None]:
        """Yield the tokens of files as a cache would hold them; put failures into the table."""
        decoders = Decoders(
            settings.workers, settings.sampling(encoder), patience_s=settings.patience_s
        )
        beside = threads_beside(settings.workers)
        with beside, decoders, track("predicting", len(files), "clips") as bar:
            for place, result in encode_clips(decoders.decode(files), encoder):
                if isinstance(result, Tokens):
                    result = self._as_stored(result)
                if isinstance(result, Failure):
                    table.fail(str(files[place]), result.reason)
                else:
                    yield str(files[place]), result
                bar.advance()

    def _as_stored(self, tokens: Tokens) -> Tokens | Failure:
        """Round tokens as the cache did on which the run was trained."""
        storage, rounded = self.trained.storage, []
        for each in (tokens.visual, tokens.audio):
            out = np.empty(each.shape, np.float16)
            with np.errstate(over="ignore"):
                quantize.decode(quantize.encode(each, storage), storage, out)
            if not np.isfinite(out).all():
                return Failure("the encoder gave tokens that are not finite in float16")
            rounded.append(out)
        return Tokens(rounded[0], rounded[1], tokens.note)

    def _settings(self, silent: Silent, patience: float, workers: int) -> Settings:
        encoding = self.trained.encoding
        return Settings(
            seconds=encoding.seconds,
            visual_rate_hz=encoding.visual_rate_hz,
            workers=workers,
            silent=silent,
            patience_s=patience,
        )

    def _workers(self, files: int) -> int:
        return max(1, min(files, default_workers(self.trained.device)))

    def _encoder(self, name: str | None, kept: Path) -> Encoder:
        """Return the encoder of the run, loaded and checked.

        Raises:
            EncoderError: it is unknown, or not the one of the run.
        """
        encoding, folder = self.trained.encoding, self.run.folder
        if encoding.fingerprint == IMPORTED:
            raise EncoderError(
                f"{folder} was trained on features that were imported from AV-CIL, and avcil does "
                "not have their encoder: only tokens can be predicted, in Python"
            )
        chosen = name or encoding.encoder
        if chosen in self._encoders:
            return self._encoders[chosen]
        try:
            check_encoder(chosen)
        except EncoderError as error:
            raise EncoderError(
                f"{error}; {folder} was trained on tokens of {encoding.encoder!r}: give --encoder "
                "as for `avcil extract`"
            ) from error
        encoder = load_encoder(chosen, self.trained.device, kept)
        precise = encoding.precision in encoder.precisions
        encoder.set_precision(encoding.precision if precise else "auto")  # type: ignore[arg-type]
        if not precise:
            log(
                f"the run was trained on tokens computed in {encoding.precision}, and {chosen} "
                f"computes in {encoder.precision} here: probabilities may differ slightly"
            )
        found = encoder.encoding(seconds=encoding.seconds, visual_rate_hz=encoding.visual_rate_hz)
        if found.fingerprint != encoding.fingerprint:
            raise EncoderError(
                f"{chosen!r} is not the encoder of {folder}: its fingerprint is "
                f"{found.fingerprint}, the run's is {encoding.fingerprint} ({encoding.encoder}); "
                "give the same weights with --encoder as for `avcil extract`"
            )
        self._encoders[chosen] = encoder
        return encoder


def _files(clips: Path | str | Sequence[Path | str], table: Predictions) -> Iterator[Path]:
    """Yield each file once, and the clips below each folder; reserve their places in the table."""
    seen: set[Path] = set()
    for path in map(Path, [clips] if isinstance(clips, Path | str) else clips):
        found = sorted(filter(is_clip, files_below(path))) if path.is_dir() else [path]
        if not found:
            table.expect(str(path))
            table.fail(str(path), "no clip in this folder")
        for file in found:
            if file not in seen:
                seen.add(file)
                table.expect(str(file))
                yield file


def _named_tokens(clips: Inputs) -> Iterable[tuple[str, Tokens]] | None:
    """Return tokens with their positions as names; None for files."""
    if isinstance(clips, Clips):
        clips = list(_unpadded(clips))
    if isinstance(clips, Path | str) or not all(isinstance(each, Tokens) for each in clips):
        return None
    return [(str(place), each) for place, each in enumerate(clips)]  # type: ignore[misc]


def _unpadded(clips: Clips) -> Iterator[Tokens]:
    for place in range(len(clips.labels)):
        visual = clips.visual[place, : clips.visual_lengths[place]]
        yield Tokens(visual, clips.audio[place, : clips.audio_lengths[place]])
