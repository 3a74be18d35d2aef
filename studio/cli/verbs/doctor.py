"""`studio doctor`."""

from studio.cli.console import Console
from studio.cli.verb import Result, Verb
from studio.requests import Request


class DoctorRequest(Request):
    """Shows versions, devices, attention, detectors, weights and disk, and the command that mends what is missing."""


def run(_: DoctorRequest, console: Console) -> Result:
    """Runs the checks and shows them."""
    from studio.doctor import run_checks

    checks = run_checks()
    width = max(len(check.name) for check in checks)
    for check in checks:
        mark = "ok     " if check.ok else "MISSING" if check.needed else "absent "
        console.say(f"{mark}  {check.name:<{width}}  {check.found}")
        if check.fix:
            console.say(f"{'':<{width + 11}}mend: {check.fix}")
    well = all(check.ok for check in checks if check.needed)
    console.say("all that is needed is here" if well else "something that is needed is missing: see `mend` above")
    return {"ok": well, "checks": [check.as_dict() for check in checks]}


VERB = Verb("doctor", DoctorRequest, run)
