"""The page: `python app.py [--checkpoint DIR] [--port N] [--host ADDRESS] [--name NAME] [--auth USER:PASSWORD]`."""

import logging
import os
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path

from analysis.private import private_folder
from analysis.serving import DEFAULT_CHECKPOINT, Serving, serving

if __name__ == "__main__":
    serving(sys.argv[1:], __doc__)  # a mistake is said now, not after the seconds that the imports below take

# Before Gradio is imported: nothing is reported to anyone, and uploads lie in a folder that only this user can read.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["GRADIO_TEMP_DIR"] = str(private_folder())
os.environ["GRADIO_ANALYTICS_MAX_EVENTS"] = "100"  # of 10,000 questions it would remember when each was asked

import gradio as gr
import uvicorn
from gradio.themes.utils.fonts import LocalFont
from starlette.middleware import Middleware

from analysis.gradcam import grad_cam
from analysis.library import Library
from analysis.predictor import Predictor
from analysis.tabs import (
    cams,
    checkpoint_upload,
    class_colors,
    compare,
    endpoints,
    evaluate,
    inspect,
    link,
    refinement,
    results,
    shape_cues,
    sweep,
    train,
)
from analysis.tabs.cache import go_on_removing, write_pictures_whole
from analysis.tabs.guard import MOST_FILE, Guard, fetch_nothing, take_only_files
from analysis.tabs.sessions import keep_no_description, keep_while_used
from analysis.tabs.subject import Subject
from analysis.tabs.words import failures_in_words
from analysis.untrained import untrained_checkpoint
from wsss import UserError
from wsss.allocator import share_heaps
from wsss.exits import Unwritable, report

_FONT = LocalFont("IBM Plex Sans", weights=(400, 700))
"""Of those that Gradio ships: the regular one of its theme is Montserrat Alternates, whose M and A look Greek."""

CSS = """
/* Tabs without a photograph. */
.column:has(
  [aria-selected=true]:is([data-tab-id=Train], [data-tab-id=Evaluate], [data-tab-id=Results])
) > .subject {display: none}
/* The tabs' names come first, so that they stay where they are; on a phone what they open would be too far below. */
@media (min-width: 768px) {
  .views {display: contents}
  .views > .tab-wrapper {margin-bottom: 0}
  .views > .tabitem {order: 2; padding-top: 0}
  .subject {order: 1}
}
.gradio-container {--block-info-text-color: var(--neutral-600)}
.dark .gradio-container, .gradio-container.dark {--block-info-text-color: var(--neutral-300)}
.hidden-link {display: none}
.film img {object-fit: contain; width: 100%; min-width: 48rem}
.film .image-frame {justify-content: flex-start}
.film .image-container {padding-top: 2.4rem}
.film .image-container > button {display: block; overflow-x: auto}
.picture:not(.fullscreen) img {max-height: 480px}
label:has(input:focus-visible), input[type="range"]:focus-visible {outline: 2px solid var(--color-accent)}
.results table {display: block; overflow-x: auto; border: 0}
.results th, .results td {word-break: normal; overflow-wrap: normal; min-width: 5rem}
.results table:last-of-type td:last-child {min-width: 32rem}
.legend {display: flex; flex-wrap: wrap; gap: 4px 14px; font-size: 0.85rem; padding: 0 6px}
.legend .entry {display: inline-flex; align-items: center; gap: 5px; white-space: nowrap}
.legend i {width: 12px; height: 12px; border-radius: 3px; display: inline-block; border: 1px solid #8884}
"""


_LET_GO = """() => document.addEventListener("keyup", event => {
  const isSet = event.target.type === "number" && ["Enter", "ArrowUp", "ArrowDown"].includes(event.key);
  if (event.target.type === "range" || isSet)
    event.target.dispatchEvent(new PointerEvent("pointerup", {bubbles: true}));
})"""
"""To Gradio only a pointer lets a slider go, or its number box; what waits for that would miss one moved by keys."""


