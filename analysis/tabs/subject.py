"""What all tabs look at: one checkpoint, one photograph, the classes that are said to be in it."""

import inspect
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from analysis.library import Library
from analysis.predictor import Predictor
from analysis.tabs import arrival
from analysis.tabs.chips import Chips
from analysis.tabs.events import PRIVATE
from analysis.tabs.outputs import again_if_moved, emptied, noting
from analysis.tabs.photograph import PhotographFile
from analysis.tabs.scene import Scene
from analysis.tabs.sessions import has_changed
from analysis.tabs.words import in_words, sentence
from analysis.truth import in_classes
from wsss import UserError

EXAMPLES = [Path(__file__).parent.parent / "examples" / f"{name}.jpg" for name in ("chelsea", "astronaut")]
"""The first is shown when the page opens. `SOURCES.md` there tells whose they are."""

MODEL = {"concurrency_id": "model", "concurrency_limit": 1}
"""One question at a time uses the network."""

QUIET = PRIVATE | MODEL | {"trigger_mode": "always_last"}
"""Of what follows from something else; the page does not flicker, and others cannot call it."""

LIVE = PRIVATE | {"trigger_mode": "always_last", "queue": False}
"""Of a slider: the last position always counts, those in between may be left out.

Each visitor has at most one such question under way, and the predictor's lock takes them in turn: to wait in the queue
as well would only cost time. Outside the queue Gradio shows no warning: `Subject.mistake` carries it.
"""

_AGAIN = 5  # seconds after which a sentence that goes for each move of a slider is told once more


