"""What stands in configs/cluster is what Ray, Serve and the settings take."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from streamer.errors import ConfigError
from streamer.settings.cluster import ClusterSettings
from streamer.settings.config import resolve, validate

FOLDER = Path(__file__).resolve().parents[2] / "configs" / "cluster"
needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="needs Ray (extra `cluster`)")


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FOLDER / name).read_text("utf-8")))


def test_the_settings_file_names_every_setting_of_a_cluster():
    settings = resolve([FOLDER / "cluster.yaml"], (), {})
    assert settings.cluster.replicas == 2
    assert set(yaml.safe_load((FOLDER / "cluster.yaml").read_text("utf-8"))["cluster"]) == set(
        ClusterSettings.model_fields
    )


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"replicas": 0}, "cluster.replicas: input should be greater than or equal to 1; is 0"),
        ({"replicas": 4, "max_replicas": 2}, "cluster: max_replicas: must be at least replicas (4); is 2"),
        ({"gpus": -1}, "cluster.gpus: input should be greater than or equal to 0; is -1"),
        ({"cpus": "many"}, "cluster.cpus: input should be a valid integer"),
        ({"adress": "auto"}, "cluster.adress: unknown key; known here: address, application, replicas"),
    ],
)
def test_a_wrong_setting_gives_one_clear_line(given, line):
    with pytest.raises(ConfigError) as caught:
        validate({"cluster": given})
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


@needs_ray
def test_serve_takes_the_engines_of_the_service():
    from ray.serve.schema import ServeDeploySchema

    from streamer.cluster.app import engines

    service = documents("rayservice.yaml")[0]
    schema = ServeDeploySchema.model_validate(yaml.safe_load(service["spec"]["serveConfigV2"]))
    (application,) = schema.applications
    assert application.import_path == "streamer.cluster.app:engines"
    bound = engines(application.args)._bound_deployment
    assert bound.name == "Engine"
    assert bound.ray_actor_options == {"num_cpus": 2, "num_gpus": 1.0}
    assert bound._deployment_config.autoscaling_config.max_replicas == 8


def test_the_ingresses_ask_for_those_engines():
    service, deployment, balancer = documents("rayservice.yaml")
    (application,) = yaml.safe_load(service["spec"]["serveConfigV2"])["applications"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert f"cluster.application={application['name']} " in container["args"][0]
    assert f"--model {application['args']['model']['name']} " in container["args"][0]
    assert balancer["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"]


@needs_ray
def test_ray_takes_the_machines():
    from importlib.metadata import version

    from ray.autoscaler._private.util import prepare_config, validate_config

    (machines,) = documents("ray.yaml")
    validate_config(prepare_config(machines))
    assert documents("rayservice.yaml")[0]["spec"]["rayClusterConfig"]["rayVersion"] == version("ray")
