"""`studio methods`: how a model can be fine-tuned."""

from studio.cli.console import Console
from studio.cli.verb import Result, Verb
from studio.requests import Request


class MethodsRequest(Request):
    """Lists the fine-tuning methods with their options."""


def run_methods(_: MethodsRequest, console: Console) -> Result:
    """Lists methods; the options are those of `--set method_options.NAME=VALUE`."""
    from training.methods import METHODS

    rows = []
    for name in METHODS:
        method = METHODS[name]
        options = {
            key: {"default": info.default, "help": info.description} for key, info in method.model_fields.items()
        }
        rows.append({"name": name, "about": method.about, "paper": method.paper, "options": options})
        console.say(f"{name:<12}{method.about}  [{method.paper}]")
        for key, option in options.items():
            console.say(f"{'':<14}{key} = {option['default']}: {option['help']}")
    return {"methods": rows}


VERB = Verb("methods", MethodsRequest, run_methods)
