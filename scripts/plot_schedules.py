"""Draws docs/media/schedules.png, the learning rates of `training.schedules`: run it after a change there."""

from pathlib import Path

from matplotlib.figure import Figure

from training.config import TrainingConfig
from training.schedules import SCHEDULES, rate_at

STEPS = 2000
OPTIONS: dict[str, dict[str, object]] = {"cosine_with_restarts": {"lr_num_cycles": 3}, "polynomial": {"lr_power": 2.0}}


def main() -> None:
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    for number, name in enumerate(SCHEDULES):
        values = {"steps": STEPS, "batch_size": 4, "learning_rate": 1.0, "warmup_steps": 100, "lr_scheduler": name}
        config = TrainingConfig.model_validate({**values, **OPTIONS.get(name, {})})
        options = "".join(f", {key} = {value}" for key, value in OPTIONS.get(name, {}).items())
        rates = [rate_at(step, config) for step in range(STEPS + 1)]
        style = ("-", "--", "-.", ":")[number % 4]
        axes.plot(rates, style, color=f"C{number}", linewidth=1.4, label=name + options)
    axes.set(xlabel=f"step of {STEPS}, 100 of them warm-up", ylabel="share of learning_rate")
    axes.legend(fontsize=7)
    axes.grid(alpha=0.3)
    figure.savefig(Path(__file__).parents[1] / "docs" / "media" / "schedules.png", dpi=100)


if __name__ == "__main__":
    main()
