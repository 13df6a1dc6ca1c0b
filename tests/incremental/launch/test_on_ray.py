"""Runs on a Ray cluster, whose GPUs are pretended: Ray only counts them."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from avcil.incremental.launch.on_ray import remote

ray = pytest.importorskip("ray", reason="needs Ray: pip install 'avcil[ray]'")

pytestmark = pytest.mark.slow


@pytest.fixture
def two_gpus() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AVCIL_CHECKPOINT_SECONDS", "7")
        ray.init(
            address="local",
            num_cpus=2,
            num_gpus=2,
            include_dashboard=False,
            logging_level="warning",
        )
        yield
        ray.shutdown()


def where() -> tuple[int, str, str]:
    settings = os.environ.get("AVCIL_CHECKPOINT_SECONDS", "")
    return os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES", ""), settings


def test_each_run_on_a_gpu_has_a_process_of_its_own_and_the_settings(two_gpus: None) -> None:
    function = remote(where, 1)
    places = ray.get([function.remote() for _ in range(6)])
    assert len({process for process, _, _ in places}) == 6
    assert {gpu for _, gpu, _ in places} == {"0", "1"}
    assert {settings for _, _, settings in places} == {"7"}


def test_two_runs_share_a_gpu_where_asked(two_gpus: None) -> None:
    function = remote(where, 0.5)
    places = ray.get([function.remote() for _ in range(4)])
    assert {gpu for _, gpu, _ in places} <= {"0", "1"}
    assert len({process for process, _, _ in places}) == 4
