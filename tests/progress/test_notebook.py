"""Progress in a notebook."""

from pathlib import Path

import pytest

from timebox.progress import ProgressNote, StepStatus
from timebox.progress.notebook import NotebookReporter

pytest.importorskip("IPython", reason="IPython is not installed")

STATUS = StepStatus(
    step=12, total_steps=29, epoch=1.5, progress=0.4, loss=0.5123, lr=0.04, momentum=0.9, images_per_second=1432.4,
    seconds_left=35.2, val_accuracy=None,
)  # fmt: skip


def test_notes_stay_and_the_line_goes() -> None:
    reporter = NotebookReporter(60.0)
    reporter.phase("reading")
    assert repr(reporter) == "reading …"
    reporter.note("60 images <b>&\x1b[31m")
    reporter.step(STATUS)  # too soon to be drawn again
    assert repr(reporter) == "60 images <b>&\\x1b[31m\nreading …"
    html = reporter._repr_html_()
    assert "&lt;b&gt;&amp;" in html
    assert html.count("<pre") == 1
    reporter.close()
    assert repr(reporter) == "60 images <b>&\\x1b[31m"


def test_a_progress_note_is_replaced_by_the_next() -> None:
    reporter = NotebookReporter(60.0)
    reporter.note(ProgressNote("read 10 of 60 images"))
    assert repr(reporter) == "read 10 of 60 images …"
    reporter.note(ProgressNote("read 40 of 60 images"))
    reporter.note("60 images")
    assert repr(reporter) == "60 images\nread 40 of 60 images …"
    reporter.phase("planning")
    assert repr(reporter) == "60 images\nplanning …"


def test_the_line_follows_the_steps() -> None:
    times = iter(range(100))
    reporter = NotebookReporter(60.0, lambda: next(times))
    reporter.step(STATUS)
    assert "step 12/29" in repr(reporter)
    assert "0:35 left" in repr(reporter)


@pytest.mark.integration
def test_a_training_in_a_notebook_shows_its_progress(tmp_path: Path) -> None:
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    call = "timebox.train('digits', steps=20, test=0.2, scoring=False, out={out!r}{more});"
    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_code_cell("import timebox\n" + call.format(out=str(tmp_path / "shown"), more="")),
            nbformat.v4.new_code_cell(call.format(out=str(tmp_path / "silent"), more=", progress=False")),
            nbformat.v4.new_code_cell(f"timebox.evaluate({str(tmp_path / 'shown')!r}, 'digits');"),
        ]
    )
    nbclient.NotebookClient(notebook, timeout=120).execute()
    shown, silent, evaluated = (cell["outputs"] for cell in notebook.cells)
    assert silent == []
    assert [output["output_type"] for output in shown] == ["display_data"]
    text = shown[0]["data"]["text/plain"]
    assert "digits is read as" in text
    assert "img/s" not in text
    assert "<pre" in shown[0]["data"]["text/html"]
    assert [output["data"]["text/plain"] for output in evaluated] == [""]
