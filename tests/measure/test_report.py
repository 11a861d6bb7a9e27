import json
import math

import pytest

from streamer.errors import UsageError
from streamer.measure.report import (
    Curve,
    Report,
    Table,
    as_json,
    cell,
    draw_curves,
    evaluation_library,
    publish,
    write_into,
)
from streamer.model.machine_facts import machine_facts


def report(**changes):
    given = {
        "name": "trial",
        "title": "A trial",
        "about": "What it is.",
        "result": {"bench": "trial", "machine": machine_facts(1), "value": 1.5},
        "tables": (Table("Rows", ("a", "b"), [["x", 0.12345], ["y", None]]),),
        "draw": lambda figure: figure.subplots().plot([1, 2]),
    }
    return Report(**{**given, **changes})


def test_json_markdown_and_plot_are_written(tmp_path):
    paths = publish(report(), tmp_path / "deep" / "folder")
    assert [path.name for path in paths] == ["trial.json", "trial.md", "trial.png"]
    assert json.loads(paths[0].read_text())["value"] == 1.5
    page = paths[1].read_text()
    assert "| x | 0.123 |" in page
    assert "| y | – |" in page
    assert "load average" in page
    assert paths[2].read_bytes().startswith(b"\x89PNG")


def test_without_a_drawing_there_is_no_plot(tmp_path):
    assert [path.suffix for path in publish(report(draw=None), tmp_path)] == [".json", ".md"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"--out .*file: cannot be written"):
        publish(report(), tmp_path / "file")


@pytest.mark.parametrize(
    ("value", "text"), [(1234.5, "1234"), (0.5, "0.5"), (None, "–"), (math.nan, "–"), ("a|b\n", "a\\|b "), (3, "3")]
)
def test_cells(value, text):
    assert cell(value) == text


def test_numbers_that_are_none_are_null_in_json():
    assert json.loads(as_json({"value": math.nan, "rows": (1, math.inf)})) == {"value": None, "rows": [1, None]}


def test_findings_without_a_machine_are_a_page_too():
    assert report(result={"value": 1}, about="").markdown().startswith("## A trial\n\nRows\n\n| a | b |")


def test_curves_are_drawn_with_their_names(tmp_path):
    curves = [Curve("a", [1, 2], [3, 4]), Curve("b", [1], [2], True, ["point"])]
    axes = []

    def draw(figure):
        axes.append(figure.subplots())
        draw_curves(axes[0], curves, title="A curve", x="x", y="y")

    publish(report(draw=draw), tmp_path)
    assert [line.get_label() for line in axes[0].lines] == ["a", "b"]
    assert [text.get_text() for text in axes[0].texts] == ["point"]
    assert (axes[0].get_title(), axes[0].get_xlabel()) == ("A curve", "x")


def test_a_library_that_is_missing_is_named_with_what_installs_it():
    with pytest.raises(UsageError, match=r"no_such_thing is needed here: pip install '.\[eval\]'"):
        evaluation_library("no_such_thing.part")


@pytest.mark.parametrize(("load", "word"), [(0.2, "a quiet machine"), (3.0, "LOADED")])
def test_the_page_says_whether_the_machine_was_loaded(load, word):
    result = {"machine": {**machine_facts(2), "load_1_5_15_min": [load, load, load]}}
    assert word in report(result=result).markdown()


def test_a_page_gets_the_report_in_the_place_of_its_section(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Figures\n\n## A trial\n\nOld.\n\n### Deeper\n\nOld too.\n\n## Another\n\nStays.\n")
    write_into(report(), page)
    first = page.read_text()
    assert first.startswith("# Figures\n\n## A trial\n\nWhat it is.")
    assert "Old" not in first
    assert first.endswith("\n\n## Another\n\nStays.\n")
    write_into(report(), page)
    assert page.read_text() == first


def test_a_page_without_the_section_gets_it_at_the_end(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Figures\n\n## Another\n\nStays.\n")
    write_into(report(), page)
    assert page.read_text().startswith("# Figures\n\n## Another\n\nStays.\n\n## A trial\n\nWhat it is.")


def test_a_page_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"--page .*none.md: cannot be read and written: No such file"):
        write_into(report(), tmp_path / "none.md")


def test_the_brief_form_is_the_first_table():
    brief = report(tables=(Table("Rows", ("a",), [["x"]]), Table("More", ("a",), [["y"]]))).brief()
    assert "| x |" in brief
    assert "More" not in brief
