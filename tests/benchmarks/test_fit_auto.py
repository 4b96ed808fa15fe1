"""The comparison of `auto` with built-in recipes, and the fit of its model scales, from measured cells."""

import json
from itertools import product
from pathlib import Path

import pytest

import fit_auto
import pages
from fit_auto import Cell
from timebox.planning.dataset_profile import DatasetProfile
from timebox.planning.model_scales import MODEL_SCALES, ModelScale, model_scales, required_epochs

TRUE = (5.0, 0.6)
# Position of the scale of width 16.
WIDER = 4
Lines = list[dict[str, object]]


def line(task: str, label: str, seed: int, accuracy: float, **changes: object) -> dict[str, object]:
    return {
        "task": task, "machine": "desk", "trial_budget": "60s", "speed": "full", "side": 32, "label": label,
        "seed": seed, "accuracy": accuracy, "late": False, "train_images": 5000, "epochs": 7.0, "width": 16,
        "ensemble_size": 1, "input_scale": 1.0, "batch_size": 128, "record": "one", **changes,
    }  # fmt: skip


def climbed(task: str, num_images: int, budget: str, narrow: float) -> Lines:
    """Two scales of a cell. The wider one has half the epochs, and is more accurate if they suffice."""
    task_of_it = DatasetProfile(num_images, 32, 10, mirror_allowed=True)
    wide, below = MODEL_SCALES[WIDER], narrow / 2 < required_epochs(model_scales(*TRUE)[WIDER], task_of_it)
    shared = {"trial_budget": budget, "train_images": num_images}
    return [
        line(task, "auto", 0, 0.70, **shared, epochs=narrow, width=12),
        line(task, "auto width=16", 0, 0.68 if below else 0.73, **shared, epochs=narrow / 2, width=wide.width),
    ]


def many_cells() -> Lines:
    sizes = {"few": 500, "some": 5000, "many": 45_000}
    return [
        entry
        for task, num_images in sizes.items()
        for k in range(40)
        for entry in climbed(task, num_images, f"{k + 1}s", 10 * (5000 / num_images) ** 0.6 * 1.08 ** (k - 20))
    ]


def test_the_best_built_in_is_compared_pair_by_pair() -> None:
    cells = fit_auto.by_cell(
        [
            *(line("digits", "auto", seed, 0.90 + seed / 100, batch_size=128 if seed else 64) for seed in range(5)),
            *(line("digits", "airbench94", seed, 0.89 + seed / 100) for seed in range(5)),
            *(line("digits", "haet2021", seed, 0.5) for seed in range(5)),
            line("digits", "auto width=8", 0, 0.99),
        ]
    )
    assert fit_auto.standing(cells)[2:] == [
        "| digits | desk | full | 1m | 92.0 | 91.0 (`airbench94`) | +1.0 | +1.0 … +1.0 | 5 | yes | 4 of 5 |"
    ]


@pytest.mark.parametrize(
    ("changes", "as_today"),
    [
        ({}, True),
        ({"mixup": 0.0, "blur_pool": False}, True),
        ({"mixup": 0.25}, False),
        ({"mixup_until": 0.8}, False),
        ({"blur_pool": True}, False),
        ({"width": 48, "epochs": 12.0}, False),
        ({"width": 48, "epochs": 12.0, "blur_pool": True}, True),
    ],
)
def test_a_trial_is_as_today_where_auto_would_train_its_network_so(changes: dict[str, object], as_today: bool) -> None:
    assert fit_auto.is_planned_today(line("digits", "auto", 0, 0.9, **changes)) is as_today


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ((0.0, -0.2, 0.1, 0.0, 0.0), "yes"),
        ((-0.5, -0.5, -0.5, -0.5, -0.5), "**no**"),
        ((4.0, -4.0, 1.0, 0.0, 0.0), "**no**"),
        ((0.0, 0.0, 0.0, 0.0), "too few pairs"),
    ],
)
def test_not_inferior_means_on_average_and_at_the_lower_end(differences: tuple[float, ...], verdict: str) -> None:
    auto = {seed: 90 + difference for seed, difference in enumerate(differences)}
    assert fit_auto.paired(auto, dict.fromkeys(range(5), 90.0)).endswith(f"| {len(differences)} | {verdict} |")


