"""Ledgers: exact, whole lines only, and who holds which trial."""

import json
import math
import subprocess
import sys
import textwrap
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from training.owners import this_worker
from training.search.entries import Asked, Budget, Finished, LedgerError, Measured, Taken, from_json, to_json
from training.search.leases import heartbeat, is_free
from training.search.ledger import open_ledger
from training.search.space import Candidate, Choice, LogUniform, Space
from training.search.trial import Point


def asked(number=0, **values):
    candidate = Candidate(mask=(True, False), values={"learning_rate": 0.1 + 0.2, "rank": 4, "kind": "a", **values})
    return Asked(trial=number, candidate=candidate, why="strategy", worker="w", at=1.5)


def test_entries_come_back_exactly(toy):
    space = Space(sites=("a", "b"), numbers={"x": LogUniform(low=1e-5, high=1 / 3), "y": Choice(options=(1, 2.0, "c"))})
    point = Point(step=3, quality=0.1, copying=1e-17, metrics={"kd": 2 / 3}, path="trial-0/a.safetensors")
    entries = [
        toy.header(space=space, budget=Budget(steps=5, steps_each=2), limit=0.1, fingerprint={"data": "x"}),
        asked(),
        Taken(trial=0, worker="v", died=True, at=2.5),
        Measured(trial=0, point=point),
        Finished(trial=0, outcome="complete", steps=3, seconds=0.5, at=3.0),
    ]
    again = [from_json(json.loads(json.dumps(to_json(entry), allow_nan=False))) for entry in entries]
    assert again == entries
    assert [type(v) for v in again[1].candidate.values.values()] == [float, int, str]
    assert again[1].candidate.key == entries[1].candidate.key


def test_what_is_not_finite_is_null_and_comes_back_as_nan():
    entry = Measured(trial=0, point=Point(step=1, quality=math.inf, copying=0.5, metrics={"a": math.nan}))
    written = to_json(entry)
    assert written["point"]["quality"] is None and written["point"]["metrics"] == {"a": None}
    again = from_json(written).point
    assert math.isnan(again.quality) and math.isnan(again.metrics["a"]) and not again.competes


def test_a_line_that_a_killed_process_left_half_written_never_was(tmp_path):
    with closing(open_ledger(tmp_path)) as ledger:
        ledger.append(asked(0))
        whole = (tmp_path / "ledger.jsonl").read_bytes()
        with (tmp_path / "ledger.jsonl").open("ab") as file:
            file.write(whole[:40])
        entries, offset = ledger.read()
        assert entries == [asked(0)] and offset == len(whole)
        ledger.append(asked(1))
        assert ledger.read(offset)[0] == [asked(1)]
        assert ledger.read()[0] == [asked(0), asked(1)]


@pytest.mark.parametrize("line", ["{", "[]", '{"entry": "question"}', '{"entry": "asked", "trial": 1}'])
def test_a_damaged_line_is_named(tmp_path, line):
    with closing(open_ledger(tmp_path)) as ledger:
        ledger.append(asked(0))
        with (tmp_path / "ledger.jsonl").open("a") as file:
            file.write(line + "\n")
        with pytest.raises(LedgerError, match=r"ledger\.jsonl, line 2"):
            ledger.read()


def test_a_ledger_that_begins_with_something_else_is_no_study(tmp_path):
    from training.search.study import open_study

    with closing(open_ledger(tmp_path)) as ledger:
        ledger.append(asked(0))
    with pytest.raises(LedgerError, match="does not"):
        open_study(tmp_path)


@pytest.mark.parametrize(
    ("storage", "told"),
    [
        ("mysql://host/study", "must be sqlite"),
        ("study.db", "must be sqlite"),
        ("sqlite://", "name a file"),
        ("sqlite:////nowhere/at/all/study.db", "cannot be used"),
        ("sqlite:////tmp/there-is-no-such.db", "holds no study"),
    ],
)
def test_a_wrong_storage_is_told(tmp_path, storage, told):
    with pytest.raises(LedgerError, match=told):
        open_ledger(tmp_path, storage, study="toy" if "nowhere" in storage else None).append(asked(0))


