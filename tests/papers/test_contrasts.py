"""Lines of a table compared on the same clips."""

from __future__ import annotations

from marey.papers.contrasts import Line, describe_lines

LABELS = [k % 4 for k in range(40)]
GROUPS = [f"scene {k // 4}" for k in range(40)]


def line(name: str, answers: list[list[int]], against: str = "") -> Line:
    return Line(name=name, table="", against=against, answers=answers, labels=LABELS, groups=GROUPS)


def test_a_line_that_is_right_everywhere_beats_one_that_answers_one_class():
    constant, perfect = [[0] * 40] * 3, [LABELS] * 3
    rows = describe_lines([line("constant", constant), line("perfect", perfect, "constant")])
    first, second = rows["lines"]
    assert (first["top1"], first["seeds"], first["clips"]) == (25.0, 3, 40)
    assert first["interval"] == "95%, over groups"
    test = second["against"]
    assert (test["difference"], test["line"]) == (75.0, "constant")
    assert test["low"] > 0
    assert test["p"] == round(2 / 2**10, 5)  # all ten scenes gain: 2 of 2^10 sign patterns
    assert test["holm"] == test["p"]


def test_equal_answers_differ_by_nothing_and_the_test_says_so():
    rows = describe_lines([line("a", [LABELS]), line("b", [LABELS], "a")])["lines"]
    test = rows[1]["against"]
    assert (test["difference"], test["p"]) == (0.0, 1.0)
    assert test["low"] < 0 < test["high"]


def test_only_seeds_that_both_lines_have_are_compared():
    wrong = [(k + 1) % 4 for k in LABELS]
    rows = describe_lines([line("a", [LABELS, wrong]), line("b", [LABELS], "a")])["lines"]
    assert rows[0]["top1"] == 50.0
    assert (rows[1]["against"]["seeds"], rows[1]["against"]["difference"]) == (1, 0.0)


def test_many_tests_are_corrected_for_their_number():
    half = [k if k in (0, 1) else 0 for k in LABELS]
    lines = [line("base", [half]), line("better", [LABELS], "base")]
    lines += [line(f"same {i}", [half], "base") for i in range(4)]
    rows = {row["line"]: row for row in describe_lines(lines)["lines"]}
    better = rows["better"]["against"]
    assert better["holm"] == round(5 * better["p"], 5)
    assert rows["same 0"]["against"]["holm"] == 1.0
