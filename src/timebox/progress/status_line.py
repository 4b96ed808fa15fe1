"""The line that shows how far a training is: a bar and as many fields as fit."""

from typing import TYPE_CHECKING

from timebox.formatting import percent, short

if TYPE_CHECKING:
    from rich.text import Text

    from timebox.progress.reporter import StepStatus

MIN_BAR, MAX_BAR = 5, 30


def share_done(status: "StepStatus", budget_seconds: float | None) -> float:
    """The share of the call that is over, 0 to 1: of its budget if there is one, else of its steps."""
    if budget_seconds is None or status.seconds_left is None:
        return min(max(status.progress, 0.0), 1.0)
    return min(max(1 - status.seconds_left / budget_seconds, 0.0), 1.0)


def time_left(seconds: float) -> str:
    """`0:42`, `12:05`, `1:02:35`; never below zero."""
    minutes, rest = divmod(max(int(seconds), 0), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def status_fields(status: "StepStatus") -> list[tuple[int, str, str]]:
    """The fields of a status line, from left to right: (rank, label, value). Where not all fit, those of the highest
    ranks are left out."""
    fields = [
        (2, "step", f"{status.step:>{len(str(status.total_steps))}}/{status.total_steps}"),
        (4, "epoch", f"{status.epoch:.1f}"),
        (1, "loss", short(status.loss)),
        (6, "lr", short(status.lr)),
        (5, "", f"{status.images_per_second:,.0f} img/s"),
    ]
    if status.val_accuracy is not None:
        fields.append((3, "val", percent(status.val_accuracy, 1).replace(" ", "")))
    if status.seconds_left is not None:
        fields.append((0, "", f"{time_left(status.seconds_left)} left"))
    return fields


def status_line(status: "StepStatus", budget_seconds: float | None, width: int) -> "Text":
    """The line for `width` columns."""
    from rich.text import Text

    shown = status_fields(status)
    gap = 2

    def room() -> int:
        return width - sum(len(f"{label} {value}".strip()) + gap for _, label, value in shown)

    if room() < MIN_BAR:
        gap = 1
    while room() < MIN_BAR and len(shown) > 1:
        shown.remove(max(shown))
    size = min(max(room(), 0), MAX_BAR)
    filled = round(size * share_done(status, budget_seconds))
    line = Text(no_wrap=True, overflow="crop", end="")
    line.append("━" * filled, style="green")
    line.append("─" * (size - filled), style="bright_black")
    for _, label, value in shown:
        line.append(" " * gap if line else "")
        line.append(f"{label} " if label else "", style="bright_black")
        line.append(value)
    return line


def phase_line(name: str) -> "Text":
    """The line while a phase without steps lasts."""
    from rich.text import Text

    return Text(f"{name} …", style="bright_black", no_wrap=True, overflow="crop", end="")
