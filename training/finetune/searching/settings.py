"""What a search is asked: the table `[search]` of a TOML file, beside the settings of the runs that it makes."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from training.search.space import Choice, LogUniform, Range, Value

_SHARES = (1 / 8, 1 / 4, 1 / 2, 1.0)
"""Of a run's steps: where it is measured by default. Copies come late and quality early, so the places double."""


class SearchSettings(BaseModel):
    """What is searched, and how candidates are judged."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    sites: str | tuple[str, ...] = "layers"
    """What a bit of the mask stands for: blocks, layers, matrices (q, k, v, output, feed-forward) or kinds; sd-13 or
    sd-16 for MemControl's own masks; or a list of scope words, one bit each."""
    always: tuple[str, ...] = ()
    """Scope words of what is trained whatever the mask says."""
    learning_rate: tuple[float, float] | None = None
    """The range of the rate, drawn evenly on a logarithmic scale; by default a tenth to three times the run's."""
    options: dict[str, tuple[Value, ...]] = Field(default_factory=dict)
    """Options of the method to choose from, such as {fraction = [0.01, 0.05]}."""
    checkpoints: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Steps at which a run is measured; every one competes. By default an eighth, a fourth, half and all of it."""
    search_stop: bool = False
    """The strategy also chooses the step at which a run ends."""
    samples: int = Field(default=64, ge=16, le=100_000)
    """Pictures that are made at every checkpoint."""
    num_inference_steps: int = Field(default=10, ge=1, le=1000)
    """Denoising steps of such a picture: ranks are stable with few."""
    final_samples: int = Field(default=256, ge=16, le=100_000)
    """Pictures for each point of the front, on held-out pictures that the search never saw."""
    features: str | None = None
    """Where pictures are compared, see `studio evaluate quality --features`; by default the model's own latents."""
    copying_quantile: float = Field(default=0.05, gt=0, lt=0.5)
    """A sample counts as copied when it is nearer to a trained picture than this share of held-out ones."""
    reference: tuple[float, float] = (1.0, 0.5)
    """Where hypervolumes are measured from: kernel distance and copy rate. Fixed before the first run."""
    limit: float | None = Field(default=None, gt=0, le=1)
    """The highest copy rate that is acceptable: runs surely above it are stopped, and none above it is chosen."""
    early_stop: bool = True
    """Stops runs that can only get worse: copies rise while quality does not."""

    @field_validator("learning_rate")
    @classmethod
    def _in_order(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not 0 < value[0] <= value[1]:
            raise ValueError("must be two rates above 0, the lower one first")
        return value

    @model_validator(mode="after")
    def _sorted(self) -> "SearchSettings":
        if list(self.checkpoints) != sorted(set(self.checkpoints)):
            raise ValueError("checkpoints must be rising steps")
        return self

    def steps(self, most: int) -> tuple[int, ...]:
        """The steps at which a run of `most` steps is measured.

        Raises:
            ValueError: one of them is beyond its end.
        """
        if self.checkpoints and self.checkpoints[-1] > most:
            raise ValueError(f"search.checkpoints {self.checkpoints[-1]}: a run has {most} steps (max_train_steps)")
        return self.checkpoints or tuple(sorted({max(1, round(share * most)) for share in _SHARES}))

    def numbers(self, rate: float, most: int) -> dict[str, Range]:
        """The numbers of the space, for a method whose own rate is `rate` and runs of `most` steps."""
        low, high = self.learning_rate or (rate / 10, rate * 3)
        found: dict[str, Range] = {"learning_rate": LogUniform(low=low, high=high)}
        found |= {name: Choice(options=options) for name, options in self.options.items()}
        if self.search_stop:
            found["stop_step"] = Choice(options=self.steps(most))
        return found


def split_settings(values: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Takes the table `[search]` out of a TOML file: the settings of its runs, and those of the search."""
    rest = {name: value for name, value in values.items() if name != "search"}
    table = values.get("search", {})
    if not isinstance(table, dict):
        raise ValueError(f"search = {table!r}: must be a table, [search]")
    return rest, table
