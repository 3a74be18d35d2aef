"""Workers that are killed, that work side by side, and studies that are moved, in files and in databases."""

import shutil
from contextlib import closing
from dataclasses import replace

import pytest

from training.search.entries import Asked, Budget, Finished, LedgerError, Measured, Taken, to_json
from training.search.ledger import copy_ledger, open_ledger
from training.search.study import open_study


@pytest.fixture(params=["file", "sqlite", "postgres"])
def storage(request, tmp_path):
    """Where ledgers are, each kind."""
    match request.param:
        case "file":
            return None
        case "sqlite":
            return f"sqlite:///{tmp_path}/study.db"
        case _:
            return request.getfixturevalue("postgres")


@pytest.fixture(autouse=True)
def empty(storage):
    """Takes the study of the test before out of the database that all share."""
    if storage is not None and storage.startswith("postgresql"):
        import psycopg

        with psycopg.connect(storage) as connection:
            connection.execute("DROP TABLE IF EXISTS study_ledger, study_leases")


def entries(folder, storage):
    with closing(open_ledger(folder, storage, study="toy")) as ledger:
        return ledger.read()[0]


def without_workers(found):
    """What must be the same whoever worked when."""
    return [
        {k: v for k, v in to_json(entry).items() if k not in ("worker", "at")}
        for entry in found
        if not isinstance(entry, Taken)
    ]


def trained_steps(folder):
    """The steps that were trained in a trial's folder, by all processes together."""
    return [int(line.split()[1]) for line in (folder / "trained.txt").read_text().splitlines()]


@pytest.mark.slow
def test_workers_that_are_killed_again_and_again_leave_the_ledger_of_one_that_never_was(
    processes, storage, tmp_path, toy
):
    times = 24 if storage is None else 6
    killed = processes("kill_often", tmp_path / "killed", storage, times=times, pause_s=0.04)
    processes("work", tmp_path / "straight", None)
    assert killed["amid"] >= min(times, 20), killed
    found = entries(tmp_path / "killed", storage)
    assert killed["reached"] > times // 2 and any(isinstance(entry, Taken) for entry in found)
    assert without_workers(found) == without_workers(entries(tmp_path / "straight", None))
    finished = [entry.trial for entry in found if isinstance(entry, Finished)]
    assert finished == list(range(12))


@pytest.mark.slow
def test_two_workers_share_a_study_and_its_budget(processes, storage, tmp_path, toy):
    processes("work", tmp_path / "study", storage, workers=2, pause_s=0.01)
    found = entries(tmp_path / "study", storage)
    asked = [entry for entry in found if isinstance(entry, Asked) and entry.why != "repeat"]
    assert [entry.trial for entry in asked] == list(range(12))
    assert len({entry.candidate.key for entry in asked}) == 12
    assert len({entry.worker for entry in asked}) == 2
    assert not any(isinstance(entry, Taken) for entry in found)
    finished = [entry for entry in found if isinstance(entry, Finished)]
    assert sorted(entry.trial for entry in finished) == list(range(12))
    assert {entry.outcome for entry in finished} <= {"complete", "stopped"}
    measured = [(entry.trial, entry.point.step) for entry in found if isinstance(entry, Measured)]
    assert len(set(measured)) == len(measured)
    for entry in finished:
        steps = trained_steps(tmp_path / "study" / f"trial-{entry.trial}")
        assert steps == [step for trial, step in measured if trial == entry.trial]


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["file", "postgres"], indirect=True)
def test_pairs_of_workers_that_are_killed_repeat_no_trial(processes, storage, tmp_path):
    processes("kill_often", tmp_path / "study", storage, times=6, pause_s=0.02, workers=2)
    found = entries(tmp_path / "study", storage)
    finished = [entry for entry in found if isinstance(entry, Finished)]
    assert sorted(entry.trial for entry in finished) == list(range(12))
    assert {entry.outcome for entry in finished} <= {"complete", "stopped"}
    measured = [(entry.trial, entry.point.step) for entry in found if isinstance(entry, Measured)]
    assert len(set(measured)) == len(measured)


def test_a_study_can_be_moved_and_gone_on_with(toy, storage, tmp_path):
    from training.search.bilevel import bilevel

    header = toy.header(budget=Budget(trials=6))
    for entry in bilevel(tmp_path / "here", header, toy.inner, storage=storage):
        if isinstance(entry, Measured) and entry.trial == 3:
            break
    shutil.move(tmp_path / "here", tmp_path / "there")
    list(bilevel(tmp_path / "there", header, toy.inner, storage=storage))
    list(bilevel(tmp_path / "straight", header, toy.inner))
    assert without_workers(entries(tmp_path / "there", storage)) == without_workers(
        entries(tmp_path / "straight", None)
    )
    results = open_study(tmp_path / "there", storage).points()
    assert all(result.adapter.is_relative_to(tmp_path / "there") for result in results)


@pytest.mark.parametrize("storage", ["sqlite", "postgres"], indirect=True)
def test_a_study_is_rebuilt_from_its_ledger_alone(toy, storage, tmp_path):
    """Out of a database into a file and back, and then gone on with as if nothing had been."""
    from training.search.bilevel import bilevel

    list(bilevel(tmp_path / "study", toy.header(budget=Budget(trials=4)), toy.inner, storage=storage))
    back = f"sqlite:///{tmp_path}/back.db"
    with (
        closing(open_ledger(tmp_path / "study", storage, study="toy")) as source,
        closing(open_ledger(tmp_path / "file")) as middle,
        closing(open_ledger(tmp_path / "back", back, study="toy")) as target,
    ):
        assert copy_ledger(source, middle) == copy_ledger(middle, target)
        assert source.read()[0] == middle.read()[0] == target.read()[0]
        with pytest.raises(LedgerError, match="holds a study already"):
            copy_ledger(source, middle)
    more = toy.header(budget=Budget(trials=6))
    for folder, where in ((tmp_path / "study", storage), (tmp_path / "back", back)):
        list(bilevel(folder, more, toy.inner, storage=where))
    one, two = open_study(tmp_path / "study", storage), open_study(tmp_path / "back", back)
    assert [replace(t, worker="") for t in one.trials()] == [replace(t, worker="") for t in two.trials()]
    assert one.hypervolume() == two.hypervolume()
