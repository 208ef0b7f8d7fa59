"""What was measured, as tables (Markdown), as JSON, and as a picture (SVG)."""

import math, statistics
from html import escape

from .claims import CLAIMS
from .disk import Disk
from .sides import Before, Distribution, Embedded, Nginx, Static
from .works import WORKS

NAMES = {side.letter: side.name for side in (Nginx, Embedded, Before, Distribution, Static)}
FIGURES = {"rate": "rate", "cpu": "CPU", "front_cpu": "CPU of what ends TLS", "p99": "p99", "idle": "KiB per idle connection",
           "rest": "MiB at rest", "load": "MiB under 64 pulls and 8 pushes", "milliseconds": "ms to the first answer"}


class Results:
    """Figures by work, side and round."""

    def __init__(self):
        self.rounds = []  # {(work, letter): {figure: value}}

    def values(self, work, letter, figure):
        """Of the rounds that have it, in their order."""
        return [of[work, letter][figure] for of in self.rounds if figure in of.get((work, letter), {})]

    def ratios(self, claim, against):
        """Of the two figures in each round that has both. A processor's time of 0 is below what can be measured."""
        other = (claim.work, against) if against in NAMES else (against, claim.side)
        pairs = [(of.get((claim.work, claim.side), {}).get(claim.figure), of.get(other, {}).get(claim.figure))
                 for of in self.rounds]
        return [mine / theirs for mine, theirs in pairs if mine is not None and theirs]

    def raw(self):
        return [[dict(work=work, side=letter, **figures) for (work, letter), figures in of.items()] for of in self.rounds]


def mean(windows):
    """Of the figures of several windows; of what others took, the most."""
    of = lambda figure: max if figure == "others" else statistics.fmean
    return {figure: of(figure)([window[figure] for window in windows]) for figure in windows[0]}


def number(value):
    if value == 0 or not math.isfinite(value):
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value)))) if abs(value) < 100 else 0
    return f"{value:,.{min(digits, 4)}f}"


def spread(values):
    if not values:
        return "–"
    if len(values) == 1:
        return number(values[0])
    return f"{number(statistics.median(values))} [{number(min(values))}–{number(max(values))}]"


# The claims ---------------------------------------------------------------------------------------------------------

def judged(results):
    """Each claim that something was measured for: what it is against, the values of the rounds, and whether it holds."""
    for claim in CLAIMS:
        for against in claim.bounds:
            values = results.ratios(claim, against) if against else results.values(claim.work, claim.side, claim.figure)
            if values:
                yield claim, against, values, claim.met(against, statistics.median(values))


def bound(claim, against):
    sign, value = claim.bounds[against]
    return f"{'≥' if sign == '>=' else '≤'} {value:g}"


def claims_table(results):
    lines = ["| work | figure | itself | against N | against R | against S |", "|---|---|---|---|---|---|"]
    rows = {}
    for claim, against, values, met in judged(results):
        shown = f"{spread(values)}, {bound(claim, against)}: {'met' if met else '**not met**'}"
        column = against if against in NAMES else ""
        if against and not column:
            shown = f"{shown} ({against})"
        rows.setdefault((claim.work, claim.figure, claim.side), {})[column] = shown
    for (work, figure, side), cells in rows.items():
        title = work + (", in front of docker-registry" if side == "F" else "")
        lines.append(f"| {title} | {FIGURES[figure]} | " + " | ".join(cells.get(column, "") for column in ("", "N", "R", "S"))
                     + " |")
    return "\n".join(lines)


# All figures --------------------------------------------------------------------------------------------------------

def figures_table(results):
    """Of each work and side: the rate, the processor time, the latency."""
    lines = ["| work | side | rate | CPU s per GiB or per 1,000 | of that, what ends TLS | p50 / p99 ms | others |",
             "|---|---|---:|---:|---:|---:|---:|"]
    for work in WORKS:
        for letter in (*NAMES, Disk.letter):
            of = lambda figure: results.values(work.title, letter, figure)
            if not of("rate"):
                continue
            latency = " / ".join(number(1000 * statistics.median(of(figure))) for figure in ("p50", "p99") if of(figure))
            lines.append(f"| {work.title} | {letter} | {spread(of('rate'))} {work.rate} | {spread(of('cpu'))} | "
                         f"{number(statistics.median(of('front_cpu')))} | {latency} | {max(of('others')):.0%} |")
    lines += ["", "| figure | " + " | ".join(NAMES) + " |", "|---|" + "---:|" * len(NAMES)]
    for title, work, figure in [("MiB at rest", "memory", "rest"), ("KiB per idle connection", "memory", "idle"),
                                ("MiB at most under 64 pulls and 8 pushes", "memory", "load"),
                                ("ms to the first answer", "start with many repositories", "milliseconds")]:
        cells = [spread(results.values(work, letter, figure)) for letter in NAMES]
        if any(cell != "–" for cell in cells):
            lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def markdown(results, about):
    open_ones = [claim for claim, _, _, met in judged(results) if not met]
    every = sum(1 for _ in judged(results))
    return "\n\n".join([
        about["summary"],
        f"{every - len(open_ones)} of {every} bounds are met. A cell is the median of the rounds' own ratios "
        "[smallest–largest], and its bound.",
        claims_table(results),
        "All figures, as medians [smallest–largest]: " + "; ".join(f"{letter} {name}" for letter, name in NAMES.items())
        + f"; {Disk.letter} {Disk.name}. The last column is the most that anything else took of the machine meanwhile.",
        figures_table(results)]) + "\n"


