from __future__ import annotations

import torch

from marey.papers.hmdb_page import Answers, best, confusion_table, render_page, squares
from marey.papers.tables import Result

ROWS = [
    {"video": "a.mp4", "label": 0, "probabilities": [0.9, 0.1]},
    {"video": "b<.mp4", "label": 1, "probabilities": [0.8, 0.2]},
    {"video": "c.mp4", "label": 1, "probabilities": [0.3, 0.7]},
]


def test_the_best_class_has_the_highest_probability():
    assert [best(row) for row in ROWS] == [0, 0, 1]


def test_the_confusion_matrix_counts_truth_by_answer():
    table = confusion_table(ROWS, ["run", "eat"])
    assert table.count("<tr>") == 3
    cells = [part.split("<")[0] for part in table.split("<td")[1:]]
    assert [int(cell.split(">")[1]) for cell in cells] == [1, 0, 1, 1]
    assert "rgba(46,134,193,1.00)" in table
    assert table.count("rgba(46,134,193,0.50)") == 2


def test_right_and_wrong_videos_stand_apart_and_names_are_escaped():
    page = render_page(
        [], "A person's sentence.", None, Answers(class_names=["run", "eat"], rows=ROWS), [], {}
    )
    right, wrong = page.split("<h2>Wrong</h2>")
    assert "a.mp4" in right
    assert "b&lt;.mp4" in wrong
    assert "<p>A person&#x27;s sentence.</p>" in page
    assert "answers run 80%, eat 20%" in wrong


def test_a_gallery_without_videos_says_so():
    page = render_page([], "", None, Answers(class_names=["run", "eat"], rows=ROWS[:1]), [], {})
    assert page.endswith("<h2>Wrong</h2><p>None.</p></html>")


def test_a_line_shows_its_interval_its_test_and_the_paper_s_numbers():
    result = Result(
        name="Table 3: random",
        table="Table 3",
        note="",
        paper={"top1": 91.2, "top5": 100.0},
        values={"top1": [60.0, 62.0], "top5": [99.0, 99.0]},
        seeds_run=[0, 1],
        seeds_planned=[0, 1],
        errors=[],
    )
    against = {"line": "Table 3: even", "difference": -3.2, "low": -6.1, "high": -0.3}
    line = {"line": result.name, "low": 55.0, "high": 66.5}
    described = {"lines": [line | {"against": against | {"p": 0.031, "holm": 0.4}}]}
    page = render_page([result], "", described, None, [], {})
    assert "<td>61.00</td><td>55.0 to 66.5</td>" in page
    assert "-3.2 (-6.1 to -0.3) from even; p 0.031, corrected 0.4" in page
    assert "91.20, 100.00" in page


def test_an_attention_map_is_drawn_without_the_video():
    drawn = squares(torch.tensor([[[0.5, 0.0], [0.25, 0.25]]]))
    assert drawn.count("<rect") == 4
    assert drawn.count("fill-opacity='1.00'") == 1
    assert drawn.count("fill-opacity='0.50'") == 2
