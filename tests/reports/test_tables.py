"""Tables for papers: LaTeX that nothing in a cell can leave, and JSON without what it cannot hold."""

from __future__ import annotations

import math
import re

from outthink.reports.tables import latex_table, plain


def test_a_latex_table_is_a_tabular_of_booktabs() -> None:
    text = latex_table(
        ["run", "usd", "accuracy (95%)"], [["a_b", "-", "50.0%"], ["c&d", "-", "-3.5 (-9.0 to +2.0)"]], made_by="x\ny"
    )
    assert text.splitlines() == [
        "% made by: x y",
        r"% needs: \usepackage{booktabs}",
        r"\begin{tabular}{lr}",
        r"  \toprule",
        r"  run & accuracy (95\%) \\",
        r"  \midrule",
        r"  a\_b & 50.0\% \\",
        r"  c\&d & $-$3.5 ($-$9.0 to +2.0) \\",
        r"  \bottomrule",
        r"\end{tabular}",
    ]


def test_no_cell_is_a_command() -> None:
    evil = "\\input{/etc/passwd} $x^2$ 100% a~b #1 {x} <y> |z|\x1b[2J\nline"
    (row,) = [line for line in latex_table(["run"], [[evil]]).splitlines() if "input" in line]
    body = row.removesuffix(r" \\")
    allowed = (
        r"\\textbackslash\{\}|\\textasciitilde\{\}|\\textasciicircum\{\}|\\text(?:less|greater|bar)\{\}|\\[&%$#_{}]"
    )
    rest = re.sub(allowed, "", body)
    assert not set(rest) & set("\\{}$%&#_^~\x1b")


def test_what_json_does_not_have_is_null() -> None:
    assert plain({"a": (math.nan, [math.inf, 1.5]), "b": "x"}) == {"a": [None, [None, 1.5]], "b": "x"}
