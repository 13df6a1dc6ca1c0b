"""The Python API and the command."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler
from typer.testing import CliRunner, Result

from avcil.cache.dataset import ClipDataset
from avcil.cache.errors import CacheUnwritable
from avcil.cache.reader import FeatureStore
from avcil.cache.samples import FAILED, write_sample
from avcil.cache.schema import Clips, Storage
from avcil.commands.cache import app

SMALL = ("audio", "visual_lengths", "audio_lengths", "labels")


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


# --- tables and tensors


def test_the_table_has_one_line_per_clip_with_its_status(store: FeatureStore) -> None:
    table = store.table()
    assert list(table.index) == list(range(40))
    assert table.id.tolist() == list(store.manifest.ids)
    assert table.loc[FAILED, ["status", "reason"]].tolist() == ["failed", "no audio stream"]
    assert table[table.status == "stored"].index.tolist() == store.rows().tolist()
    chosen = table.query("split == 'train' and label == 1 and status == 'stored'")
    assert store.rows("train", [1]).tolist() == chosen.index.tolist()


def test_rows_of_a_table_load(store: FeatureStore) -> None:
    table = store.table().query("split == 'val'")
    assert len(store.load(table.index).labels) == 10


def test_a_dataset_gives_clips_as_tensors(store: FeatureStore) -> None:
    dataset = ClipDataset(store, [5, 3])
    clips = store.load([3])
    item = dataset[1]
    assert len(dataset) == 2
    assert torch.equal(item["visual"], torch.from_numpy(clips.visual[0]))
    assert (item["row"].item(), item["label"].item()) == (3, clips.labels[0])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_gives_batches_in_one_read_each(store: FeatureStore, workers: int) -> None:
    rows = store.rows("train")
    sampler = BatchSampler(SequentialSampler(rows), batch_size=6, drop_last=False)
    loader = DataLoader(
        ClipDataset(store, rows), sampler=sampler, batch_size=None, num_workers=workers
    )
    batches = list(loader)
    clips = store.load(rows)
    assert [len(batch["row"]) for batch in batches] == [6, 6, 6, 1]
    assert torch.equal(torch.cat([b["visual"] for b in batches]), torch.from_numpy(clips.visual))


def test_a_plain_loader_gives_the_same_batches(store: FeatureStore) -> None:
    rows = store.rows("test")
    batches = list(DataLoader(ClipDataset(store, rows), batch_size=4))
    clips = store.load(rows)
    assert torch.equal(torch.cat([b["audio"] for b in batches]), torch.from_numpy(clips.audio))


def test_a_torch_backed_buffer_is_filled(store: FeatureStore) -> None:
    visual = torch.zeros(4, 6, 80, dtype=torch.float16)
    empty = store.load([0, 0, 0, 0])
    buffer = Clips(visual.numpy(), *(getattr(empty, name) for name in SMALL))
    store.load([9, 8], out=buffer)
    assert torch.equal(visual[:2], torch.from_numpy(store.load([9, 8]).visual))
    assert not visual[2:].any()


def test_opening_a_cache_does_not_import_torch(sample: Path) -> None:
    code = (
        "import sys, avcil.cache; avcil.cache.open(sys.argv[1]).load([0]); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(sample)], check=False).returncode == 0


def test_the_schema_is_light() -> None:
    code = "import sys, avcil.cache.schema; sys.exit(bool({'zarr', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- the command


def test_info_shows_provenance_counts_and_failures(sample: Path) -> None:
    shown = run("info", "--cache", sample)
    assert shown.exit_code == 0
    for text in (
        "encoder      sample (random weights",
        "fingerprint  sample-1",
        "39 of 40 with tokens, 1 failed; 5 shards of 8",
        "failed: clip-001: no audio stream",
        "rounding visual 2.",
    ):
        assert text in shown.output, shown.output
    assert re.search(r"all +19 +10 +10 +1\n", shown.output)
    assert re.search(r"Straßenmusik +\d", shown.output)


def test_info_draws_the_statistics(sample: Path, tmp_path: Path) -> None:
    assert run("info", "--cache", sample, "--plot", tmp_path / "t.png").exit_code == 0
    assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")


def test_info_of_an_unfinished_cache_says_what_is_left(tmp_path: Path) -> None:
    storage = Storage(numbers="int8", compression="zstd")
    shown = run("info", "--cache", write_sample(tmp_path / "c", shards=[1], storage=storage))
    assert "8 of 40 with tokens, 32 not extracted yet" in shown.output
    assert "int8, one scale per channel, compression zstd" in shown.output


def test_verify_reports_an_intact_cache(sample: Path) -> None:
    shown = run("verify", "--cache", sample)
    assert shown.exit_code == 0
    assert "40 clips read in 5 shards: all is well" in shown.output


def test_verify_names_shard_clip_and_damage_and_repairs(cache: Path, store: FeatureStore) -> None:
    ids = store.manifest.ids
    content = bytearray((cache / "visual/c/1/0/0").read_bytes())
    content[7] ^= 16
    (cache / "visual/c/1/0/0").write_bytes(bytes(content))
    (cache / "audio/c/3/0/0").unlink()
    shown = run("verify", "--cache", cache)
    assert shown.exit_code == 1
    assert f"shard 1, visual: its checksum differs: {ids[8]} (row 8)\n" in shown.output
    assert f"shard 3, audio: the file is gone: {ids[24]} (row 24)" in shown.output
    assert "and 3 more" in shown.output
    assert "9 damaged; --repair marks them" in shown.output
    shown = run("verify", "--cache", cache, "--repair")
    assert shown.exit_code == 0
    assert "run `avcil extract` again" in shown.output
    shown = run("info", "--cache", cache)
    assert "8 not extracted yet, 1 damaged, to be extracted again" in shown.output


def test_a_repair_that_needs_no_extraction_says_so(cache: Path) -> None:
    (cache / "status/zarr.json").unlink()
    assert "status/zarr.json is gone or damaged" in run("verify", "--cache", cache).output
    shown = run("verify", "--cache", cache, "--repair")
    assert "nothing is to be extracted" in shown.output
    assert run("verify", "--cache", cache).exit_code == 0


def test_the_only_cache_on_disk_needs_no_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_sample(Path("data/mine/features.zarr"))
    assert "data/mine/features.zarr" in run("info").output
    monkeypatch.setenv("AVCIL_DATA", str(tmp_path / "data"))
    monkeypatch.chdir("/")
    assert run("info", "--dataset", "mine").exit_code == 0


@pytest.mark.parametrize("name", ["c.h5", "c.npz", "c.safetensors"])
def test_export_takes_the_format_from_the_file_name(
    sample: Path, tmp_path: Path, name: str
) -> None:
    shown = run("export", tmp_path / name, "--cache", sample, "--split", "test")
    assert shown.exit_code == 0
    assert "10 clips in" in shown.output
    assert (tmp_path / name).stat().st_size > 10 * 6 * 80 * 2


def test_export_lists_what_it_knows(sample: Path, tmp_path: Path) -> None:
    shown = run("export", tmp_path / "c.csv", "--cache", sample)
    assert shown.exit_code == 2
    assert "h5|npz|safetensors" in shown.output
    shown = run("export", tmp_path / "c.h5", "--cache", sample, "--split", "dev")
    assert shown.exit_code == 2
    assert all(name in shown.output for name in ("train", "val", "test"))


@pytest.mark.parametrize("command", ["info", "verify", "import", "export"])
def test_every_help_has_an_example(command: str) -> None:
    shown = run(command, "--help")
    assert f"avcil cache {command}" in shown.output


def test_loading_the_same_rows_twice_gives_the_same(store: FeatureStore) -> None:
    one, two = store.load([4, 4, 9]), store.load([4, 4, 9])
    np.testing.assert_array_equal(one.visual, two.visual)
    assert not np.shares_memory(one.visual, two.visual)


# --- paths


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("info --plot nodir/x.png", "cannot write nodir/x.png: No such file.*: name a file in a"),
        ("info --plot afile/x.png", "cannot write afile/x.png: Not a directory"),
        ("info --plot folder.png", "cannot write folder.png: Is a directory"),
        ("info --plot x.foo", r"cannot draw into x.foo: its name must end in .*\.png"),
        ("export afile/x.h5", "cannot write afile/x.h5: .*: name a file in a folder that you may"),
        ("export afile/x/y.npz", "cannot write afile/x/y.npz: Not a directory"),
        ("export /proc/x.h5", "cannot write /proc/x.h5: "),
        ("export /proc/x.npz", "cannot write /proc/x.npz: "),
        ("export folder.png --to npz", "folder.png already exists"),
    ],
)
def test_an_output_that_cannot_be_written_is_one_line(
    sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: str, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("afile").touch()
    Path("folder.png").mkdir()
    shown = run(*arguments.split(), "--cache", sample)
    assert isinstance(shown.exception, CacheUnwritable), shown.exception
    assert re.match(text, str(shown.exception))
    assert "\n" not in str(shown.exception)


@pytest.mark.parametrize("path", ["afile", "afile/x", "n" * 300])
def test_a_cache_that_cannot_be_made_is_one_line(tmp_path: Path, path: str) -> None:
    (tmp_path / "afile").touch()
    with pytest.raises(CacheUnwritable, match=r"cannot write .*: choose a folder .* with --cache"):
        write_sample(tmp_path / path)


def test_a_local_cache_has_a_url_too(sample: Path) -> None:
    for command in (["info"], ["verify"], ["verify", "--repair"]):
        shown = run(*command, "--cache", f"file://{sample}")
        assert shown.exit_code == 0, shown.exception
    assert f"file://{sample}" in run("info", "--cache", f"file://{sample}").output
