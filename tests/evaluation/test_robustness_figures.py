"""The figures of the robustness report."""

from __future__ import annotations

from marey.evaluation.robustness_figures import curve, heat_colour


def test_a_drop_is_red_and_a_chart_escapes_its_title() -> None:
    assert heat_colour(0) == ("rgb(255,255,255)", "#1c2126")
    assert heat_colour(0.9)[1] == "#fff"
    assert "<polyline" in curve({"m": [(1, 0.5)]}, {"m": 1.0}, "fog <&>")
    assert "&lt;&amp;&gt;" in curve({"m": [(1, 0.5)]}, {"m": 1.0}, "fog <&>")
