"""The arrows between the parts point one way: app -> analysis.tabs -> analysis -> wsss."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_NOT_IMPORT = {
    "wsss": {"analysis", "app", "gradio", "plotly", "matplotlib"},
    "analysis": {"app", "gradio"},
    "analysis/tabs": {"app"},
    "app.py": {"torch"},
}
UNSAFE = re.compile(
    r"torch\.load\((?![^)]*weights_only=True)|\ballow_pickle=True|\bshell=True|\byaml\.load\(|\btrust_remote_code"
    r"|^\s*(import|from) pickle\b|\beval\(['\"a-z]|\bexec\(|os\.system",
    re.MULTILINE,
)


def sources() -> list[Path]:
    return [ROOT / "app.py", *ROOT.glob("wsss/**/*.py"), *ROOT.glob("analysis/**/*.py")]


def part(path: Path) -> str:
    parts = path.relative_to(ROOT).parts
    return "analysis/tabs" if parts[:2] == ("analysis", "tabs") else parts[0]


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_only_what_lies_below_it(path):
    assert not imported(path) & MAY_NOT_IMPORT[part(path)]


def test_analysis_does_not_import_its_tabs():
    for path in ROOT.glob("analysis/*.py"):
        if path.name != "timing.py":
            assert "analysis.tabs" not in path.read_text(), path


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_can_run_what_a_stranger_wrote(path):
    assert not UNSAFE.search(path.read_text())


def test_the_rule_on_unsafe_calls_bites():
    assert UNSAFE.search("torch.load(path)") and UNSAFE.search("    import pickle\n") and UNSAFE.search("exec(text)")
    assert not UNSAFE.search("torch.load(path, weights_only=True)") and not UNSAFE.search("network.eval()")
