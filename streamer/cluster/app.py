"""The engines as an application that Ray Serve deploys by itself, from its own configuration (KubeRay's RayService).

    import_path: streamer.cluster.app:engines
    args: {model: {name: base, compute: cuda}, cluster: {replicas: 2, gpus: 1}}

Programs find it by its name: `--set cluster.application=NAME`.
"""

from typing import Any

from streamer.cluster.connect import deployment
from streamer.cluster.wish import ModelWish
from streamer.settings.config import validate


def engines(args: dict[str, Any]) -> Any:
    """The application, for settings as in a YAML file (sections `model`, `speech`, `own_sounds`, `cluster`).

    Raises ConfigError, UsageError: what is wrong with them.
    """
    settings = validate(args, where="args.")
    spoken = settings.speech
    translate = spoken.task == "translate"
    return deployment(
        settings.cluster, ModelWish.of(settings, frozenset(spoken.languages or ("",)), translate=translate)
    )
