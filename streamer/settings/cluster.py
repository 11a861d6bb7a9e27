"""The settings of a cluster: where Ray is, and how many engines there are."""

from pydantic import Field, model_validator

from streamer.settings.section import Section


class ClusterSettings(Section):
    """Engines on Ray Serve (extra `cluster`), for more streams than one machine carries."""

    USUAL = ("address", "replicas", "max_replicas", "cpus", "gpus")
    address: str | None = Field(
        None,
        min_length=1,
        description="auto (the cluster of this machine), HOST:PORT, local (one of its own); null: no",
    )
    application: str | None = Field(
        None,
        min_length=1,
        description="what Serve calls the engines that are there; null: they are begun for the model",
    )
    replicas: int = Field(1, ge=1, le=1000, description="engines, each with the model; two or more outlive a loss")
    max_replicas: int | None = Field(None, ge=1, le=1000, description="as many as work needs, up to so many; null: no")
    idle_s: float = Field(300.0, ge=0, le=86_400, description="engines that nobody needs end after so long")
    cpus: int = Field(1, ge=1, le=256, description="of each engine; its threads, where model.threads is null")
    gpus: float = Field(0.0, ge=0, le=8, description="of each engine; 0.5: two share one")

    @model_validator(mode="after")
    def _most_is_not_less(self) -> "ClusterSettings":
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            raise ValueError(f"max_replicas: must be at least replicas ({self.replicas}); is {self.max_replicas}")
        return self
