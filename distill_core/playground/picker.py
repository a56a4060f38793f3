"""VocoderPicker: choose a vocoder, see what it is and how far it is, inside any Gradio app."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import gradio as gr

from .. import registry as default_registry
from ..errors import DistillError
from ..registry import Registry
from . import choices, page
from .bench import Bench
from .choices import Choice
from .jobs import Job, Stopped, follow

log = logging.getLogger(__name__)

Work = Callable[..., Any]


class VocoderPicker:
    """Form, information, progress and a stop button, made where it is constructed, within `gr.Blocks`.

        picker = VocoderPicker()
        picker.run(button.click, work, inputs=[text], outputs=[audio])

    Vocoders that are broken are listed with the reason. The last few that were used stay loaded; of all
    tabs and pickers with the same `bench`, one computes at a time.

    Args:
        registry: where vocoders come from; default: the process-wide one.
        vocoder: the name chosen at first; default: one that runs without a download.
        formats: offer other mel formats.
        rates: offer other sample rates.
        keep: how many vocoders stay loaded.
        bench: shares loaded vocoders and turns with another picker, in place of `registry` and `keep`.
        status: a `gr.Column` or the like where progress and the stop button go; default: below the information.

    Attributes:
        inputs: the form's components, in the order of `Choice.of`'s arguments.
        info: says what is chosen.
        status: says how far a run is, or what went wrong.
        stop: ends the run of the tab it is pressed in.
    """

    def __init__(
        self,
        registry: Registry | None = None,
        *,
        vocoder: str | None = None,
        formats: bool = True,
        rates: bool = True,
        keep: int = 2,
        bench: Bench | None = None,
        status: Any = None,
    ) -> None:
        self.bench = bench or Bench(registry or default_registry, keep=keep)
        self.registry = self.bench.registry
        self._first = vocoder
        self._jobs: dict[str, Job] = {}
        found, first = self._offers()
        variant = first.card.variant() if first and first.card else None
        gr.HTML(f"<style>{page.CSS}</style>", padding=False, elem_classes="dv-style")
        self.vocoder = gr.Dropdown(
            [(offer.label, offer.name) for offer in found],
            value=first.name if first else None,
            label="Vocoder",
            elem_id="dv-vocoder",
            filterable=False,
        )
        self.variant = gr.Dropdown(
            choices.variants(first.card) if first and first.card else [],
            value=variant.name if variant else None,
            label="Variant",
            elem_id="dv-variant",
            filterable=False,
        )
        with gr.Row():
            self.device = gr.Dropdown(
                choices.devices(first.card if first else None), value="auto", label="Device", min_width=120
            )
            self.precision = gr.Dropdown(choices.precisions(), value="fp32", label="Precision", min_width=120)
        with gr.Accordion("Mel format and sample rate", open=False, visible=formats or rates):
            self.mel = gr.Dropdown(
                choices.formats(variant) if variant else [("its own", "")],
                value="",
                label="Mel format",
                info="What the mel is in. A sound is analysed in it, so that you hear what a conversion costs.",
                visible=formats,
                filterable=False,
            )
            self.sample_rate = gr.Dropdown(
                choices.rates(variant) if variant else [("its own", "")],
                value="",
                label="Output rate",
                visible=rates,
                filterable=False,
            )
        self.info = gr.HTML(self._info(*self._values(first)), elem_id="dv-info")
        with status or nullcontext():
            self.status = gr.HTML("", elem_id="dv-status")
            self.stop = gr.Button("Stop", variant="stop", visible=False, elem_id="dv-stop")
        self.inputs = [self.vocoder, self.variant, self.device, self.precision, self.mel, self.sample_rate]
        self._wire()

    def run(
        self,
        trigger: Callable[..., Any],
        work: Work,
        inputs: Any = (),
        outputs: Any = (),
        *,
        check: Callable[..., object] | None = None,
        **event: Any,
    ) -> Any:
        """Have `work` done with the chosen vocoder when something happens.

        Weights are downloaded and the vocoder is loaded, both with a bar; then `work` runs in a thread, one
        at a time. Its outputs are emptied before. A run that still goes on in the same tab is ended. A
        `DistillError` is shown in its own words; of any other exception the page names the kind, and the log
        has the rest.

        Args:
            trigger: an event of Gradio's, such as `button.click`.
            work: called as `work(vocoder, progress, *values)`; returns the value of the output, or a tuple
                of them. `progress` is for `mel_to_waveform(progress=)`: it moves the bar and lets the run be
                stopped.
            inputs: a component or several; their values are what `work` is given.
            outputs: a component or several.
            check: called as `check(*values)` before anything is downloaded or loaded for these values; raises a
                `DistillError` if they will not do.
            **event: further arguments of the event listener.
        """
        inputs, outputs = _listed(inputs), _listed(outputs)

        def call(request: gr.Request, *values: Any) -> Iterator[tuple[Any, ...]]:
            form, rest = values[: len(self.inputs)], values[len(self.inputs) :]
            yield from self._run(str(request.session_hash), form, work, check, rest, len(outputs))

        return trigger(
            call,
            inputs=[*self.inputs, *inputs],
            outputs=[self.status, self.stop, self.info, *outputs],
            show_progress="hidden",
            concurrency_limit=None,  # runs take turns by themselves, and say so
            **{"api_visibility": "private", "trigger_mode": "multiple", **event},  # a second press is not lost
        )

    def _run(
        self,
        session: str,
        form: Sequence[Any],
        work: Work,
        check: Callable[..., object] | None,
        values: Sequence[Any],
        count: int,
    ) -> Iterator[tuple[Any, ...]]:
        job = Job()
        earlier = self._jobs.get(session)
        if earlier is not None:
            earlier.stop()
        self._jobs[session] = job  # from here on the earlier run says nothing more
        nothing: tuple[Any, ...] = (gr.skip(),) * count
        yield page.progress(job.state), gr.Button(visible=True), gr.skip(), *((None,) * count)
        made, text = nothing, ""
        try:
            for state in follow(job, partial(self._work, job, form, work, check, values)):
                if self._jobs.get(session) is job:
                    yield page.progress(state), gr.skip(), gr.skip(), *nothing
            result = job.result()
            made = result if isinstance(result, tuple) and count != 1 else (result,) * min(count, 1)
        except Stopped:
            text = page.stopped(job.state)
        except DistillError as error:
            text = page.failure(str(error))
        except Exception as error:
            log.exception("A run in the playground failed")
            text = page.failure(
                f"{type(error).__name__}: {error} This is a defect, or a plug-in's; the terminal has the whole story."
            )
        finally:
            current = self._jobs.get(session) is job
            if current:
                del self._jobs[session]
        if current:
            yield text, gr.Button(visible=False), self._info(*form), *made

    def _work(
        self,
        job: Job,
        form: Sequence[Any],
        work: Work,
        check: Callable[..., object] | None,
        values: Sequence[Any],
    ) -> Any:
        if check is not None:
            check(*values)
        with self.bench.turn.taken(job):
            loaded = self.bench.load(Choice.of(*form), job)
            job.stage("Vocoding")
            return work(loaded.vocoder, Progress(job, loaded.seconds), *values)

    # The form

    def _wire(self) -> None:
        quiet: dict[str, Any] = {"show_progress": "hidden", "queue": False, "api_visibility": "private"}
        self.vocoder.change(
            self._vocoder_changed,
            self.inputs,
            [self.variant, self.device, self.mel, self.sample_rate, self.info],
            **quiet,
        )
        self.variant.input(self._variant_changed, self.inputs, [self.mel, self.sample_rate, self.info], **quiet)
        for part in (self.mel, self.sample_rate):
            part.input(self._info, self.inputs, self.info, **quiet)
        self.stop.click(self._stop, None, self.stop, **quiet)
        blocks = gr.context.Context.root_block
        if blocks is not None:
            blocks.load(self._refreshed, self.inputs, [self.vocoder, self.info], **quiet)
            blocks.unload(self._closed)

    def _offers(self) -> tuple[list[choices.Offer], choices.Offer | None]:
        found = choices.offers(self.registry)
        named = next((offer for offer in found if offer.name == self._first), None)
        return found, named or choices.default_offer(found)

    def _offer(self, name: str | None) -> choices.Offer | None:
        return next((offer for offer in choices.offers(self.registry) if offer.name == name), None)

    def _values(self, offer: choices.Offer | None) -> tuple[Any, ...]:
        return (offer.name if offer else None, None)

    def _info(self, *form: Any) -> str:
        offer = self._offer(form[0])
        try:
            choice = Choice.of(*form)
        except DistillError as error:
            return page.failure(str(error))
        missing = f"There is no vocoder {form[0]!r} any more." if form[0] else choices.nothing_installed(self.registry)
        return page.info(offer, choice, missing)

    def _vocoder_changed(self, name: str, *_: Any) -> tuple[Any, ...]:
        offer = self._offer(name)
        if offer is None or offer.card is None:
            nothing = gr.Dropdown(choices=[], value=None)
            own = gr.Dropdown(choices=[("its own", "")], value="")
            return nothing, gr.skip(), own, own, self._info(name)
        variant = offer.card.variant()
        return (
            gr.Dropdown(choices=choices.variants(offer.card), value=variant.name),
            gr.Dropdown(choices=choices.devices(offer.card), value="auto"),
            gr.Dropdown(choices=choices.formats(variant), value=""),
            gr.Dropdown(choices=choices.rates(variant), value=""),
            self._info(name),
        )

    def _variant_changed(self, name: str, variant_name: str, *_: Any) -> tuple[Any, ...]:
        offer = self._offer(name)
        if offer is None or offer.card is None:
            return gr.skip(), gr.skip(), self._info(name)
        variant = offer.card.variant(variant_name)
        return (
            gr.Dropdown(choices=choices.formats(variant), value=""),
            gr.Dropdown(choices=choices.rates(variant), value=""),
            self._info(name, variant_name),
        )

    def _refreshed(self, name: str | None, *form: Any) -> tuple[Any, ...]:
        """For a page opened anew: what is installed and downloaded now, not when the server began."""
        found, first = self._offers()
        listed = [(offer.label, offer.name) for offer in found]
        keep = name if name in {offer.name for offer in found} else first.name if first else None
        return gr.Dropdown(choices=listed, value=keep), self._info(keep, *form)

    def _stop(self, request: gr.Request) -> Any:
        self._closed(request)
        return gr.skip()

    def _closed(self, request: gr.Request) -> None:
        job = self._jobs.get(str(request.session_hash))
        if job is not None:
            job.stop()


class Progress:
    """What `work` gets: give it to `mel_to_waveform(progress=)`, or say what is being done with `stage`.

    Args:
        job: the run.
        loading: seconds that loading the vocoder took just now; 0 if it was there.
    """

    def __init__(self, job: Job, loading: float) -> None:
        self.job = job
        self.loading = loading

    def __call__(self, done: int, total: int) -> None:
        self.job.frames(done, total)

    def stage(self, name: str) -> None:
        """What is being done now, in a word or two."""
        self.job.stage(name)


def _listed(components: Any) -> list[Any]:
    return list(components) if isinstance(components, Sequence | set) else [components]
