"""The page of a recipe search."""

from timebox.reporting import tuning_page

PARAMS = {"max_lr": 1.0, "label_smoothing": 0.1, "flip": "none"}


Lines = list[dict[str, object]]


def make_trial(k: int) -> dict[str, object]:
    failed = k % 3 == 2
    return {
        "phase": "search",
        "trial": k,
        "state": ("complete", "stopped", "failed")[k % 3],
        "accuracy": None if failed else 0.5 + 0.01 * k,
        "budget_seconds": None if failed else (15.0, 5.0)[k % 3],
        "settings": [f"max_lr=x{k}", "label_smoothing=0.1", "flip=none"],
        "reason": "<b>out of memory</b>" if failed else None,
        "params": {**PARAMS, "max_lr": 0.1 + k},
    }


def make_search(num: int = 30, has_winner: bool = True) -> tuple[dict[str, object], Lines, Lines, dict[str, float]]:
    """Arguments of ``tuning_page`` for a search of ``num`` trials, with or without a winner."""
    trials = [make_trial(k) for k in range(num)]
    settings = ["max_lr=x2"]
    repeats: Lines = [
        {"phase": phase, "trial": 3, "settings": settings, "repeat": repeat, "budget_seconds": 15.0, "accuracy": 0.8}
        for phase, repeat in (("repeat", 1), ("repeat", 2), ("check", 1))
    ]
    summary: dict[str, object] = {
        "command": "timebox tune 'a & b' --budget 1h",
        "budget_seconds": 3600.0,
        "elapsed_seconds": 3590.0,
        "num_trials": num,
        "winner": {"trial": 3, "settings": settings} if has_winner else {"trial": None, "settings": []},
        "best_trials": [
            {"trial": 3, "settings": settings, "accuracies": [0.8, 0.82], "mean": 0.81, "sd": 0.014},
            {"trial": None, "settings": [], "accuracies": [0.79], "mean": 0.79, "sd": None},
        ]
        if has_winner
        else [],
        "check": [{"settings": [], "accuracy": 0.8}, {"settings": settings, "accuracy": 0.82}] if has_winner else [],
        "why": "nothing that was tried was better on average",
        "final": {"test_accuracy": 0.85 if has_winner else None},
    }
    return summary, trials, repeats, {"max_lr": 0.8, "flip": 0.2} if has_winner else {}


def test_page_has_every_section() -> None:
    page = tuning_page(*make_search())
    for name in ("outcome", "best-trials", "history", "importance", "fields", "trials"):
        assert f'<section id="{name}">' in page
    for text in ("85.00%", "59m50s of 1h", "trial 3: max_lr=x2", "82.00%, against 80.00%", "&lt;b&gt;out of memory"):
        assert text in page
    assert "a &amp; b" in page
    assert "http" not in page.replace("http-equiv", "")


def test_search_without_a_winner_says_why() -> None:
    page = tuning_page(*make_search(has_winner=False))
    assert "Reason: nothing that was tried was better on average." in page
    assert "no time to train the best trials again" in page
    assert '<section id="importance">' not in page


def test_search_without_trials_has_a_page() -> None:
    summary, _, _, _ = make_search(has_winner=False)
    assert "<main>" in tuning_page({**summary, "num_trials": 0}, [], [], {})
