"""`studio library`: what was made and what came with the studio, without a browser."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from studio.cli.console import Console
from studio.cli.verb import Result, Verb
from studio.errors import RequestError
from studio.requests import Positional, Request

if TYPE_CHECKING:
    from studio.library import Library, Thing

Number = Annotated[int, Field(ge=1), Positional()]
Numbers = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Positional()]


class LibraryRequest(Request):
    """Which library."""

    root: Path | None = None
    """The runs folder; by default $STUDIO_RUNS, or runs here."""
    database: str | None = None
    """postgresql://USER@HOST/DATABASE when several machines share it; by default $STUDIO_DATABASE, or a file in the
    folder."""


class ListRequest(LibraryRequest):
    """Lists what is in the library: results, runs, adapters, studies, models, motions and characters."""

    text: Annotated[tuple[str, ...], Positional()] = ()
    """Words that must all be in title, prompt, tags, model, path or facts."""
    kind: tuple[Literal["result", "run", "adapter", "study", "model", "motion", "character"], ...] = ()
    """Only this kind; repeat it for several."""
    tag: tuple[str, ...] = ()
    """Only what has this tag; repeat it for several."""
    trashed: bool = False
    """What is in the trash."""
    order: Literal["newest", "oldest", "largest", "title"] = "newest"
    """What comes first."""
    limit: Annotated[int, Field(ge=1, le=100_000)] = 30
    """How many."""
    offset: Annotated[int, Field(ge=0)] = 0
    """So many are left out at the beginning."""


class ShowRequest(LibraryRequest):
    """Shows all that is known of a thing: how it was made, and the command that makes it again."""

    thing: Number
    """Its number."""


class TagRequest(LibraryRequest):
    """Gives a thing tags, or takes some away."""

    thing: Number
    """Its number."""
    add: tuple[str, ...] = ()
    """A tag to give it; repeat it for several."""
    remove: tuple[str, ...] = ()
    """A tag to take away; repeat it for several."""
    title: str | None = None
    """Another title as well."""


class TrashRequest(LibraryRequest):
    """Moves things into the trash, with all that belongs to them; `studio library restore` puts them back."""

    things: Numbers
    """Their numbers."""


class RestoreRequest(LibraryRequest):
    """Puts things back from the trash to where they were."""

    things: Numbers
    """Their numbers, from `studio library list --trashed`."""


class EmptyRequest(LibraryRequest):
    """Deletes what is in the trash for good; there is no way back."""

    things: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Positional()] = ()
    """Only these, from `studio library list --trashed`; by default all."""
    yes: bool = False
    """Says that this is meant; without it nothing is deleted."""


class RescanRequest(LibraryRequest):
    """Looks for files that were added, changed or taken away outside of the studio."""


class UsageRequest(LibraryRequest):
    """Shows how much of the disk each kind of thing takes."""


def _library(request: LibraryRequest) -> "Library":
    from studio.jobs import Queue
    from studio.library import Library
    from studio.settings import studio_settings

    library = Library(Queue(request.root, request.database), studio_settings().model_folders)
    if library.scanned_at() is None:
        library.rescan()
    return library


def _line(thing: "Thing") -> str:
    from studio.library.shown import card_line, size_text

    tags = f"  [{', '.join(thing.tags)}]" if thing.tags else ""
    return f"{thing.id:>6}  {thing.kind:<9}  {size_text(thing.bytes):>8}  {thing.title}  {card_line(thing)}{tags}"


def run_list(request: ListRequest, console: Console) -> Result:
    """Prints a line a thing."""
    library = _library(request)
    text = " ".join(request.text)
    things = library.search(text, kinds=request.kind, tags=request.tag, trashed=request.trashed, order=request.order,
                            limit=request.limit, offset=request.offset)  # fmt: skip
    total = library.count(text, kinds=request.kind, tags=request.tag, trashed=request.trashed)
    for thing in things:
        console.say(_line(thing))
    if not things:
        console.say("nothing found; `studio library rescan` looks for files that were added outside of the studio")
    elif total > request.offset + len(things):
        console.say(f"... and {total - request.offset - len(things)} more (--limit, --offset)")
    return {"things": [thing.as_dict() for thing in things], "total": total}


def run_show(request: ShowRequest, console: Console) -> Result:
    """Prints all that is known of a thing."""
    from studio.library.provenance import provenance

    library = _library(request)
    thing = library.thing(request.thing)
    told = provenance(thing, library.queue)
    console.say(_line(thing))
    for name, value in told.rows:
        console.say(f"  {name}: {value}")
    for note in told.notes:
        console.say(f"  note: {note}")
    if told.command:
        console.say(f"again: {told.command}")
    return {**thing.as_dict(), "provenance": dict(told.rows), "command": told.command, "notes": list(told.notes)}


def run_tag(request: TagRequest, console: Console) -> Result:
    """Changes tags and title."""
    library = _library(request)
    thing = library.thing(request.thing)
    known, without = set(thing.tags), {tag.casefold() for tag in request.remove}
    if missing := without - known:
        raise RequestError(
            f"--remove {min(missing)}: {thing.title} has no such tag; it has {', '.join(known) or 'none'}"
        )
    if request.add or request.remove:
        thing = library.set_tags(thing.id, [*(known - without), *request.add])
    if request.title is not None:
        thing = library.rename(thing.id, request.title)
    console.say(_line(thing))
    return thing.as_dict()


def run_trash(request: TrashRequest, console: Console) -> Result:
    """Moves things into the trash."""
    from studio.library.trash import put_in_trash

    things = put_in_trash(_library(request), request.things)
    for thing in things:
        console.say(f"{thing.title} is in the trash; studio library restore {thing.id} puts it back")
    return {"things": [thing.as_dict() for thing in things]}


def run_restore(request: RestoreRequest, console: Console) -> Result:
    """Puts things back."""
    from studio.library.trash import restore

    library = _library(request)
    things = [restore(library, number) for number in request.things]
    for thing in things:
        console.say(f"{thing.title} is back in {thing.place}")
    return {"things": [thing.as_dict() for thing in things]}


def run_empty(request: EmptyRequest, console: Console) -> Result:
    """Deletes for good."""
    from studio.library.shown import size_text
    from studio.library.trash import empty

    library = _library(request)
    if not request.yes:
        count = len(request.things) or library.count(trashed=True)
        raise RequestError(f"{count} things would be deleted for good; say --yes if that is meant")
    count, size = empty(library, request.things or None)
    console.say(f"{count} things are deleted, {size_text(size)} are free")
    return {"things": count, "bytes": size}


def run_rescan(request: RescanRequest, console: Console) -> Result:
    """Looks at all files."""
    from dataclasses import asdict

    found = _library(request).rescan()
    console.say(
        f"{found.seen} things: {found.new} new, {found.changed} changed, {found.gone} gone; {found.seconds:.1f} s"
    )
    return asdict(found)


def run_usage(request: UsageRequest, console: Console) -> Result:
    """Prints a line a kind."""
    from studio.library.shown import size_text

    use = _library(request).usage()
    for row in use:
        console.say(f"{row.kind:<9}  {row.things:>7,}  {size_text(row.bytes):>9}")
    return {"use": {row.kind: {"things": row.things, "bytes": row.bytes} for row in use}}


VERBS = (
    Verb("library list", ListRequest, run_list), Verb("library show", ShowRequest, run_show),
    Verb("library tag", TagRequest, run_tag), Verb("library trash", TrashRequest, run_trash),
    Verb("library restore", RestoreRequest, run_restore), Verb("library empty", EmptyRequest, run_empty),
    Verb("library rescan", RescanRequest, run_rescan), Verb("library usage", UsageRequest, run_usage),
)  # fmt: skip
