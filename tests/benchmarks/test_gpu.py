"""The script that checks and measures everything on a GPU, tried on a CPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_every_check_holds_on_a_cpu_and_is_written_to_the_page(tmp_path: Path) -> None:
    parts = ["tokens", "waits", "resume", "parallel"]
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--small"]
    page = tmp_path / "page.md"
    ran = subprocess.run(
        [*command, "--output", str(page), "--parts", *parts],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    text = page.read_text("utf-8")
    assert (ran.returncode, "Failed" in text) == (0, False), text
    assert "the same tokens again: True" in text
    assert "at most 0 waits in one" in text
    assert "resumed: the weights are equal, bit for bit" in text
    assert "two at once" in text


@pytest.mark.slow
def test_without_a_gpu_the_script_says_what_to_do() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "--parts", "waits"],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env={"CUDA_VISIBLE_DEVICES": "", "PATH": "", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert (ran.returncode, ran.stderr) == (
        1,
        "there is no GPU: give --device cpu --small to try the script\n",
    )
