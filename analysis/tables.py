"""Tables of results: CSV for machines, Markdown for readers, a Plotly figure beside them."""

from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.experiments import PAPER_ALPHA, PAPER_ALPHA_PSEUDO, TRAINED
from analysis.figures import plain
from wsss import UserError
from wsss.disk import make_folder, replacing

MEASURES = ("mIoU", "boundary IoU")
_BAR = 0.4  # width of a bar; the variants are 1 apart

TITLES = {
    **{name: table.title for name, table in TRAINED.items()},
    "two-stage": "Table 1: a plain network trained on the masks of the first stage",
    "6": "Table 6: pseudo masks by alpha",
    "crf": "What the refinement at test and a dense CRF add",
}
"""By the table's name."""

NOTES = {
    "5": "No refinement at test, as in the paper. The cutoffs of objects were chosen by these very scores, between two "
    "others; a seed is worth more than one of the two parts, and with image pooling the order was another (README).",
    "8": "Of an earlier setting, whose flags are in the commands. The region loss has a tenth of the paper's weight.",
    "two-stage": "With the refinement at test; the paper's numbers are without.",
}
"""What must be known of the shipped tables beside their numbers."""


def write(folder: Path, name: str, table: pd.DataFrame) -> None:
    """Write folder/table_NAME.csv, .md and .json, each as a whole. Raises Unwritable."""
    texts = {
        "csv": table.to_csv(index=False, float_format="%.4f"),
        "md": markdown(name, table),
        "json": figure(name, table).to_json(),
    }
    make_folder(folder)
    for ending, text in texts.items():
        with replacing(folder / f"table_{name}.{ending}") as temporary:
            temporary.write_text(text, encoding="utf-8")


def read(folder: Path, name: str) -> pd.DataFrame:
    """A table that was written. Raises UserError when it is not there or broken."""
    path = folder / f"table_{name}.csv"
    try:
        return pd.read_csv(path, keep_default_na=True, dtype={"commit": str, "command": str})
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({type(error).__name__}); run analysis.reproduce {name}") from None


def written(folder: Path) -> list[str]:
    """Names of the tables that are there, in the order of `TITLES`."""
    return [name for name in TITLES if (folder / f"table_{name}.csv").is_file()]


def summary(name: str, table: pd.DataFrame) -> pd.DataFrame:
    """What a reader sees: of trained networks the mean over the seeds, the paper's numbers apart at the end."""
    if "variant" not in table:
        return table.drop(columns=["commit", "checkpoint"], errors="ignore")
    groups = table.groupby("variant", sort=False)
    out = groups[list(MEASURES)].mean().add_prefix("measured here: ")
    for measure in MEASURES:
        spread = groups[measure].max() - groups[measure].min()
        out[f"range of {measure}"] = spread.where(groups.size() > 1)
    out["seeds"] = groups.size()
    for measure in MEASURES:
        out[f"paper, on VOC: {measure}"] = groups[f"paper {measure}"].first()
    return out.reset_index()


def markdown(name: str, table: pd.DataFrame) -> str:
    """The summary and, of trained networks, each run with its command."""
    of_networks = "variant" in table
    flags = ", with flags as in each run's command" if of_networks else ""
    command = f"`python -m analysis.reproduce {name} --data ROOT`{flags}; percent."
    parts = [f"# {TITLES[name]}", command, lines(_rounded(summary(name, table)))]
    if of_networks:
        parts += ["Each run:", lines(_rounded(table[["variant", "seed", *MEASURES, "commit", "command"]]))]
    return "\n\n".join(parts) + "\n"


def _rounded(table: pd.DataFrame) -> pd.DataFrame:
    """With what was measured, in percent, to the hundredth."""
    of_percent = [name for name in table.select_dtypes("float") if name != "alpha" and not name.startswith("paper")]
    return table.assign(**{name: ["-" if np.isnan(v) else f"{v:.2f}" for v in table[name]] for name in of_percent})


def lines(table: pd.DataFrame) -> str:
    """A table in Markdown."""
    cells = [list(table.columns), ["---"] * len(table.columns)]
    cells += [[_cell(value) for value in row] for row in table.itertuples(index=False)]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in cells)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "-" if np.isnan(value) else f"{value:.4g}"
    return str(value).replace("|", r"\|")


def figure(name: str, table: pd.DataFrame) -> go.Figure:
    """Bars of each variant with its seeds as dots; of Table 6, curves over alpha."""
    drawn = go.Figure()
    if name == "6":
        for split, part in table.groupby("split", sort=False):
            for measure in ("pseudo mask mIoU", "refined map mIoU"):
                drawn.add_scatter(x=part["alpha"], y=part[measure], mode="lines+markers", name=f"{split}: {measure}")
        papers = {"pseudo masks of VOC's train": PAPER_ALPHA_PSEUDO, "networks on VOC's val": PAPER_ALPHA}
        for what, values in papers.items():
            drawn.add_scatter(x=list(values), y=list(values.values()), line_dash="dot", name=f"paper, {what}")
        drawn.update_xaxes(title="alpha (Eq. 5)")
    else:
        label = "variant" if "variant" in table else "masks"
        names = list(dict.fromkeys(table[label]))
        place = table[label].map(names.index)
        for measure, shift in zip(MEASURES, (-_BAR / 2, _BAR / 2), strict=True):
            means = table.groupby(label, sort=False)[measure].mean()
            at = [k + shift for k in range(len(names))]
            text = {"text": [f"{value:.1f}" for value in means], "insidetextanchor": "start"}  # the dots are at the top
            drawn.add_bar(x=at, y=means, width=_BAR, name=measure, **text)
            ring = {"color": "white", "line": {"color": "black", "width": 1}}  # seen on bars and on pages of any color
            dots = {"mode": "markers", "marker": ring, "name": "each seed", "showlegend": False}
            drawn.add_scatter(x=place + shift, y=table[measure], **dots)
        drawn.update_xaxes(tickvals=list(range(len(names))), ticktext=names)
    drawn.update_yaxes(title="percent", rangemode="tozero" if name != "6" else "normal")
    above = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}
    return plain(drawn, 380).update_layout(legend=above)