def test_one_pair_has_no_interval() -> None:
    assert fit_auto.paired({0: 90.0, 1: 91.0}, {0: 90.0}) == "– | – | 1 | – |"


def test_what_more_time_came_to() -> None:
    means = {"10s": (0.70, 0.72), "2m": (0.80, 0.82), "60s": (0.815, 0.815)}
    cells = fit_auto.by_cell(
        [
            *(
                line("a", "auto", i, x, trial_budget=budget)
                for budget, pair in means.items()
                for i, x in enumerate(pair)
            ),
            *(
                line("b", "auto", 0, x, trial_budget=budget)
                for budget, x in (("10s", 0.9), ("60s", 0.85), ("2m", 0.89))
            ),
            line("b", "auto width=8", 0, 0.99, trial_budget="2m"),
            line("b", "auto", 0, 0.5, trial_budget="5m", speed="quarter"),
            *(line("c", "auto", 0, x, trial_budget=budget) for budget, x in (("10s", 0.9), ("60s", 0.95))),
            line("c", "auto", 0, 0.5, trial_budget="2m", record="another"),
        ]
    )
    assert fit_auto.more_time(cells) == [
        "| task | machine | speed | 10s | 1m | 2m | largest loss | at most 0.5 |",
        "|---|---|---|---|---|---|---|---|",
        "| a | desk | full | 71.0 (2) | 81.5 (2) | 81.0 (2) | 0.5 | yes |",
        "| b | desk | full | 90.0 (1) | 85.0 (1) | 89.0 (1) | 5.0 | **no** |",
        "| c | desk | full | 90.0 (1) | 95.0 (1) | – | 0.0 | yes |",
    ]
    assert fit_auto.more_time({cell: lines for cell, lines in cells.items() if cell.speed == "quarter"}) == []


def test_recipes_of_different_records_are_not_paired() -> None:
    lines = [line("a", label, seed, 0.9) for label in ("auto", "airbench94") for seed in range(5)]
    again = [line("a", "auto", seed, 0.8, record="another") for seed in range(5)]
    assert len(fit_auto.standing(fit_auto.by_cell([*lines, *again]))[2:]) == 1
    assert fit_auto.standing(fit_auto.by_cell([*again, *lines])) == fit_auto.standing(fit_auto.by_cell(lines))


