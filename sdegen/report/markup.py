"""What the report is made of: its style, numbers, tables and galleries of figures in HTML."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Sequence
from typing import NamedTuple

STYLE = """
:root { color-scheme: light; --ours: #0b62a4; --late: #a3122b; --line: #e2e2e2; }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1c1c1c; background: #fff; margin: 0 auto;
  max-width: 64rem; padding: 1rem 1.2rem 4rem; }
p { max-width: 46rem; } a { color: var(--ours); }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 1rem 0 .6rem; }
h2 { margin: 3rem 0 .4rem; font-size: 1.3rem; border-top: 1px solid var(--line);
  padding-top: 1.1rem; }
h3 { font-size: 1.05rem; margin: 1.6rem 0 .3rem; }
nav { font-size: .9rem; line-height: 1.9; } nav a { margin-right: 1rem; white-space: nowrap; }
figcaption, small, .note { color: #555; font-size: .875rem; }
code { font-size: .9em; background: #f3f3f3; padding: 0 .25em; overflow-wrap: anywhere; }
figure { margin: 1rem 0 1.4rem; } figcaption { margin-top: .5rem; }
.panels { display: grid; gap: .8rem 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(18rem, 100%), 1fr)); }
.panels svg { width: 100%; height: auto; display: block; }
svg text { font-family: system-ui, sans-serif !important; }
.legend { list-style: none; margin: .3rem 0 .6rem; padding: 0; font-size: .85rem;
  display: flex; flex-wrap: wrap; gap: .15rem 1.2rem; align-content: center; }
.panels .legend { flex-direction: column; justify-content: center; }
@media (min-width: 61rem) { .panels .broad { grid-column: span 2; display: block; columns: 2;
  align-self: center; } }
