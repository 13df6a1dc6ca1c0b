"""An unreadable file is reported as such: not as damage, a missing cache, or a fault of the run."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from avcil.cache.errors import CacheNotFound, CacheUnreadable
from avcil.cache.reader import FeatureStore
from avcil.cache.repair import verify_and_repair
from avcil.cache.samples import write_sample
from avcil.cache.schema import Storage
from avcil.cache.verify import verify
from avcil.cli import app

FILES = [
    "zarr.json",
    "id/zarr.json",
    "label/c/0",
    "visual/zarr.json",
    "visual/c/1/0/0",
    "status/records",
    "status/records/00001.json",
]
AS_ANY_USER = ["setpriv", "--bounding-set=-dac_override,-dac_read_search",
               "--inh-caps=-dac_override,-dac_read_search"]  # fmt: skip


def make_unreadable(path: Path) -> None:
    """Put a loop of links there, which nobody can read, not even root."""
    path.rename(path.with_name(f"{path.name}.moved"))
    path.symlink_to(path.name)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, compression: str) -> None:
    path = write_sample(tmp_path / "c", storage=Storage(compression=compression))  # type: ignore[arg-type]
    make_unreadable(path / name)
    with pytest.raises(CacheUnreadable, match=r"cannot read .*: Too many levels .*: check the"):
        FeatureStore.open(path).load([8])


def test_a_file_that_cannot_be_read_is_not_marked_as_damaged(tmp_path: Path) -> None:
    path = write_sample(tmp_path / "c")
    make_unreadable(path / "visual/c/1/0/0")
    before = (path / "status/records/00001.json").read_bytes()
    for use in (verify, verify_and_repair):
        with pytest.raises(CacheUnreadable, match="visual/c/1/0/0: Too many levels"):
            use(path)
    assert (path / "status/records/00001.json").read_bytes() == before


@pytest.mark.parametrize("name", ["zarr.json", "visual/c/0/0/0"])
def test_training_names_the_cache_and_not_the_run_folder(
    toy_cache: Path, tmp_path: Path, name: str
) -> None:
    path = Path(shutil.copytree(toy_cache, tmp_path / "c"))
    make_unreadable(path / name)
    command = f"train --cache {path} --runs {tmp_path / 'runs'} --tasks 1 --epochs 1"
    failed = CliRunner().invoke(app, [*command.split(), "--set", "head.width=8"])
    assert isinstance(failed.exception, CacheUnreadable)
    assert "c/" + name in str(failed.exception)


@pytest.mark.parametrize("name", ["zarr.json", "visual/c/1/0/0", "status/records", "."])
def test_an_unreadable_cache_of_another_user_names_the_remedy(tmp_path: Path, name: str) -> None:
    path = write_sample(tmp_path / "c")
    root = os.geteuid() == 0
    if root and shutil.which("setpriv") is None:
        pytest.skip("root reads everything, and setpriv is not installed")
    mode = (path / name).stat().st_mode
    (path / name).chmod(0)
    command = [sys.executable, "-m", "avcil", "cache", "verify", "--cache", str(path)]
    shown = subprocess.run(
        [*(AS_ANY_USER if root else []), *command], capture_output=True, text=True, check=False
    )
    (path / name).chmod(mode)
    assert shown.returncode == 1, shown
    (line,) = shown.stderr.splitlines()
    assert "Permission denied: ask its owner for access" in line


def test_a_name_that_is_too_long_is_no_cache(tmp_path: Path) -> None:
    with pytest.raises(CacheNotFound):
        FeatureStore.open(tmp_path / ("n" * 300))
