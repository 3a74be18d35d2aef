"""The method of a fine-tuning: which one, where, how much; for SaRA on the histogram of the weights."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import streamlit as st

from studio.errors import RequestError
from studio.ui.form import field, fields
from studio.ui.text import plain
from studio.ui.tune.histogram import draw_histogram, thresholds
from studio.ui.tune.shared import PAGE, changed_at, histogram_of, network_folder, trainer
from studio.weight_histogram import KINDS, WeightHistogram

RULES: Final = {"fraction": "A share", "threshold": "All below a threshold", "budget": "A number"}
"""SaRA's ways of saying how much is trained; each is a field of its own."""


def draw_method(model: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Draws the choice of a method and its options; the values of the config's fields, and those of the method's."""
    from training.methods import METHODS

    config = trainer().FinetuneConfig
    names = list(METHODS)
    key = f"{PAGE}.method"
    if st.session_state.get(key) not in names:
        st.session_state[key] = config.model_fields["method"].default
    method = st.selectbox("Method", names, key=key, persist_state="session",
                          help=config.model_fields["method"].description,
                          format_func=lambda name: f"{name}: {METHODS[name].about}")  # fmt: skip
    kind = METHODS[method]
    st.caption(f"{plain(kind.paper)}. Which to take says docs/fine-tuning.md; when in doubt, paca or sara.")
    values: dict[str, Any] = {"method": method}
    options = (
        _draw_sara(kind, model)
        if method == "sara"
        else fields(kind, kind.model_fields, page=f"{PAGE}.{method}", columns=2)
    )
    if not kind.model_fields:
        st.caption("This method has no options.")
    if kind.sized_by:
        values["trainable_share"] = field(config, "trainable_share", page=PAGE, step=0.01,
                                          label="Instead, a share of the whole network")  # fmt: skip
        if values["trainable_share"] is not None:
            st.caption(f"It sets {plain(kind.sized_by)} for you, whatever stands above.")
    return values, options


def draw_scope() -> dict[str, Any]:
    """Draws where is trained."""
    scope = field(trainer().FinetuneConfig, "scope", page=PAGE, label="Where, a word or path a line")
    st.caption(
        f"Words: {', '.join([*KINDS, 'convolutions'])}. Empty is everywhere; `!norms` takes the norms out again."
    )
    return {"scope": scope}


def _draw_sara(kind: Any, model: str) -> dict[str, Any]:
    page = f"{PAGE}.sara"
    found = counted(model)
    key = f"{page}.rule"
    if key not in st.session_state:
        st.session_state[key] = "fraction"
    rule = st.segmented_control("How much is trained", list(RULES), key=key, format_func=RULES.__getitem__,
                                required=True, persist_state="session")  # fmt: skip
    rule = str(rule or "fraction")
    scope = _scope_words()
    inside = None if found is None else found.inside(scope)
    values: dict[str, Any] = {}
    if rule == "threshold" and found is not None:
        values["threshold"] = _draw_slider(kind, found)
    else:
        values[rule] = field(kind, rule, page=page, step=0.005 if rule == "fraction" else None)
    picture = st.container()
    others = [name for name in kind.model_fields if name not in RULES]
    with st.expander("Cap, low-rank term, re-selection"):
        values |= fields(kind, others, page=page, columns=2)
    if found is None:
        st.caption("The model's weights are not here, so they cannot be counted; the run tells how many it trains.")
    else:
        assert inside is not None
        with picture:
            draw_histogram(found, inside, values, share=st.session_state.get(f"{PAGE}.trainable_share"))
    return values


def _draw_slider(kind: Any, found: WeightHistogram) -> float:
    """The threshold as a slider over the sizes that weights have."""
    key = f"{PAGE}.sara.threshold"
    current = st.session_state.get(key)
    grid = thresholds(found)
    if not isinstance(current, float) or not current > 0:
        start = found.threshold_for(0.02 * found.total)
        current = min(grid, key=lambda value: abs(value - start))
        st.session_state[key] = current
    options = sorted({*grid, current})
    return float(
        st.select_slider(
            "Threshold of |w|",
            options,
            key=key,
            format_func=lambda value: f"{value:.2e}",
            help=kind.model_fields["threshold"].description,
            persist_state="session",
        )
    )


def counted(model: str) -> WeightHistogram | None:
    """The histogram of a model's weights; None where they are not here, or cannot be read."""
    try:
        network = network_folder(model)
        return None if network is None else histogram_of(str(network), changed_at(network))
    except (RequestError, ValueError, OSError):
        return None  # why stands beside the model's name


def _scope_words() -> Sequence[str]:
    """What stands in the widget of the scope, which is drawn elsewhere."""
    text = str(st.session_state.get(f"{PAGE}.scope") or "")
    return [line.strip() for line in text.splitlines() if line.strip()]


def take_over_method(values: Mapping[str, Any]) -> None:
    """Sets SaRA's rule to the one that settings name."""
    rule = next((name for name in ("threshold", "budget") if values.get(f"sara.{name}") is not None), "fraction")
    st.session_state[f"{PAGE}.sara.rule"] = rule