.legend li { display: flex; align-items: center; gap: .45rem; }
.legend svg { width: 2.6rem; height: 1rem; flex: none; }
.scroll { overflow-x: auto; margin: .6rem 0; background:
  linear-gradient(to left, #fff 40%, #fff0) right / 3rem 100% no-repeat local,
  linear-gradient(to left, #0003, #0000) right / 1rem 100% no-repeat scroll; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { padding: .24rem .65rem; text-align: right; border-bottom: 1px solid var(--line);
  white-space: nowrap; vertical-align: top; }
th:first-child, td:first-child { position: sticky; left: 0; z-index: 1; background: #fff; }
th:first-child, td:first-child, .text, .long { text-align: left; }
.long { white-space: normal; min-width: 12rem; overflow-wrap: anywhere; }
thead th { border-bottom: 1px solid #888; vertical-align: bottom; line-height: 1.3; }
.late { color: var(--late); font-weight: 600; }
tr.ours td:first-child { color: var(--ours); font-weight: 600; }
summary { cursor: pointer; color: var(--ours); padding: .35rem 0; }
@media (max-width: 40rem) {
  body { padding: .6rem .9rem 3rem; }
  th, td { padding: .24rem .5rem; }
  .names td:first-child { white-space: normal; min-width: 7.5rem; max-width: 9.5rem;
    overflow-wrap: break-word; }
}
@page { size: A4; margin: 14mm 12mm; }
@page wide { size: A4 landscape; margin: 12mm; }
@media print {
  html { font-size: 12px; } body { max-width: none; padding: 0; font-size: 9.5pt; }
  p { max-width: none; } nav { display: none; }
  h1, h2, h3, summary, thead { break-after: avoid; } h2 { margin-top: 1.6rem; }
  .legend, h2 + p, p:has(+ .scroll, + figure, + details) { break-after: avoid; }
  tr, figure, .panels > * { break-inside: avoid; } p, li { orphans: 3; widows: 3; }
  thead { display: table-header-group; }
  .panels { grid-template-columns: repeat(3, 1fr); gap: .4rem .6rem; }
  .legend { font-size: 8pt; }
  .panels .broad { grid-column: span 2; display: block; columns: 2; align-self: center; }
  .scroll { overflow: visible; background: none; }
  table { font-size: 7.4pt; } th, td { padding: .12rem .4rem; }
  th:first-child, td:first-child { position: static; white-space: normal; }
  .text, .long { white-space: normal; min-width: 0; overflow-wrap: anywhere; }
  .wide { page: wide; }
  details::details-content { content-visibility: visible; display: block; height: auto; }
  summary { list-style: none; color: inherit; font-weight: 600; }
  summary::-webkit-details-marker { display: none; }
}
"""
WIDE = 11
"""Columns beyond which a table is printed on paper laid sideways."""


class Entry(NamedTuple):
    """Of a table: a number or HTML, what it says when pointed at, and whether ours is behind."""

    value: float | str | None
    title: str = ""
    late: bool = False


NONE = "\u2013"
"""In the place of a number that is not known: a dash."""
Value = Entry | float | str | None


def number(value: float) -> str:
    """Two digits or three: 0.012, 0.12, 1.23, 12.3, 123."""
    if not 1e-3 <= abs(value) < 1e5:
        return f"{value:.1e}" if value else "0"
    exponent = math.floor(math.log10(abs(float(f"{value:.1e}"))))
    return f"{value:.{max(0, 2 - exponent if exponent >= 0 else 1 - exponent)}f}"


Values = Sequence[float | str | None]


def decimal(values: Values) -> bool:
    """Whether numbers can be read without powers of ten."""
    numbers = [abs(v) for v in values if isinstance(v, float) and math.isfinite(v) and v]
    return all(1e-2 <= v < 1e5 for v in numbers)


def column(values: Values, plain: bool) -> list[str]:
    """Numbers of a column in one format, their points below one another; words as they are."""
    texts = [
        (number(v) if plain else f"{v:.1e}") if isinstance(v, float)
        else f"{v:,}" if isinstance(v, int) else NONE if v is None else v
        for v in values
    ]  # fmt: skip
    if not plain:
        return texts
    places = [
        len(t.partition(".")[2]) if isinstance(v, float) else -1
        for t, v in zip(texts, values, strict=True)
    ]
    return [padded(t, have, max(places)) for t, have in zip(texts, places, strict=True)]


def padded(text: str, places: int, most: int) -> str:
    """Blanks as wide as the decimals others have; places: its own, -1 of what is no number."""
    point = "\u2008" if places == 0 < most else ""  # as wide as a point, the next as a digit
    return text + point + "\u2007" * (most - places) if places >= 0 else text


def table(
    rows: Sequence[Sequence[Value]],
    header: Sequence[str],
    ours: Sequence[bool] = (),
    alike: bool = False,
) -> str:
    """Entries are numbers or HTML; a column with HTML in it is set flush left.

    ours: the rows of sdegen.  alike: all numbers in one format, not only those of a column.
    """
    full = [[e if isinstance(e, Entry) else Entry(e) for e in row] for row in rows]
    if not full:
        return ""
    values = [[row[i].value for row in full] for i in range(len(header))]
    whole = decimal([v for each in values for v in each])
    columns = [column(each, whole if alike else decimal(each)) for each in values]
    kinds = [kind(each) for each in values]
    top = "".join(f"<th{k}>{name}</th>" for k, name in zip(kinds, header, strict=True))
    body = ""
    for i, row in enumerate(full):
        cells = zip(kinds, row, [texts[i] for texts in columns], strict=True)
        mine = ' class="ours"' if i < len(ours) and ours[i] else ""
        body += f"<tr{mine}>{''.join(data(*cell) for cell in cells)}</tr>"
    wide = " wide" if len(header) > WIDE else ""
    return (
        f'<div class="scroll names{wide}"><table><thead><tr>{top}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def kind(values: Values) -> str:
    """The class of a column: of numbers, of words, or of sentences."""
    longest = max((len(v) for v in values if isinstance(v, str)), default=0)
    return "" if not longest else ' class="long"' if longest > 60 else ' class="text"'


def data(kind: str, entry: Entry, text: str) -> str:
    """A cell."""
    title = f' title="{html.escape(entry.title)}"' if entry.title else ""
    inner = f'<span class="late">{text}</span>' if entry.late else text
    return f"<td{kind}{title}>{inner}</td>"


def heading(title: str) -> str:
    """Of a section, which the contents point to."""
    return f'<h2 id="{re.sub(r"[^a-z0-9]+", "-", title.lower())}">{html.escape(title)}</h2>'


def contents(page: str) -> str:
    """Links to all the sections."""
    found = re.findall(r'<h2 id="(.*?)">(.*?)</h2>', page)
    links = [f'<a href="#{at}">{name}</a>' for at, name in found]
    return f"<nav>{' '.join(links)}</nav>"


def details(summary: str, inner: str) -> str:
    """What is folded away on a screen, and open on paper."""
    return f"<details><summary>{html.escape(summary)}</summary>{inner}</details>" if inner else ""


def gallery(panels: Sequence[str], caption: str = "", legend: str = "") -> str:
    """Panels of one size, as many beside one another as there is room for."""
    told = f"<figcaption>{caption}</figcaption>" if caption else ""
    return f'<figure>{legend}<div class="panels">{"".join(panels)}</div>{told}</figure>'


def legend(items: Sequence[tuple[str, str]], broad: bool = False) -> str:
    """What lines mean: (swatch, name) each; broad: as wide as two panels."""
    lines = "".join(f"<li>{swatch}{html.escape(name)}</li>" for swatch, name in items)
    return f'<ul class="legend{" broad" * broad}">{lines}</ul>'
