"""The model of a run, and the engines that its steps are done with: the first, and a spare one where that one failed.

The main thread loads the model and makes the first engine. A spare one is made by the worker's thread where the device
failed, by the main thread (`Worker.watch`) where a step hangs.
"""

import logging
import sys
from collections.abc import Callable

import torch

from streamer.model.download import LoadStep, Tell
from streamer.model.engine import Engine, StepEngine
from streamer.model.outline import ModelOutline
from streamer.model.own_sounds import own_layer
from streamer.model.whisper import Model
from streamer.output.terminal import LoadingView
from streamer.runtime.opening import Opening
from streamer.runtime.systemd import Systemd
from streamer.runtime.teaching import Teaching
from streamer.settings.config import Settings

log = logging.getLogger(__name__)

LoadModel = Callable[[Tell], Model | ModelOutline]


class Engines:
    """Makes the engines of a run. `load`, `load_on_cpu` and `elsewhere`: as in `Program`.

    `model`: the one that is listened with; None: it is not loaded yet. `teaching` is told the layer of sounds of one's
    own that the first engine has, and knows which a spare one is to have.
    """

    def __init__(
        self,
        settings: Settings,
        teaching: Teaching,
        load: LoadModel,
        load_on_cpu: Callable[[str], Model] | None,
        elsewhere: Callable[[ModelOutline], StepEngine] | None,
    ) -> None:
        self.model: Model | ModelOutline | None = None
        self._settings, self._teaching = settings, teaching
        self._load, self._load_on_cpu, self._elsewhere = load, load_on_cpu, elsewhere

    def first(self, opening: Opening, systemd: Systemd, *, live: bool) -> StepEngine:
        """The model, loaded and warmed up; says what is done."""
        view = None if self._settings.output.quiet else LoadingView(sys.stderr, brief=not live)

        def tell(step: LoadStep) -> None:
            opening.tell(step)
            systemd.starting(step.what)
            if view:
                view.show(step)

        try:
            model = self.model = self._load(tell)
            if isinstance(model, ModelOutline):  # the engines of a cluster are warm, and judge learned sounds there
                return self._remote(model)
            own = own_layer(model, self._settings.own_sounds.place()) if self._settings.own_sounds.enabled else None
            tell(LoadStep(f"warming up {model.name}"))
            self._teaching.own = own
            engine = Engine(model, context=self._settings.model.context, own=own)
            engine.warm_up()
            return engine
        finally:
            if view:
                view.close()

    def spare(self) -> StepEngine:
        """The engine to go on with where a step hangs or the device failed: on the CPU, if it was not there already."""
        model = self.model
        assert model is not None
        if isinstance(model, ModelOutline):
            return self._remote(model)
        if model.device.type != "cpu" and self._load_on_cpu is not None:
            log.error("%s failed: going on with the CPU, which may be too slow for this model", model.device)
            model = self.model = self._load_on_cpu(model.name)
        return Engine(model, context=self._settings.model.context, own=self._teaching.own)

    def _remote(self, model: ModelOutline) -> StepEngine:
        assert self._elsewhere is not None
        return self._elsewhere(model)


def described(model: Model | ModelOutline) -> str:
    """A model for people: name, precision, threads or device, head."""
    if isinstance(model, ModelOutline):
        head = model.head.name if model.head else "none (captions only)"
        return f"{model.name} ({model.precision}, {model.device.type}, on a cluster), head: {head}"
    threads = torch.get_num_threads()
    on = f"{threads} thread{'s' if threads > 1 else ''}" if model.device.type == "cpu" else model.device.type
    head = model.head.name if model.head else "none (captions only)"
    return f"{model.name} ({model.precision}, {on}), head: {head}"