class Subject:
    """The top of the page, and how a tab follows it.

    A visitor's photograph lives in the visitor's own session; what was computed from it in the predictor's bounded
    cache, by the photograph's digest.
    """

    def __init__(self, library: Library) -> None:
        self.library = library
        self.opened = gr.State("Inspect")  # label of the tab that is looked at; the others stay as they were
        self._turns: dict[str, gr.State] = {}  # by a tab's label; a new number tells it to look at the subject again
        self.rgb = gr.State()  # the photograph as it is shown
        self.path = gr.State()  # of the file that it was read from; "" where there is none, None where it is forgotten
        self.truth_path = gr.State()  # of the mask file that was read last
        self.truth_values = gr.State()  # what it holds; the file itself is deleted after a while
        self.own_colors = gr.State({})
        self.clicked = gr.State()
        # A new number: the checkpoint of this name has other weights than before, or it has brought its own settings.
        self.reopened = gr.State()
        self.given = gr.State()  # a new number: a checkpoint was not chosen from the list, but uploaded or opened
        # What an answer outside the queue has to tell, after a number; a State's change would not be noticed there.
        self.mistake = gr.Textbox(visible="hidden")
        self.ticked = gr.State(False)  # a new number when the visitor says what is in the photograph
        self._lay_out()

    @property
    def default(self) -> Predictor:
        """The checkpoint that a visitor finds chosen."""
        return self.library[self.library.names[0]]

    def _lay_out(self) -> None:
        with gr.Row(equal_height=False, elem_classes="subject"):
            with gr.Column(scale=2, min_width=300):
                self.photograph = PhotographFile(
                    str(EXAMPLES[0]), label="Photograph", sources=["upload", "clipboard"], height=200
                )
                with gr.Accordion("Ground-truth mask (optional)", open=False):
                    self.truth_file = gr.File(label="Index mask (PNG)", file_types=[".png"], height=120)
            with gr.Column(scale=3, min_width=300):
                with gr.Row():
                    self.checkpoint = gr.Dropdown(
                        self.library.names, value=self.library.names[0], label="Checkpoint", min_width=140
                    )
                self.present = Chips(
                    list(self.default.classes),
                    label="Classes in the photograph",
                    info="The image-level label, all that training is given. Pseudo masks are made with it, the "
                    "network's own mask is not. Ticked: what the network sees, at least its best guess.",
                )
                self.about = gr.HTML(arrival.about(self.default))
            with gr.Column(scale=2, min_width=200):
                gr.Examples([str(path) for path in EXAMPLES], self.photograph, label="Examples")
                self.tools = gr.Column()  # for what concerns the whole page

    def follow(
        self,
        tab: gr.Tab,
        show: Callable,
        controls: Sequence[gr.components.Component],
        outputs: Sequence[Any],
        *,
        first: Callable | None = None,
        **settings,
    ) -> None:
        """Call show(scene, *controls) when the tab is opened, and while it is open when the subject changes.

        Args:
            show: returns, or generates, a value for each of the outputs.
            first: first(*controls) is called before, also where there is no photograph; `show` gets what it returns
                after the scene.
            settings: of the event, instead of `QUIET`.
        """
        turn, quiet = self.turn(tab), QUIET | {"show_progress": "full"} | settings
        empty, inputs = emptied(outputs, controls), self.inputs(controls)
        # What is on the page is of the subject before, so that a mistake may not leave it there.
        answer = self.answer(show, len(outputs), empty, mistaken=empty, first=first)
        if inspect.isgeneratorfunction(show):
            turn.change(answer, inputs, outputs, **quiet)
            return
        self._answer_at(
            turn.change, answer, self.answer(show, len(outputs), empty, first=first), controls, outputs, quiet
        )

    def then(
        self,
        event: Callable,
        show: Callable,
        controls: Sequence[gr.components.Component],
        outputs: Sequence[Any],
        settings: dict[str, Any] = QUIET,
    ) -> None:
        """Call show(scene, *controls) in the queue at an event, such as button.click or what a click has `.then`."""
        answer = self.answer(show, len(outputs))
        self._answer_at(event, answer, answer, controls, outputs, settings)

    def _answer_at(
        self, event: Callable, answer: Callable, again: Callable, controls: Sequence, outputs: Sequence, quiet: dict
    ) -> None:
        """Answer in the queue; answer once more if a control was moved while the first answer was computed."""
        with self.tools:  # not among the tabs, which are counted
            shown = gr.State()  # the values of the controls that the pictures were made with
        inputs, count = self.inputs(controls), len(outputs)
        done = event(noting(answer, count, len(controls)), inputs, [*outputs, shown], **quiet)
        own = [at for at, control in enumerate(controls) if not isinstance(control, gr.State)]
        done.success(again_if_moved(again, count, own), [shown, *inputs], outputs, **LIVE)

    def turn(self, tab: gr.Tab) -> gr.State:
        """Set to `unlike_before()`, it has the tab look at the subject again."""
        if tab.label not in self._turns:
            with self.tools:
                turn = self._turns[tab.label] = gr.State()
            tab.select(
                lambda: (tab.label, unlike_before()),
                None,
                [self.opened, turn],
                **PRIVATE,
            )
        return self._turns[tab.label]

    @property
    def turns(self) -> list[gr.State]:
        """The turns of all tabs that follow so far."""
        return list(self._turns.values())

    def watch(self, page: gr.Blocks) -> None:
        """Tell the opened tab when there is another photograph, checkpoint, mask or choice of classes.

        Call it last: only the tabs that follow by then are told.
        """
        # One event: what sets a checkpoint and a photograph at once would have two race with each other.
        gr.on(
            [page.load, self.photograph.change, self.checkpoint.change, self.reopened.change],
            in_words(self._accept),
            [
                *(self.checkpoint, self.photograph, self.truth_file, self.present, self.opened),
                *(self.path, self.rgb, self.truth_path, self.truth_values, self.ticked),
            ],
            [
                *(self.present, self.about, self.truth_file),
                *(self.path, self.rgb, self.truth_path, self.truth_values, self.clicked, self.ticked),
                *self.turns,
            ],
            api_name="photograph",
            api_visibility="undocumented",
            trigger_mode="always_last",  # a photograph that comes while the example is looked at must not be lost
            **MODEL,
        )
        self.truth_file.change(
            in_words(self._read_truth),
            [self.checkpoint, self.photograph, self.truth_file, self.path, self.rgb, self.truth_path, self.opened],
            [self.truth_path, self.truth_values, *self.turns],
            api_visibility="private",
            **MODEL,  # after the photograph that it may have come with
        )
        self.mistake.change(lambda told: gr.Warning(told.partition(" ")[2]), self.mistake, None, **PRIVATE)
        self.present.input(
            lambda opened: (unlike_before(), *self.turned(opened)),
            self.opened,
            [self.ticked, *self.turns],
            **(LIVE | {"queue": True}),
        )

    def turned(self, opened: str) -> list:
        """A value for each of the turns: the opened tab's is told to look again."""
        return [unlike_before() if label == opened else gr.skip() for label in self._turns]

    def live(
        self,
        moved: Sequence[Callable],
        show: Callable,
        controls: Sequence[gr.components.Component],
        outputs: Sequence[Any],
        *,
        api_name: str | None = None,
        **settings,
    ) -> Any:
        """Call show(scene, *controls) at each of the events `moved`, such as slider.input. Returns the event.

        An event may have one such answer alone. Of two, each would wait for the other to be asked once more: Gradio
        asks both again when one has ended that was asked meanwhile, and so for ever.
        """
        named = {"api_name": api_name, "api_visibility": "undocumented"} if api_name else {}
        wired = LIVE | named | settings
        told = [] if wired["queue"] else [self.mistake]
        answer = self.answer(show, len(outputs), carries_mistakes=bool(told))
        return gr.on(moved, answer, self.inputs(controls), [*outputs, *told], **wired)

    def inputs(self, controls: Sequence[gr.components.Component]) -> list[gr.components.Component]:
        return [self.checkpoint, self.rgb, self.truth_values, self.present, self.own_colors, self.clicked, *controls]

    def answer(
        self,
        show: Callable,
        count: int,
        empty: list | None = None,
        *,
        mistaken: list | None = None,
        first: Callable | None = None,
        asks: bool = False,
        carries_mistakes: bool = False,
    ) -> Callable:
        """A handler of `inputs` that calls show(scene, *controls); its failures are told in words.

        A mistake of the visitor is an answer too: after one that fails Gradio drops what was moved meanwhile.

        Args:
            show: may be a generator of answers.
            count: of outputs.
            empty: what they get while there is no photograph; nothing unless given.
            mistaken: what they get after a mistake; unless given, they stay as they are.
            first: first(*controls) is called before, also where there is no photograph; `show` gets what it returns
                after the scene.
            asks: whether a photograph is asked for where there is none.
            carries_mistakes: a mistake is one more output, for `mistake`, in place of a warning.
        """

        def of_each(values: list | None, otherwise: Any) -> Any:
            values = values or [otherwise] * count
            return values[0] if count == 1 else values

        empty, mistaken = of_each(empty, None), of_each(mistaken, gr.skip())
        skipped = of_each(None, gr.skip())

        def _answers(checkpoint, rgb, truth_values, present, own_colors, clicked, *settings, warn=gr.Warning):
            begun = [] if first is None else [first(*settings)]
            if rgb is None and not present:
                if asks:
                    warn("There is no photograph: give one at the top of the page.")
                yield empty
                return
            try:
                scene = self._scene(checkpoint, rgb, truth_values, present, own_colors, clicked)
                shown = show(scene, *begun, *settings)
                for values in shown if inspect.isgenerator(shown) else [shown]:
                    # What was asked of the photograph or checkpoint before must not take the place of the new one's.
                    yield skipped if has_changed(self.rgb, rgb) else values
            except UserError as error:
                warn(sentence(str(error)))
                yield mistaken

        def carrying(*given):
            told: list[str] = []
            shown = next(_answers(*given, warn=told.append))
            mistake = f"{time.monotonic() // _AGAIN:.0f} {told[0]}" if told else gr.skip()
            return *(shown if count > 1 else [shown]), mistake

        answer = _answers if inspect.isgeneratorfunction(show) else lambda *given: next(_answers(*given))
        answer = carrying if carries_mistakes else answer
        answer.__name__ = show.__name__
        return in_words(answer)

    def _scene(self, checkpoint, rgb, truth_values, present, own_colors, clicked) -> Scene:
        if rgb is None:  # though classes are ticked: the server was started anew, or the page left for an hour
            raise UserError("the server has no photograph of this page: give one, or reload the page")
        predictor = self.library[checkpoint]
        known = [name for name in predictor.classes if name in present]
        if clicked and not all(place < side for place, side in zip(clicked, rgb.shape, strict=False)):
            clicked = None  # a click that came with a photograph that has gone meanwhile
        truth = None if truth_values is None else in_classes(truth_values, predictor.classes)
        return Scene(predictor, predictor.encode(rgb), known, truth, own_colors, clicked)

    def _accept(self, checkpoint, given, truth_file, present, opened, path, rgb, truth_path, values, ticked) -> tuple:
        """A new photograph: as it is shown, and the classes seen in it. What belonged to the one before is put away.

        Another checkpoint for the same one: its classes remain what the visitor has said, and its truth remains. The
        files may be gone by then, and are not looked at.
        """
        try:
            predictor = self.library.current(checkpoint)
        except UserError as error:  # what is shown is of the checkpoint before: the opened tab is to empty itself
            gr.Warning(sentence(str(error)))
            return gr.skip(), "", *[gr.skip()] * 7, *self.turned(opened)
        encoding = arrival.encoding_of(predictor, given, rgb if given == path else None)
        shown = encoding.rgb.copy() if encoding else None  # another object than the one before: see `has_changed`
        is_same = shown is not None and rgb is not None and np.array_equal(shown, rgb)
        put_away = gr.skip()
        if path is not None and truth_file not in (None, truth_path):  # not the one before's: they came together
            truth_path, values = truth_file, arrival.truth_values(truth_file, shown, predictor.classes)
        elif not is_same:
            put_away, truth_path, values = arrival.mask_put_away(truth_file), None, None
        chips = arrival.chips(predictor, encoding, present if ticked and is_same else None)
        if is_same and has_changed(self.ticked, ticked):  # meanwhile the visitor has ticked one
            chips = gr.CheckboxGroup(chips.choices)
        ticked = gr.skip() if is_same else False
        clicked = gr.skip() if is_same else None
        about = arrival.about(predictor, encoding)
        belongings = truth_path, values, clicked, ticked
        return chips, about, put_away, given or "", shown, *belongings, *self.turned(opened)

    def _read_truth(self, checkpoint, given, truth_file, path, rgb, truth_path, opened) -> tuple:
        """Another mask for the same photograph; one that came with another photograph is read by `_accept`."""
        if given != path or truth_file == truth_path:
            return (gr.skip(),) * (2 + len(self.turns))
        values = arrival.truth_values(truth_file, rgb, self.library[checkpoint].classes)
        return truth_file, values, *self.turned(opened)


def unlike_before() -> int:
    """A number that differs from all before."""
    return time.monotonic_ns()
