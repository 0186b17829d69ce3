from __future__ import annotations

from marey.papers.hmdb_page import best, confusion_table, render_page

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
        [], "A person's sentence.", {"class_names": ["run", "eat"], "rows": ROWS}, {}
    )
    right, wrong = page.split("<h2>Wrong</h2>")
    assert "a.mp4" in right
    assert "b&lt;.mp4" in wrong
    assert "<p>A person&#x27;s sentence.</p>" in page
    assert "answers run 80%, eat 20%" in wrong


def test_a_gallery_without_videos_says_so():
    page = render_page([], "", {"class_names": ["run", "eat"], "rows": ROWS[:1]}, {})
    assert page.endswith("<h2>Wrong</h2><p>None.</p></html>")