# The picture --------------------------------------------------------------------------------------------------------

COLOURS = {"E": "#0b6e99", "F": "#7fb7d1", "R": "#c77d0a", "S": "#8a8a8a"}
BOUND = "#b00020"
LEFT, WIDTH, LINE, TOP = 250, 620, 22, 90


def svg(results, about):
    """Rates beside nginx + docker-registry's, and processor times: a dot for each side, a tick for each bound."""
    panels = [("Rate, times that of nginx + docker-registry (further right is better)", "rate"),
              ("Processor time, times that of nginx + docker-registry (further left is better)", "cpu")]
    parts, top = [], TOP
    for title, figure in panels:
        rows = [(work.title, ratios) for work in WORKS if (ratios := against_nginx(results, work.title, figure))]
        if rows:
            drawn, top = panel(title, figure, rows, top)
            parts += drawn
    title, rest = about["summary"].split(": ", 1)
    legend = f'<line x1="820" y1="50" x2="820" y2="66" stroke="{BOUND}" stroke-width="2"/><text x="828" y="62">bound</text>'
    legend += "".join(f'<circle cx="{20 + 195 * at}" cy="58" r="5" fill="{COLOURS[letter]}"/>'
                     f'<text x="{30 + 195 * at}" y="62">{escape(NAMES[letter])}</text>' for at, letter in enumerate(COLOURS))
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 40}" height="{top}" '
            f'font-family="sans-serif" font-size="12">\n<rect width="100%" height="100%" fill="white"/>\n'
            f'<text x="16" y="20" font-size="14" font-weight="bold">{escape(title)}</text>\n'
            f'<text x="16" y="38">{escape(rest)}</text>\n{legend}\n'
            + "\n".join(parts) + "\n</svg>\n")


def against_nginx(results, work, figure):
    ratios = {}
    for letter in COLOURS:
        pairs = [(of.get((work, letter), {}).get(figure), of.get((work, "N"), {}).get(figure)) for of in results.rounds]
        both = [mine / theirs for mine, theirs in pairs if mine and theirs]
        if both:
            ratios[letter] = both
    return ratios


def panel(title, figure, rows, top):
    everything = [value for _, ratios in rows for values in ratios.values() for value in values] + [1]
    low, high = math.floor(math.log10(min(everything)) * 2) / 2, math.ceil(math.log10(max(everything)) * 2 + 0.01) / 2
    at = lambda value: LEFT + WIDTH * (math.log10(value) - low) / (high - low)
    bounds = {claim.work: claim.bounds["N"][1] for claim in CLAIMS
              if claim.figure == figure and claim.side == "E" and "N" in claim.bounds}
    bottom = top + 30 + LINE * len(rows)
    parts = [f'<text x="16" y="{top + 10}" font-size="13" font-weight="bold">{escape(title)}</text>']
    for power in range(math.floor(low), math.ceil(high) + 1):
        for digit in (1, 2, 5):
            value = digit * 10.0 ** power
            if low <= math.log10(value) <= high:
                parts.append(f'<line x1="{at(value):.1f}" y1="{top + 24}" x2="{at(value):.1f}" y2="{bottom}" '
                             f'stroke="{"#555" if value == 1 else "#ddd"}"/>'
                             f'<text x="{at(value):.1f}" y="{bottom + 14}" text-anchor="middle" fill="#555">{value:g}</text>')
    for index, (name, ratios) in enumerate(rows):
        y = top + 36 + LINE * index
        parts.append(f'<text x="{LEFT - 10}" y="{y + 4}" text-anchor="end">{escape(name)}</text>')
        if name in bounds and low <= math.log10(bounds[name]) <= high:
            x = at(bounds[name])
            parts.append(f'<line x1="{x:.1f}" y1="{y - 8}" x2="{x:.1f}" y2="{y + 8}" stroke="{BOUND}" stroke-width="2"/>')
        for letter, values in ratios.items():
            colour = COLOURS[letter]
            parts.append(f'<line x1="{at(min(values)):.1f}" y1="{y}" x2="{at(max(values)):.1f}" y2="{y}" stroke="{colour}"/>'
                         f'<circle cx="{at(statistics.median(values)):.1f}" cy="{y}" r="5" fill="{colour}"/>')
    return parts, bottom + 50
