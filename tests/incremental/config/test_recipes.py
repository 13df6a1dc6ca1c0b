"""Recipes and plans: what is trained without being asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from avcil.incremental.config.config import Config
from avcil.incremental.config.recipes import RECIPES
from avcil.incremental.config.resolve import Request, Subject, resolve
from avcil.incremental.config.sweep import plan
from avcil.incremental.errors import ConfigError
from avcil.incremental.methods import METHODS

BENCHMARKS = ("ave", "ks", "vs100", "demo", "mine")


def subject(dataset: str = "ave") -> Subject:
    return Subject(dataset=dataset, fingerprint="f", rows="r", training_clips=3294, classes=28)


def resolved(method: str = "guided", dataset: str = "ave", **request: object) -> Config:
    return resolve(Request(method=method, **request), subject(dataset))  # type: ignore[arg-type]


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("dataset", BENCHMARKS)
def test_every_recipe_fits_every_method_and_data_set(recipe: str, dataset: str) -> None:
    for method in METHODS:
        assert resolved(method, dataset, recipe=recipe).recipe == recipe


@pytest.mark.parametrize(
    ("method", "epochs"),
    [
        ("finetune", {"ave": 150, "ks": 150, "vs100": 200}),
        ("joint", {"ave": 150, "ks": 100, "vs100": 200}),
        ("lwf", {"ave": 200, "ks": 100, "vs100": 200}),
        ("icarl-nme", {"ave": 150, "ks": 100, "vs100": 200}),
        ("icarl-fc", {"ave": 150, "ks": 100, "vs100": 200}),
        ("ssil", {"ave": 200, "ks": 100, "vs100": 200}),
        ("afc-nme", {"ave": 150, "ks": 100, "vs100": 200}),
        ("afc-lsc", {"ave": 150, "ks": 100, "vs100": 200}),
        ("avcil", {"ave": 200, "ks": 200, "vs100": 200}),
    ],
)
def test_recipe_avcil_has_the_published_epochs(method: str, epochs: dict[str, int]) -> None:
    for dataset, expected in epochs.items():
        assert resolved(method, dataset, recipe="avcil").epochs == expected


@pytest.mark.parametrize("recipe", RECIPES)
def test_avcil_has_the_published_weights_of_the_contrastive_terms_in_every_recipe(
    recipe: str,
) -> None:
    for dataset, expected in {"ave": 0.5, "ks": 0.1, "vs100": 0.1}.items():
        losses = resolved("avcil", dataset, recipe=recipe).losses
        assert (losses["instance"], losses["class"]) == (expected, 1.0)


def test_recipe_paper_is_what_the_paper_states() -> None:
    config = resolved(recipe="paper")
    assert (config.optimizer, config.learning_rate, config.weight_decay) == ("sgd", 5e-5, 1e-4)
    assert (config.schedule, config.epochs, config.head["name"]) == ("cosine", 200, "guided")
    assert config.method["cross_entropy"] == "separated"


@pytest.mark.parametrize("method", ["guided", "icarl-fc", "avcil"])
def test_the_norm_of_recipe_avcil_follows_the_encoding(method: str) -> None:
    found = {
        unit_norm: resolve(
            Request(method=method, recipe="avcil"), replace(subject(), unit_norm=unit_norm)
        ).head["input_norm"]
        for unit_norm in (False, True)
    }
    assert found == {False: "none", True: "standardize"}


def test_the_norm_that_the_user_sets_wins_over_that_of_the_encoding() -> None:
    asked = Request(recipe="avcil", settings={"head.input_norm": "none"})
    assert resolve(asked, replace(subject(), unit_norm=True)).head["input_norm"] == "none"


def test_the_naive_fusion_of_figure_1_distils_no_features_as_in_table_2() -> None:
    asked = plan(Request(), table="figure1")[2]
    assert asked == plan(Request(), table="2")[0]


def test_der_is_another_name_of_derpp() -> None:
    assert resolved("der") == resolved("derpp")


def test_benchmarks_have_the_published_tasks_and_memory() -> None:
    found = {name: (resolved(dataset=name).tasks, resolved(dataset=name).memory)
             for name in ("ave", "ks", "vs100")}  # fmt: skip
    assert found == {"ave": (4, 340), "ks": (5, 500), "vs100": (10, 1500)}


def test_what_the_user_sets_wins_over_every_recipe() -> None:
    settings = {"epochs": 3, "method.cross_entropy": "own-task", "losses.kd": 0.25}
    for recipe in RECIPES:
        config = resolved(recipe=recipe, settings=settings)
        assert (config.epochs, config.losses["kd"]) == (3, 0.25)
        assert config.method["cross_entropy"] == "own-task"


@pytest.mark.parametrize(
    ("table", "runs"), [("1", 9), ("2", 5), ("3", 3), ("4", 18), ("figure1", 4), ("figure3", 2)]
)
def test_every_table_is_a_list_of_runs_that_differ(table: str, runs: int) -> None:
    configs = [resolve(each, subject()) for each in plan(Request(), table=table, seeds=(0, 1))]
    assert len({config.run_name for config in configs}) == len(configs) == 2 * runs


def test_table_2_switches_off_what_the_paper_switches_off() -> None:
    found = [resolve(request, subject()) for request in plan(Request(), table="2")]
    on = [
        (config.head["name"], config.losses["kd"] > 0, config.losses["feature"] > 0)
        for config in found
    ]
    assert on == [
        ("concat", True, False),
        ("guided", False, False),
        ("guided", True, False),
        ("guided", False, True),
        ("guided", True, True),
    ]


def test_table_4_compares_4_tasks_with_7() -> None:
    tasks = [resolve(request, subject()).tasks for request in plan(Request(), table="4")]
    assert tasks == [4] * 9 + [7] * 9


def test_a_plan_keeps_what_was_asked_for() -> None:
    asked = Request(recipe="paper", settings={"epochs": 3})
    for request in plan(asked, table="2"):
        assert (request.recipe, request.settings["epochs"]) == ("paper", 3)


def test_all_methods_memories_and_seeds_multiply() -> None:
    found = plan(Request(), methods="all", sweeps={"memory": (20, 40)}, seeds=(0, 1, 2))
    assert len({(r.method, r.settings["memory"], r.seed) for r in found}) == len(METHODS) * 6


def test_an_unknown_table_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="unknown table '5'; choose one of 1, 2, 3, 4, figure1"):
        plan(Request(), table="5")


def test_a_table_and_a_modality_are_refused() -> None:
    with pytest.raises(ConfigError, match="table 2 chooses heads and modalities itself"):
        plan(Request(modality="audio"), table="2")


def test_a_table_and_a_method_are_refused() -> None:
    with pytest.raises(ConfigError, match="table 2 chooses methods itself"):
        plan(Request(), methods="lwf", table="2")


def test_a_table_and_a_setting_that_it_chooses_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"table 4 chooses tasks itself"):
        plan(Request(settings={"tasks": 14}), table="4")
    with pytest.raises(ConfigError, match=r"table 2 chooses losses.kd itself"):
        plan(Request(settings={"losses.kd": 0.3}), table="2")
    with pytest.raises(ConfigError, match=r"table 4 chooses tasks itself"):
        plan(Request(), table="4", sweeps={"tasks": (5, 10)})


OWN = """
title = "Shorter"
base = "fast"

