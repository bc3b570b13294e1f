"""An evaluation to take home: CSV, JSON, and one HTML page that needs nothing beside it."""

import base64
import csv
import html
import io
import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import Image

from analysis.curves import MEASURES, SCORES
from analysis.render import error_map, overlay

_OPACITY = 0.6
_WIDTH = 240  # of a picture in the HTML page
_STYLE = """
body {font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1080px; padding: 0 1rem; color: #222}
table {border-collapse: collapse; margin: 0.5rem 0 1.5rem} th, td {padding: 3px 9px; text-align: right}
th {font-weight: 600} td:first-child, th:first-child {text-align: left} tr:nth-child(even) td {background: #f6f6f6}
.bar {background: #e8e8e8; width: 180px; height: 11px; display: inline-block; border-radius: 3px; overflow: hidden}
.bar i {background: #4c8bf5; height: 100%; display: block} .big b {font-size: 1.6rem; margin-right: 1.4rem}
.confusion td {background: var(--shade) !important; min-width: 2.4em} figure {display: inline-block; margin: 4px}
figcaption {font-size: 12px; color: #666} h3 {margin-bottom: 0}
@media (prefers-color-scheme: dark) {
  body {background: #16181c; color: #ddd} tr:nth-child(even) td {background: #1f2228}
}
"""


class Pictures(NamedTuple):
    """A photograph of an evaluation, all (H, W, 3) uint8."""

    photograph: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray
    error: np.ndarray


TITLES = Pictures("photograph", "truth", "prediction", "green: right, red: wrong, dark: not counted")


def pictures(rgb: np.ndarray, truth: np.ndarray, mask: np.ndarray, colors: np.ndarray) -> Pictures:
    """What is looked at of a photograph.

    Args:
        rgb: (H, W, 3) uint8.
        truth: (H, W) class indices, 255 unlabelled.
        mask: the prediction, as `truth`.
        colors: (K, 3) uint8.
    """
    laid = (overlay(rgb, classes, colors, _OPACITY) for classes in (truth, mask))
    return Pictures(rgb, *laid, error_map(rgb, truth, mask, _OPACITY))