def build_page(library: Library) -> gr.Blocks:
    """Assemble the tabs."""
    with gr.Blocks(title="Shape cues", analytics_enabled=False, delete_cache=(600, 3600), fill_width=True) as page:
        gr.Markdown("## Shape cues for weakly supervised segmentation")
        subject = Subject(library)
        with gr.Tabs(overflow_behavior="wrap", elem_classes="views") as tabs:
            settings = inspect.build(subject) | shape_cues.build(subject) | cams.build(subject)
            refined = refinement.build(subject)
            settings |= refined | sweep.build(subject, tabs, refined) | compare.build(subject)
            train.build(subject, page, tabs)
            evaluate.build(subject, tabs, settings["view"])
            results.build()
        subject.watch(page)
        with subject.tools:
            link.build(page, {"checkpoint": subject.checkpoint} | settings, library, tabs)
            class_colors.build(subject)
            checkpoint_upload.build(subject)
        endpoints.build(library)
    return page.queue(max_size=16, default_concurrency_limit=1, api_open=False)


def others(default: Path) -> list[Path]:
    """The shipped checkpoints beside the default one, and beside one of its name."""
    shipped = sorted(path.parent for path in DEFAULT_CHECKPOINT.parent.glob("*/config.json"))
    return [folder for folder in shipped if folder.name != default.resolve().name]


def offered(chosen: Path) -> list[Path]:
    """The checkpoints of the page, the default one first; where none was chosen or shipped, an untrained network."""
    folders = [chosen, *others(chosen)]
    if chosen == DEFAULT_CHECKPOINT and not any((folder / "config.json").exists() for folder in folders):
        print("No checkpoint found: masks come from an untrained network; only the maps of Shape cues mean something.")
        return [untrained_checkpoint(Path(os.environ["GRADIO_TEMP_DIR"]))]
    return folders


def main(argv: list[str] | None = None) -> int:
    """Serve the page until interrupted; returns the exit code, 2 for a mistake of the user."""
    given = serving(argv, __doc__)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    share_heaps()
    try:
        library = Library(offered(given.checkpoint))
        page = build_page(library)
        _serve(page, given)
        # In a thread: an interruption that comes while kernels are compiled in the main one would be swallowed.
        threading.Thread(target=_warm_up, args=(library[library.names[0]],), daemon=True).start()
        page.block_thread()
    except (UserError, Unwritable) as error:
        return report(error)
    except KeyboardInterrupt:  # before all was ready
        return 130
    return 0


def _warm_up(predictor: Predictor) -> None:
    """Do what takes seconds once, for which the first visitor need not wait: compile kernels, import grad-cam."""
    predictor.rehearse()
    with suppress(UserError):  # it is not installed, as its tab will say
        grad_cam()


def _serve(page: gr.Blocks, given: Serving) -> None:
    """Begin to serve, in a thread. Raises UserError when the port cannot be had."""
    failures_in_words(page)
    write_pictures_whole()
    go_on_removing()
    keep_no_description()
    keep_while_used()
    fetch_nothing()
    take_only_files()
    try:
        page.launch(
            server_name=given.host,
            server_port=given.port,
            auth=given.login,
            share=False,
            theme=gr.themes.Soft(font=[_FONT, "sans-serif"]),
            css=CSS,
            js=_LET_GO,
            max_file_size=MOST_FILE,
            max_threads=16,
            show_error=False,
            ssr_mode=False,
            state_session_capacity=100,
            enable_monitoring=False,
            run_history=False,  # its routes ask for no password, and speak to the hub with the token of this machine
            footer_links=["api", "settings"],
            app_kwargs={"middleware": [Middleware(Guard, host=given.host, name=given.name)]},
            prevent_thread_lock=True,
            quiet=True,  # it would advise to make the page public
        )
        print(f"The page is at {page.local_url} (Ctrl+C ends it)", flush=True)
        _end_at_once(page.server)
    except (OSError, OverflowError) as error:
        place = given.host if given.port is None else f"{given.host}, port {given.port}"
        raise UserError(f"{place}: cannot be served on ({error}); choose another") from None


def _end_at_once(server: uvicorn.Server) -> None:
    """Have the server, when it is ended, not wait for what open pages ask without end, nor tell of it as failures."""
    server.force_exit = True
    logging.getLogger("uvicorn.error").addFilter(lambda record: not server.should_exit)


if __name__ == "__main__":
    sys.exit(main())