[defaults]
epochs = 7
head.width = 32

[methods.guided]
losses.kd = 0.5
"""


def test_a_recipe_in_a_file_changes_the_one_it_is_based_on(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(OWN)
    own, fast = (
        resolve(Request(recipe=recipe), subject()) for recipe in (f"{tmp_path}/own.toml", "fast")
    )
    assert (own.recipe, own.epochs, own.head["width"], own.losses["kd"]) == ("own.toml", 7, 32, 0.5)
    changed = {name for name, value in own.plain().items() if value != fast.plain()[name]}
    assert changed == {"recipe", "epochs", "head", "losses"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"recipe /.*own\.toml cannot be read: .*No such file"),
        ("epochs =", r"own\.toml cannot be read: Invalid value \(at end of document\)"),
        ("epochs = 3", "unknown part 'epochs'; it may have title, base, defaults"),
        ("defaults = 3", r"defaults must be a table, \[defaults\], not 3"),
        ("base = 'quick'", "base is 'quick'; it must be one of fast, paper, avcil"),
        ("[defaults]\nepochs = 3", "does not set batch_size, .*, or write base = \"fast\""),
        ("[methods]\nguided = 3", r"methods\.guided must be a table, not 3"),
        ("base = 'fast'\n[defaults]\nlosses = 3", "'losses' is no setting: losses is a group"),
        ("base = 'fast'\n[defaults]\nepochs.x = 3", r"own\.toml: 'epochs\.x' is no setting"),
        ("base = 'fast'\n[defaults]\nepoch = 3", "no setting 'epoch'; choose from"),
        ("base = 'fast'\n[defaults]\nseed = 3", "seed is not set with --set"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_recipe_is_refused(
    text: str | None, message: str, tmp_path: Path
) -> None:
    if text is not None:
        (tmp_path / "own.toml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        resolve(Request(recipe=f"{tmp_path}/own.toml"), subject("mine"))
