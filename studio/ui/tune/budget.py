"""Steps, batch, rate and memory of a fine-tuning; what is kept and shown of it; the guard."""

from typing import Any, get_args

import streamlit as st

from studio.cli.verbs.train import TrainRequest
from studio.finetune_form import BUDGET, KEPT, MEMORY, OPTIMIZER, RATE
from studio.ui.form import field, fields
from studio.ui.tune.shared import PAGE, trainer


def draw_budget() -> tuple[dict[str, Any], dict[str, Any]]:
    """Draws how long and how large; the values of the config's fields, and of the command's own flags."""
    config = trainer().FinetuneConfig
    columns = st.columns(3)
    values: dict[str, Any] = {}
    for column, name in zip(columns, BUDGET, strict=True):
        with column:
            values[name] = field(config, name, page=PAGE, step=1e-5 if name == "learning_rate" else None)
    with st.expander("Memory", expanded=True):
        values |= fields(config, MEMORY, page=PAGE, columns=2)
    with st.expander("How the rate goes"):
        values |= fields(config, RATE, page=PAGE, columns=3)
    with st.expander("Optimizer, average, seed"):
        values |= fields(config, OPTIMIZER, page=PAGE, columns=3)
    flags = fields(TrainRequest, ["time_limit", "device"], page=PAGE, columns=2)
    return values, flags


def draw_kept() -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Draws samples, checkpoints and the guard; the values of the config's fields, and the guard's, None where off."""
    module = trainer()
    config = module.FinetuneConfig
    values = fields(config, KEPT, page=PAGE, columns=2)
    info = config.model_fields["report_to"]
    key = f"{PAGE}.report_to"
    if key not in st.session_state:
        st.session_state[key] = []
    names = get_args(get_args(info.annotation)[0])
    values["report_to"] = tuple(st.multiselect("Report to", names, key=key, help=info.description,
                                               persist_state="session"))  # fmt: skip
    st.subheader("Guard", help=config.model_fields["guard"].description)
    on = st.toggle("Look for copies of the trained pictures", key=f"{PAGE}.guard.on", persist_state="session",
                   help=config.model_fields["guard"].description)  # fmt: skip
    if not on:
        st.caption("Off. It needs held-out pictures: a validation share of the data, 20 pictures at least.")
        return values, None
    return values, fields(module.GuardOptions, module.GuardOptions.model_fields, page=f"{PAGE}.guard", columns=2)
