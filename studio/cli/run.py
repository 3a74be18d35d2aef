"""From words to a verb, from a verb to an exit code."""

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Final

from studio.cli.console import Console
from studio.cli.flags import HelpAskedError, parse_flags
from studio.cli.verb import Verb, load_verbs
from studio.errors import (
    DONE,
    FAILED,
    INTERRUPTED,
    FailedCheckError,
    RequestError,
    describe,
    did_you_mean,
    exit_code,
)

_TALKATIVE: Final = (
    "torch.utils._pytree", "bitsandbytes.backends.cpu.ops", "diffusers.quantizers.torchao.torchao_quantizer",
)  # fmt: skip
"""They warn, whenever torchao and bitsandbytes are installed, of what nobody here can do anything about."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code; never shows a traceback for a user's mistake."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    console = Console(as_json="--json" in words)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        try:
            return _run(words, console)
        except HelpAskedError as help_asked:
            print(str(help_asked).rstrip(), flush=True)
            return DONE
    except KeyboardInterrupt as interrupt:
        console.error(str(interrupt) or "interrupted; nothing was written")
        console.finish({"error": "interrupted", "exit_code": INTERRUPTED})
        return INTERRUPTED
    except BrokenPipeError:  # `studio motions | head -1`: nobody reads on, and nothing is wrong
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except Exception as error:  # the one place where everything ends as one message and an exit code
        code = exit_code(error)
        if os.environ.get("STUDIO_DEBUG"):
            raise
        message = describe(error)
        found = error.result if isinstance(error, FailedCheckError) else None
        hint = " (STUDIO_DEBUG=1 shows the traceback)" if code == FAILED and found is None else ""
        console.error(message + hint)
        console.finish({**(found or {}), "error": message, "exit_code": code})
        return code


def _run(words: list[str], console: Console) -> int:
    verbs = load_verbs()
    if words and words[0] in ("--version", "-V"):
        from studio.versions import our_version

        print(f"animatex-studio {our_version()}")
        return DONE
    verb, flags = _find(words, verbs)
    request = parse_flags(f"studio {verb.name}", verb.request, flags)
    result = verb.run(request, console)
    console.finish(result)
    # a verb may do all it was asked and still have something to say that a script must notice
    return int(str(result.get("exit_code", DONE)))


def check_words(words: Sequence[str]) -> None:
    """Checks a command without running it.

    Raises:
        RequestError: it is none, or a flag of it is wrong.
    """
    try:
        verb, flags = _find(list(words), load_verbs())
        parse_flags(f"studio {verb.name}", verb.request, flags)
    except HelpAskedError:
        raise RequestError("a command that only shows help is no job; give a verb and its flags") from None


def _find(words: list[str], verbs: Mapping[str, Verb]) -> tuple[Verb, list[str]]:
    """Finds the verb that the words begin with.

    Raises:
        HelpAskedError: there is no verb among them.
        RequestError: the first words are no verb.
    """
    typed = [word for word in words if word != "--json"]
    for length in (2, 1):
        name = " ".join(typed[:length])
        if len(typed) >= length and name in verbs:
            return verbs[name], typed[length:]
    if not typed or typed[0].startswith("-"):
        if typed and typed[0] not in ("--help", "-h"):
            raise RequestError(f"{typed[0]} is not a flag of `studio`; a verb comes first, see `studio --help`")
        raise HelpAskedError(_overview("", verbs))
    group = {name: verb for name, verb in verbs.items() if name.startswith(f"{typed[0]} ")}
    if group and (len(typed) == 1 or typed[1] in ("--help", "-h")):
        if len(typed) == 1:
            raise RequestError(f"studio {typed[0]} needs one more word: {', '.join(n.split()[1] for n in group)}")
        raise HelpAskedError(_overview(f"{typed[0]} ", group))
    if group:
        known = [name.split()[1] for name in group]
        hint = did_you_mean(typed[1], known)
        raise RequestError(f"studio {typed[0]} has no verb {typed[1]!r}{hint}; it has {', '.join(known)}")
    hint = did_you_mean(typed[0], {name.split()[0] for name in verbs})
    raise RequestError(f"{typed[0]!r} is not a verb of studio{hint}; `studio --help` lists them")


def _overview(group: str, verbs: Mapping[str, Verb]) -> str:
    """Lists verbs with one line each."""
    width = max(map(len, verbs))
    lines = [f"  {name:<{width}}  {verb.summary}" for name, verb in verbs.items()]
    return "\n".join(
        [
            f"usage: studio {group}VERB [flags]      (`studio VERB --help` shows the flags)",
            "",
            *lines,
            "",
            "every verb takes --json (one JSON object as the last line) and --help",
            "exit codes: 0 done, 1 failed while running, 2 the request was wrong, 130 interrupted",
        ]
    )
