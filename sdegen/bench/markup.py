"""What the report is made of: its style, numbers and tables in HTML."""

from __future__ import annotations

from collections.abc import Sequence

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1c1c1c; background: #fff; margin: 0 auto;
  max-width: 62rem; padding: 1rem 1.2rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.2; } h2 { margin-top: 2.6rem; font-size: 1.25rem; }
h3 { font-size: 1.02rem; margin-bottom: .3rem; }
svg { width: 100%; height: auto; } figure { margin: 1rem 0; break-inside: avoid; }
figcaption, small, .note { color: #555; font-size: .88rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .86rem; margin: .6rem 0; }
th, td { padding: .22rem .6rem; text-align: right; border-bottom: 1px solid #e4e4e4; }
th:first-child, td:first-child, .words td, .words th { text-align: left; }
thead th { border-bottom: 1px solid #888; }
td.no { color: #a3122b; font-weight: 600; } tr.ours td:first-child { color: #0b62a4; }
code { font-size: .9em; background: #f4f4f4; padding: 0 .25em; }
@media print { body { max-width: none; font-size: 10pt; } h2 { break-after: avoid; } }
"""


def number(value: float) -> str:
    """Two digits."""
    return f"{value:.2g}" if 1e-3 <= value < 1e3 else f"{value:.1e}"


def table(
    rows: Sequence[Sequence[str]],
    header: Sequence[str],
    ours: Sequence[bool] = (),
    words: bool = False,
) -> str:
    """An HTML table; cells are HTML, numbers unless they are words."""
    body = "".join(
        f'<tr class="{"ours" if i < len(ours) and ours[i] else ""}">'
        + "".join(f"<td>{cell}</td>" if cell[:3] != "!!!" else f'<td class="no">{cell[3:]}</td>'
                  for cell in row)
        + "</tr>"
        for i, row in enumerate(rows)
    )  # fmt: skip
    top = "".join(f"<th>{cell}</th>" for cell in header)
    kind = ' class="words"' if words else ""
    whole = f"<table{kind}><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="scroll">{whole}</div>'
