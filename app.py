"""The page: `python app.py [--checkpoint DIR] [--port N]`."""

import argparse
import os
import sys
import tempfile
from pathlib import Path

# Before Gradio is imported: nothing is reported to anyone, and uploads lie in a folder that only this user can read.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ.setdefault("GRADIO_TEMP_DIR", tempfile.mkdtemp(prefix="wsss-"))

import gradio as gr
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from analysis.library import Library
from analysis.tabs import cams, compare, endpoints, inspect, link, refinement, shape_cues, sweep
from analysis.tabs.subject import Subject
from wsss import UserError

DEFAULT_CHECKPOINT = Path(__file__).parent / "checkpoints" / "animals"
LOOPBACK = ["127.0.0.1", "localhost"]
CSS = """
.gradio-container {--block-info-text-color: var(--neutral-600)}
.dark .gradio-container, .gradio-container.dark {--block-info-text-color: var(--neutral-300)}
.hidden-link {display: none}
.film img {object-fit: contain; width: 100%}
.picture:not(.fullscreen) img {max-height: 480px}
.legend {display: flex; flex-wrap: wrap; gap: 4px 14px; font-size: 0.85rem; padding: 0 6px}
.legend .entry {display: inline-flex; align-items: center; gap: 5px; white-space: nowrap}
.legend i {width: 12px; height: 12px; border-radius: 3px; display: inline-block; border: 1px solid #8884}
"""


def build_page(library: Library) -> gr.Blocks:
    """Assemble the tabs."""
    with gr.Blocks(title="Shape cues", analytics_enabled=False, delete_cache=(600, 3600), fill_width=True) as page:
        gr.Markdown("## Shape cues for weakly supervised segmentation")
        subject = Subject(library, page)
        with gr.Tabs(overflow_behavior="wrap") as tabs:
            settings = inspect.build(subject) | shape_cues.build(subject) | cams.build(subject)
            refined = refinement.build(subject)
            settings |= refined | sweep.build(subject, tabs, refined) | compare.build(subject)
        with subject.tools:
            link.build(page, settings)
        endpoints.build(library)
    return page.queue(max_size=16, default_concurrency_limit=1, api_open=False)


def others(default: Path) -> list[Path]:
    """The shipped checkpoints beside the default one."""
    shipped = sorted(path.parent for path in DEFAULT_CHECKPOINT.parent.glob("*/config.json"))
    return [folder for folder in shipped if folder.resolve() != default.resolve()]


def main(argv: list[str] | None = None) -> int:
    """Serve the page until interrupted; returns the exit code, 2 for a mistake of the user."""
    parser = argparse.ArgumentParser(prog="python app.py", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=DEFAULT_CHECKPOINT, metavar="DIR")
    parser.add_argument("--port", type=int, metavar="N", help="a free one from 7860 on, unless given")
    arguments = parser.parse_args(argv)
    try:
        library = Library([arguments.checkpoint, *others(arguments.checkpoint)])
        page = build_page(library)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    try:
        page.launch(
            server_name="127.0.0.1",
            server_port=arguments.port,
            share=False,
            theme=gr.themes.Soft(),
            css=CSS,
            max_file_size="20mb",
            show_error=False,
            ssr_mode=False,
            state_session_capacity=100,
            enable_monitoring=False,
            footer_links=["api", "settings"],
            # A page elsewhere whose name leads here (DNS rebinding) would otherwise be taken for ours.
            app_kwargs={"middleware": [Middleware(TrustedHostMiddleware, allowed_hosts=LOOPBACK)]},
        )
    except OSError as error:
        print(f"error: port {arguments.port}: cannot be served on ({error}); choose another", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
