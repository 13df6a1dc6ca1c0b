"""The type in which the head computes products."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from avcil.cache.reader import FeatureStore
from avcil.incremental.config.config import Config
from avcil.incremental.data.placement import (
    Placement,
)
from avcil.incremental.runs.results import read_run
from avcil.incremental.train.precision import autocast_type, compute_deterministically

CPU = torch.device("cpu")


def test_products_are_not_rounded_where_the_machine_asks_for_it() -> None:
    torch.set_float32_matmul_precision("high")  # as TORCH_ALLOW_TF32_CUBLAS_OVERRIDE does
    compute_deterministically()
    assert torch.get_float32_matmul_precision() == "highest"


def test_bfloat16_learns_what_float32_learns(
    toy_store: FeatureStore,
    tmp_path: Path,
    configure: Callable[..., Config],
    run: Callable[..., Path],
    weights: Callable[[Path], list[bytes]],
) -> None:
    exact, coarse = (
        run(
            toy_store,
            configure(toy_store, "joint", epochs=20, precision=precision),
            tmp_path,
            Placement(CPU),
        )
        for precision in ("fp32", "bf16")
    )
    assert weights(exact) != weights(coarse)
    accuracies = [read_run(each).results.matrix.mean_accuracy for each in (exact, coarse)]
    assert accuracies[1] == pytest.approx(accuracies[0], abs=0.1)
    assert min(accuracies) > 0.7


@pytest.mark.parametrize(
    ("able", "width", "chosen"),
    [
        ({"avx512_bf16": True}, 512, torch.bfloat16),
        ({"amx_bf16": True}, 512, torch.bfloat16),
        ({"avx512_bf16": True}, 16, None),  # a small run, trained on one thread
        ({"avx512_bf16": False, "avx2": True}, 512, None),
    ],
)
def test_products_are_bfloat16_where_the_processor_has_it_and_it_pays(
    toy_store: FeatureStore,
    monkeypatch: pytest.MonkeyPatch,
    able: dict[str, bool],
    width: int,
    chosen: torch.dtype | None,
    configure: Callable[..., Config],
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able, raising=False)
    settings = {"head.width": width, "batch_size": 64}
    by = {
        precision: autocast_type(
            configure(toy_store, precision=precision, **settings), toy_store.encoding, CPU
        )
        for precision in ("auto", "fp32", "bf16")
    }
    assert by == {"auto": chosen, "fp32": None, "bf16": torch.bfloat16}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_results_say_how_the_products_were_computed(
    toy_store: FeatureStore,
    tmp_path: Path,
    precision: str,
    configure: Callable[..., Config],
    run: Callable[..., Path],
) -> None:
    folder = run(toy_store, configure(toy_store, precision=precision), tmp_path, Placement(CPU))
    assert read_run(folder).results.versions["precision"] == precision
