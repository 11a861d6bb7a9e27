import json
import math

from streamer.training.reports import Curve, Plot, Report, Table, write_report


def test_a_report_is_json_markdown_and_plots(tmp_path):
    plot = Plot("curve", "A curve", "x", "y", (Curve("a", [1, 2], [3, 4]), Curve("b", [1], [2], True, ["point"])))
    table = Table(("name", "value"), (("a|b", 0.12345), ("none", None), ("nan", math.nan), ("n", 3)))
    report = Report(
        "study", "A study", {"value": math.nan, "rows": (1, 2)}, (("Values", table), ("Note", "x")), (plot,)
    )
    path = write_report(report, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "study.json").read_text()) == {"value": None, "rows": [1, 2]}
    text = path.read_text()
    assert "| a\\|b | 0.123 |" in text
    assert "| none | – |" in text
    assert "![A curve](curve.png)" in text
    assert (tmp_path / "out" / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert {each.name for each in (tmp_path / "out").iterdir()} == {"study.json", "study.md", "curve.png"}