def test_late_and_failed_trials_count_for_nothing(tmp_path: Path) -> None:
    kept = line("digits", "auto", 0, 0.9)
    folder = tmp_path / "2026-01-01_auto-cells_some-machine"
    folder.mkdir()
    lines = [kept, {**kept, "late": True}, {**kept, "accuracy": None}]
    for entry in lines:
        del entry["machine"], entry["record"]
    (folder / "cells.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in lines))
    assert fit_auto.read(tmp_path) == [{**kept, "machine": "some-machine", "record": folder.name}]


def test_the_fit_finds_what_the_cells_were_made_of() -> None:
    measured = fit_auto.measured_scales(fit_auto.by_cell(many_cells()))
    assert len(measured) == 120
    losses = fit_auto.losses_of(measured)
    epochs, exponent = fit_auto.fit(losses)
    assert epochs == pytest.approx(TRUE[0], rel=0.15)
    assert exponent == TRUE[1]
    assert max(losses[epochs, exponent].values()) < 0.5
    assert max(fit_auto.by_task((20.0, 1.0), measured).values()) > 1
    assert max(fit_auto.left_out(losses).values()) < 1


def test_a_scale_is_recognised_by_its_fields() -> None:
    assert fit_auto.scale_position(line("digits", "auto", 0, 0.9, side=8, width=24, input_scale=2.0)) == WIDER + 1
    assert MODEL_SCALES[fit_auto.scale_position(line("x", "auto", 0, 0.9, width=64, input_scale=1.25))].enlarged
    assert fit_auto.scale_position(line("x", "auto", 0, 0.9, width=20)) is None


def test_trials_of_former_scales_are_left_out() -> None:
    cell = many_cells()[:2]
    measured = fit_auto.measured_scales(fit_auto.by_cell([*cell, {**cell[0], "label": "auto width=20", "width": 20}]))
    assert [len(model_scales) for model_scales in measured.values()] == [2]


def test_scales_of_different_records_are_not_compared() -> None:
    below, above = many_cells()[:2]
    both = [below, above, *({**one, "record": "another"} for one in (below, above))]
    assert [cell.record for cell in fit_auto.measured_scales(fit_auto.by_cell(both))] == ["another", "one"]
    assert fit_auto.measured_scales(fit_auto.by_cell([below, {**above, "record": "another"}])) == {}


def test_selection_stops_at_the_first_scale_that_is_not_affordable() -> None:
    steps = [ModelScale(8, 6, 1), ModelScale(12, 6, 1), ModelScale(16, 9, 1), ModelScale(24, 1, 1)]
    task = DatasetProfile(5000, 32, 10, mirror_allowed=True)
    there = [fit_auto.Measured(place, task, 50 + place, epochs) for place, epochs in enumerate((20.0, 12.0, 8.0, 4.0))]
    assert fit_auto.select_scale(there, steps, 1.0) is there[1]
    assert fit_auto.select_scale(there[2:], steps, 1.0) is there[3], "what is not measured below is not asked for"
    assert fit_auto.select_scale(there, steps, 0.4) is there[0], "a speed that is read too low"
    assert fit_auto.select_scale(there, steps, 1.25) is there[3], "a speed that is read too high"


def test_the_page_and_the_constants_are_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "records" / "2026-01-01_auto-cells_some-machine"
    folder.mkdir(parents=True)
    (folder / "cells.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in many_cells()))
    (tmp_path / fit_auto.PAGE).parent.mkdir(parents=True)
    page = tmp_path / fit_auto.PAGE
    places = [
        f"{pages.BEGIN.format(name)}\nold\n{pages.END.format(name)}\n" for name in ("standing", "more-time", "fit")
    ]
    page.write_text("Before.\n" + "Between.\n".join(places) + "After.\n")
    root = ["--root", str(tmp_path)]
    assert fit_auto.main([*root, "--check"]) == 1
    losses = fit_auto.losses_of(fit_auto.measured_scales(fit_auto.by_cell(many_cells())))
    epochs, exponent = fit_auto.fit(losses)
    monkeypatch.setattr(fit_auto, "WIDTH_EPOCHS", epochs)
    monkeypatch.setattr(fit_auto, "WIDTH_EXPONENT", exponent)
    monkeypatch.setattr(fit_auto, "LEFT_OUT_LOSS", fit_auto.mean_and_max(fit_auto.left_out(losses)))
    capsys.readouterr()
    assert fit_auto.main([*root, "--check"]) == 1
    assert capsys.readouterr().err == "fit_auto.py: docs/explanation/auto.md and the cells in records/ disagree\n"
    assert fit_auto.main(root) == 0
    text = page.read_text()
    assert text.startswith("Before.\n")
    assert text.endswith("\nAfter.\n")
    assert "old" not in text
    assert text.count("Between.") == 2
    assert "| some | 40 |" in text
    assert fit_auto.main([*root, "--check"]) == 0


def test_cells_are_told_apart_by_task_machine_speed_record_and_budget() -> None:
    lines = [
        line("a", "auto", 0, 0.9, trial_budget=budget, speed=speed, machine=machine, record=record)
        for budget in ("60s", "9s")
        for speed in "qf"
        for record in "21"
        for machine in ("old", "new")
    ]
    cells = [Cell("a", *rest) for rest in product(("new", "old"), "fq", "12", ("9s", "60s"))]
    assert list(fit_auto.by_cell(lines)) == cells


def test_what_auto_was_fitted_on_is_what_lies_in_the_records() -> None:
    assert fit_auto.main(["--check"]) == 0


def test_without_a_built_in_recipe_beside_there_is_no_standing() -> None:
    assert fit_auto.standing(fit_auto.by_cell([line("digits", "auto", 0, 0.9)])) == []
