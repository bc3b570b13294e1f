"""The arrows between the parts point one way: app -> analysis.tabs -> analysis -> wsss."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_NOT_IMPORT = {
    "wsss": {"analysis", "app", "gradio", "plotly", "matplotlib"},
    "analysis": {"app", "gradio", "analysis.tabs"},
    "analysis/tabs": {"app"},
    "app.py": {"torch"},
}


def sources() -> list[Path]:
    return [ROOT / "app.py", *ROOT.glob("wsss/**/*.py"), *ROOT.glob("analysis/**/*.py")]


def part(path: Path) -> str:
    parts = path.relative_to(ROOT).parts
    return "analysis/tabs" if parts[:2] == ("analysis", "tabs") else parts[0]


def imported(code: str, package: tuple[str, ...] = ()) -> set[str]:
    """Dotted names of all that a file of that package imports: modules, and what is taken out of them."""
    names = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*parents, *([node.module] if node.module else [])])
            names |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return names


def above(names: set[str], part: str) -> set[str]:
    """Those that a file of this part may not import."""
    return {name for name in names for banned in MAY_NOT_IMPORT[part] if f"{name}.".startswith(f"{banned}.")}


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_only_what_lies_below_it(path):
    assert not above(imported(path.read_text(), path.relative_to(ROOT).parts[:-1]), part(path))


@pytest.mark.parametrize(
    "code",
    [
        "from analysis import tabs",
        "from analysis.tabs import words",
        "from analysis.tabs.words import as_gr_error",
        "import analysis.tabs.words as w",
        "from . import tabs",
        "from .tabs.words import as_gr_error",
        "import gradio as gr",
        "def late():\n    from app import main",
    ],
)
def test_the_rule_on_imports_bites(code):
    assert above(imported(code, ("analysis",)), "analysis")
    assert not above(imported("from analysis import tables\nimport analysis.render", ("analysis",)), "analysis")