def worst_first(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The rows of a report's photographs by rising mIoU; those without one come last."""
    return sorted(report.get("images", []), key=lambda row: (row["miou"] is None, row["miou"] or 0.0))


def worst_class(row: Mapping[str, Any]) -> str:
    """The class of a photograph that is met worst, with its IoU."""
    ious = row.get("iou") or {}
    name = min(ious, key=ious.get, default="")
    return f"{name} {100 * ious[name]:.0f} %" if name else ""


def json_text(report: Mapping[str, Any]) -> str:
    """The whole report."""
    return json.dumps(report, indent=1) + "\n"


def csv_text(report: Mapping[str, Any]) -> str:
    """A line for each class, one for their means, then one for each photograph; fractions in [0, 1]."""
    out = io.StringIO()
    lines = csv.writer(out, lineterminator="\n")
    lines.writerow(["kind", "name", *MEASURES, "accuracy"])
    for name, row in report["classes"].items():
        lines.writerow(["class", _cell(name), *(row[key] for key in MEASURES), ""])
    headlines = [report["miou"], report["mean_boundary_iou"], "", "", report["accuracy"]]
    lines.writerow(["mean", report["checkpoint"], *headlines])
    for row in worst_first(report):
        lines.writerow(["image", _cell(row["name"]), row["miou"], row["mean_boundary_iou"], "", "", row["accuracy"]])
    return out.getvalue()


def _cell(text: str) -> str:
    """A spreadsheet would run a cell that begins so."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text


def html_text(report: Mapping[str, Any], title: str, worst: Iterable[tuple[str, Pictures]] = ()) -> str:
    """A page with all scores, and the worst photographs by name; it loads nothing and holds no script.

    `worst` is gone through once, so that it may read them one by one.
    """
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        _headline(report),
        "<h2>Classes</h2>",
        _classes(report),
        "<h2>Confusion</h2><p>Rows are true classes; the cells are % of their pixels.</p>",
        _confusion(report),
    ]
    if shown := [_shown(name, seen) for name, seen in worst]:
        parts += ["<h2>Worst photographs</h2>", *shown]
    if report.get("images"):
        parts += ["<h2>Photographs, the worst first</h2>", _images(report)]
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{_STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'


def _headline(report: Mapping[str, Any]) -> str:
    scores = " ".join(f"{words} <b>{percent(report[key])}</b>" for key, words in SCORES.items())
    facts = f"checkpoint {report['checkpoint']}"
    facts += f" ({report['sha256'][:12]})" if report.get("sha256") else ""  # a run's is called best or model
    facts += f", {report['photographs']} photographs of {report['split']}"
    facts += ", scales and flips" if report["multi_scale"] else ", one scale"
    facts += ", CRF" if report["crf"] else ", no CRF"
    if steps := report.get("refine_steps"):  # a report of an earlier version does not say it
        facts += f", SPR of {steps} steps at an alpha of {report['alpha']:g}"
    facts += ", the true image labels were used" if report["image_labels_used"] else ""
    return f'<p class="big">{scores}</p><p>{html.escape(facts)}, {report["seconds"]:.0f} s</p>'


def percent(value: float | None) -> str:
    """0.4567 -> 45.7; a number that is not defined is a dash."""
    return "-" if value is None else f"{100 * value:.1f}"


def _classes(report: Mapping[str, Any]) -> str:
    rows = []
    for name, row in report["classes"].items():
        bar = f'<span class="bar"><i style="width:{100 * (row["iou"] or 0):.1f}%"></i></span>'
        cells = "".join(f"<td>{percent(row[key])}</td>" for key in MEASURES)
        rows.append(f"<tr><td>{html.escape(name)}</td><td>{bar}</td>{cells}</tr>")
    head = "".join(f"<th>{words}</th>" for words in MEASURES.values())
    return f"<table><tr><th>class</th><th></th>{head}</tr>{''.join(rows)}</table>"


def _confusion(report: Mapping[str, Any]) -> str:
    names, rows = list(report["classes"]), []
    for name, counts in zip(names, report["confusion"], strict=True):
        whole = sum(counts)
        cells = (
            f'<td style="--shade:rgba(76,139,245,{count / whole:.2f})">{100 * count / whole:.0f}</td>'
            if whole
            else "<td>-</td>"
            for count in counts
        )
        rows.append(f"<tr><th>{html.escape(name)}</th>{''.join(cells)}</tr>")
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    return f'<table class="confusion"><tr><th></th>{head}</tr>{"".join(rows)}</table>'


def _images(report: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(row['name'])}</td><td>{percent(row['miou'])}</td><td>{percent(row['accuracy'])}</td>"
        f"<td>{html.escape(worst_class(row))}</td></tr>"
        for row in worst_first(report)
    )
    return f"<table><tr><th>photograph</th><th>mIoU</th><th>accuracy</th><th>worst class</th></tr>{rows}</table>"


def _shown(name: str, seen: Pictures) -> str:
    figures = "".join(
        f'<figure><img alt="{words}" width="{_WIDTH}" src="data:image/jpeg;base64,{_jpeg(rgb)}">'
        f"<figcaption>{words}</figcaption></figure>"
        for words, rgb in zip(TITLES, seen, strict=True)
    )
    return f"<h3>{html.escape(name)}</h3>{figures}"


def _jpeg(rgb: np.ndarray) -> str:
    small = cv2.resize(rgb, (_WIDTH, max(1, round(_WIDTH * rgb.shape[0] / rgb.shape[1]))), interpolation=cv2.INTER_AREA)
    out = io.BytesIO()
    Image.fromarray(small).save(out, format="JPEG", quality=85)
    return base64.b64encode(out.getvalue()).decode()
