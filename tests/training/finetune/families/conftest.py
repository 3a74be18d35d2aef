"""One folder a kind, made when it is first asked for."""

import pytest

from . import makers


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory):
    """Gives the folder of a kind's tiny pipeline."""
    made = {}

    def folder(name):
        if name not in made:
            make = {**makers.PICTURES, **makers.CLIPS}[name]
            made[name] = makers.save(make, tmp_path_factory.mktemp("kinds") / name)
        return made[name]

    return folder


@pytest.fixture(params=[*makers.PICTURES, *makers.CLIPS])
def kind(request):
    """Every kind's name."""
    return request.param


@pytest.fixture
def family(kind, folder_of):
    """A family as it comes from disk."""
    from training.finetune.families import open_family

    return open_family(folder_of(kind))