def test_a_missing_driver_is_told_with_its_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(LedgerError, match=r"//me:\*\*\*@host.*pip install 'animatex-studio\[postgres\]'"):
        open_ledger(tmp_path, "postgresql://me:secret@host/studies", study="toy")


def test_a_database_holds_several_studies_by_name(toy, tmp_path):
    from training.search.study import open_study

    storage = f"sqlite:///{tmp_path}/all.db"
    for name in ("one", "two"):
        with closing(open_ledger(tmp_path, storage, study=name)) as ledger:
            ledger.append(toy.header(name=name))
        if name == "one":
            assert open_study(tmp_path, storage).header.name == "one"
    assert open_study(tmp_path, storage, name="two").header.name == "two"
    with pytest.raises(LedgerError, match="2 studies, one, two: name one"):
        open_study(tmp_path, storage)


@pytest.fixture(params=["file", "sqlite"])
def ledger(request, tmp_path):
    storage = f"sqlite:///{tmp_path}/study.db" if request.param == "sqlite" else None
    with closing(open_ledger(tmp_path, storage, study="toy")) as found:
        yield found


def take(ledger, owner):
    with ledger.exclusive():
        ledger.leases.take(0, owner)


def test_a_lease_is_free_when_its_owner_is_dead_silent_or_has_given_it_back(ledger):
    owner = this_worker()
    assert is_free(ledger.leases, 0, expiry_s=60)
    take(ledger, owner)
    assert not is_free(ledger.leases, 0, expiry_s=60)
    time.sleep(0.02)
    assert is_free(ledger.leases, 0, expiry_s=0.01)
    ledger.leases.beat(0, owner)
    assert not is_free(ledger.leases, 0, expiry_s=60)
    ledger.leases.release(0, this_worker())
    assert not is_free(ledger.leases, 0, expiry_s=60)
    ledger.leases.release(0, owner)
    assert ledger.leases.owner(0) is None


def test_the_death_of_a_process_on_this_machine_is_seen_at_once(ledger):
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    # the same number may be another process by now, so the time of its birth counts
    for gone in (replace(this_worker(), pid=done.pid), replace(this_worker(), born="1")):
        take(ledger, gone)
        assert is_free(ledger.leases, 0, expiry_s=60)
    take(ledger, replace(this_worker(), pid=done.pid, machine="another"))
    assert not is_free(ledger.leases, 0, expiry_s=60)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="threads are told by /proc")
def test_a_killed_process_is_not_dead_before_all_of_its_threads_are(ledger):
    """Until then its files are open and its locks held. Here the first thread ends, as a kill may end it first."""
    program = """
        import ctypes, threading, time
        threading.Thread(target=time.sleep, args=(200,)).start()
        ctypes.CDLL(None).pthread_exit(None)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)])
    stat = Path(f"/proc/{process.pid}/stat")
    try:
        end = time.monotonic() + 60
        while (fields := stat.read_text().rpartition(")")[2].split())[0] != "Z":
            assert time.monotonic() < end
            time.sleep(0.01)
        take(ledger, replace(this_worker(), pid=process.pid, born=fields[19]))
        assert not is_free(ledger.leases, 0, expiry_s=60)
    finally:
        process.kill()
        process.wait()
    assert is_free(ledger.leases, 0, expiry_s=60)


def test_a_heartbeat_keeps_a_lease_and_gives_it_back_but_not_anothers(ledger):
    mine, other = this_worker(), this_worker()
    take(ledger, mine)
    with heartbeat(ledger.leases, 0, mine, every_s=0.02):
        time.sleep(0.3)
        # one that is not beaten stays free from now on; a beat may come late where the machine is busy
        end = time.monotonic() + 20
        while is_free(ledger.leases, 0, expiry_s=0.25):
            assert time.monotonic() < end
        take(ledger, other)
    assert ledger.leases.owner(0)[0] == other


def test_one_process_at_a_time_adds_to_a_ledger(ledger, processes, tmp_path):
    storage = None if ledger.place.endswith(".jsonl") else f"sqlite:///{tmp_path}/study.db"
    processes("add", tmp_path, storage, workers=3, times=15)
    assert [entry.trial for entry in ledger.read()[0]] == list(range(45))
