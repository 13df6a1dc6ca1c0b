"""What a user meets at the prompt: help, errors in one line, exit status."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from avcil.cli import app, main

COMMANDS = [
    *("extract", "train", "report", "predict", "demo", "datasets", "list", "check"),
    *("cache info", "cache verify", "cache import", "cache export"),
]


def avcil(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does, in a process of its own."""
    quiet = {key: value for key, value in os.environ.items() if not key.startswith("AVCIL_")}
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "avcil", *map(str, arguments)],
        cwd=cwd,
        env={**quiet, "COLUMNS": "100", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_a_short_manual_with_an_example(command: str) -> None:
    shown = CliRunner().invoke(app, [*command.split(), "--help"], env={"COLUMNS": "100"})
    assert shown.exit_code == 0, shown.output
    examples = [line.rstrip() for line in shown.stdout.splitlines() if line.startswith("  avcil ")]
    assert any(line.startswith(f"  avcil {command}") for line in examples)
    assert max(map(len, examples)) <= 78  # longer ones wrap on 80 columns


@pytest.mark.parametrize("command", [[], ["report"], ["train"], ["extract"]], ids=str)
def test_help_imports_nothing_heavy(command: list[str], tmp_path: Path) -> None:
    code = (
        "import sys, typer.testing, avcil.cli\n"
        f"typer.testing.CliRunner().invoke(avcil.cli.app, {[*command, '--help']!r})\n"
        "heavy = {'torch', 'timm', 'transformers', 'zarr', 'matplotlib', 'pandas', 'av'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert shown.stdout.strip() == "[]"


def test_a_report_does_not_import_torch(tmp_path: Path) -> None:
    code = (
        "import sys, avcil.incremental.report.make, avcil.incremental.runs.results\n"
        "print('torch' in sys.modules)\n"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert shown.stdout.strip() == "False"


WRONG = {
    "unknown dataset": (["extract", "--dataset", "vs1000"], 1, ["'vs1000'", "demo", "folder"]),
    "unknown encoder": (
        ["extract", "--dataset", "demo", "--encoder", "big"],
        1,
        ["'big'", "tiny"],
    ),
    "no cache": (["train", "--dataset", "demo"], 1, ["avcil extract --dataset demo"]),
    "no cache at all": (["train"], 1, ["avcil extract --dataset"]),
    "no runs": (["report"], 1, ["avcil train"]),
    "unknown option": (["train", "--epoch", "3"], 2, ["--epoch", "--epochs"]),
    "unknown command": (["learn"], 2, ["No such command 'learn'"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_one_clear_message_at_once(case: str, tmp_path: Path) -> None:
    """Before PyTorch is imported, which takes seconds, and before anything is written."""
    arguments, status, words = WRONG[case]
    (tmp_path / "torch.py").write_text("raise RuntimeError('PyTorch was imported')")
    shown = avcil(*arguments, cwd=tmp_path)
    assert shown.returncode == status
    assert shown.stdout == ""
    assert "Traceback" not in shown.stderr
    assert [word for word in words if word not in shown.stderr] == []
    assert [path.name for path in tmp_path.iterdir()] == ["torch.py"]


WRONG_SETTINGS = {
    "unknown method": (["--method", "guide"], ["'guide'", "guided", "finetune", "joint"]),
    "unknown head": (["--head", "big"], ["'big'", "guided", "concat"]),
    "unknown modality": (["--modality", "touch"], ["'touch'", "audio", "visual"]),
    "unknown recipe": (["--recipe", "slow"], ["'slow'", "fast"]),
    "unknown setting": (["--set", "epoch=3"], ["'epoch'", "epochs"]),
    "unknown loss": (["--set", "losses.feat=0"], ["'feat'", "feature"]),
    "setting without value": (["--set", "epochs"], ["NAME=VALUE", "'epochs'"]),
    "setting of the wrong type": (["--set", "epochs=many"], ["epochs", "'many'", "int"]),
    "setting given twice": (
        ["--set", "epochs=1", "--set", "epochs=2"],
        ["error: epochs is set more than once: give it once, with several values as epochs=A,B"],
    ),
    "too many tasks": (["--tasks", "70"], ["6 classes cannot make 70 tasks"]),
    "seeds that are no numbers": (["--seeds", "a"], ["--seeds", "'a'"]),
    "unknown device": (["--device", "gpu"], ["'gpu'", "cuda"]),
}


@pytest.mark.parametrize("case", WRONG_SETTINGS)
def test_a_wrong_setting_is_refused_before_training(
    case: str,
    toy_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments, words = WRONG_SETTINGS[case]
    places = ["--cache", str(toy_cache), "--runs", str(tmp_path / "runs")]
    monkeypatch.setattr(sys, "argv", ["avcil", "train", *places, *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    shown = capsys.readouterr().err
    assert len(shown.strip().splitlines()) == 1
    assert [word for word in words if word not in shown] == []
    assert not (tmp_path / "runs").exists()


def test_train_and_report_by_hand(toy_cache: Path, tmp_path: Path) -> None:
    trained = avcil(
        *("train", "--cache", toy_cache, "--method", "guided,finetune", "--tasks", "2"),
        *("--epochs", "2", "--set", "head.width=16", "--set", "head.heads=2", "--parallel", "1"),
        cwd=tmp_path,
    )
    assert trained.returncode == 0, trained.stderr
    folders = [Path(line) for line in trained.stdout.splitlines()]
    assert [folder.name.split("-")[0] for folder in folders] == ["guided", "finetune"]
    assert all((tmp_path / folder / "results.json").exists() for folder in folders)
    reported = avcil("report", cwd=tmp_path)
    assert reported.returncode == 0, reported.stderr
    assert "Guided" in reported.stdout
    assert "random" in reported.stdout


def test_show_config_prints_names_that_set_takes(toy_cache: Path, tmp_path: Path) -> None:
    places = ["--cache", str(toy_cache), "--runs", str(tmp_path / "runs")]
    command = ["train", *places, "--show-config"]
    shown = CliRunner().invoke(app, command)
    settings = dict(line.split(" = ", 1) for line in shown.stdout.splitlines())
    assert settings["losses.kd"] == "1.0"
    settable = {
        name: value
        for name, value in settings.items()
        if name.startswith(("losses.", "head.")) and name != "head.name"
    }
    pairs = [part for name, value in settable.items() for part in ("--set", f"{name}={value}")]
    again = CliRunner().invoke(app, [*command, *pairs])
    assert again.stdout == shown.stdout
    assert not (tmp_path / "runs").exists()


def test_a_setting_overrides_an_option_and_says_so(toy_cache: Path) -> None:
    command = ["train", "--cache", str(toy_cache), "--show-config", "--few-shot", "3"]
    shown = CliRunner().invoke(app, [*command, "--set", "few_shot=2"])
    assert shown.exit_code == 0
    assert shown.stderr == "--set few_shot overrides --few-shot\n"
    assert "few_shot = 2\n" in shown.stdout


def test_an_interrupt_during_the_imports_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt\n")
    shown = subprocess.run(
        [sys.executable, "-m", "avcil", "--help"],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (shown.returncode, shown.stderr) == (130, "interrupted\n")


@pytest.mark.slow
def test_an_interrupt_at_any_moment_of_the_start_of_training_is_one_line(
    toy_cache: Path, tmp_path: Path
) -> None:
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # as by hand
        "from avcil.__main__ import main; print('up', flush=True); main()"
    )
    words = ["train", "--cache", str(toy_cache), "--runs", str(tmp_path), "--epochs", "9999"]
    chance = random.Random(0)
    for delay_s in [chance.uniform(0, 2) for _ in range(20)]:
        training = subprocess.Popen(
            [sys.executable, "-c", code, *words],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert training.stdout
        assert training.stdout.readline() == "up\n"
        time.sleep(delay_s)
        training.send_signal(signal.SIGINT)
        _, shown = training.communicate(timeout=60)
        lines = [line for line in shown.splitlines() if "interrupted" in line]
        assert (training.returncode, len(lines)) == (130, 1), (delay_s, shown)
        assert "Traceback" not in shown


@pytest.mark.parametrize("command", [["info"], ["verify"], ["export", "tokens.npz"]])
def test_a_cache_is_named_as_an_argument_or_an_option_but_once(
    toy_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    named = CliRunner().invoke(app, ["cache", *command, str(toy_cache)])
    (tmp_path / "tokens.npz").unlink(missing_ok=True)  # an export never overwrites
    by_option = CliRunner().invoke(app, ["cache", *command, "--cache", str(toy_cache)])
    assert named.exit_code == by_option.exit_code == 0
    assert named.stdout == by_option.stdout
    twice = CliRunner().invoke(app, ["cache", *command, "a", "--cache", "b"])
    assert twice.exit_code == 2
    assert "name the cache once" in twice.stderr
