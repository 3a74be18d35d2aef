"""A study as the Search page shows it."""

import json
import subprocess
import sys

import pytest

from studio.errors import RequestError
from studio.studies import Place, find_places, jobs_of
from studio.study_view import NO_LIMIT, learn_rate, left_of, open_place, point_of, view_of

TRIALS = [
    ("0000", [(0, 0.9, 0.05)]),
    ("1111", [(10, 0.5, 0.2), (20, 0.2, 0.45)]),
    ("1010", [(10, 0.4, 0.06), (20, 0.3, 0.10)]),
    ("0001", []),
]


@pytest.fixture
def place(make_study, tmp_path):
    return Place(folder=make_study(tmp_path / "runs" / "first", TRIALS))


def test_every_checkpoint_is_a_dot_and_knows_its_role(place):
    dots = {dot.name: dot for dot in view_of(place).dots}
    assert {name: dot.role for name, dot in dots.items()} == {
        "0:0": "front", "1:10": "anchor", "1:20": "front", "2:10": "front", "2:20": "front",
    }  # fmt: skip
    assert (dots["2:10"].share, dots["2:10"].why) == (0.5, "strategy")


def test_a_limit_moves_the_recommended_point(place):
    assert view_of(place, limit=0.07).recommended == "2:10"
    assert view_of(place, limit=0.2).recommended == "2:20"
    assert view_of(place, limit=0.04).recommended is None
    assert view_of(place, limit=NO_LIMIT).recommended == "2:20"  # the knee, not the best quality at any price


def test_the_final_choice_counts_where_it_was_made(place):
    finals = {row.name: {"quality": row.quality, "copying": row.copying} for row in view_of(place).rows}
    finals["2:20"] = {"quality": 0.3, "copying": 0.3}
    (place.folder / "finals.json").write_text(json.dumps(finals))
    assert view_of(place, limit=0.2).recommended == "2:10"
    del finals["2:10"]  # the search's own figure would win by its luck
    (place.folder / "finals.json").write_text(json.dumps(finals))
    assert view_of(place, limit=0.2).recommended == "2:20"
    (place.folder / "finals.json").write_text("{")  # half written
    assert view_of(place, limit=0.2).recommended == "2:20"


def test_what_was_won_rises_with_the_trials(place):
    won = view_of(place).won
    assert [trials for trials, _ in won] == [1, 2, 3, 4]
    # from (1, 0.5): first 0.1 x 0.45, then 0.4 x 0.25 and 0.3 x 0.05 more
    assert won[0][1] == pytest.approx(0.045)
    assert won[1][1] == pytest.approx(0.045 + 0.4 * 0.3 + 0.3 * 0.05)
    assert won[2][1] == won[3][1] > won[1][1]


def test_what_is_used_and_left_counts_finished_trials(make_study, tmp_path):
    view = view_of(Place(folder=make_study(tmp_path / "running", TRIALS[:3], budget=4, running=True)))
    assert view.running == (2,) and view.used == 0.5
    assert left_of(view) == pytest.approx(view.seconds)
    whole = view_of(Place(folder=make_study(tmp_path / "whole", TRIALS, budget=4)))
    assert whole.failed == ((3, "no memory left"),) and whole.used == 1 and left_of(whole) is None


def test_a_point_off_the_front_can_be_looked_at_too(place):
    row = point_of(place, "1:10")
    assert row.sites_on == 4 and row.trained == 4000 and row.adapter == "trial-1/step-10.safetensors"
    with pytest.raises(RequestError, match="no point 9:9"):
        point_of(place, "9:9")


def test_a_folder_without_a_study_and_a_damaged_one_are_told(place, tmp_path):
    with pytest.raises(RequestError, match="holds no study"):
        view_of(Place(folder=tmp_path))
    text = (place.folder / "ledger.jsonl").read_text().splitlines()
    (place.folder / "ledger.jsonl").write_text("\n".join([text[0], '{"entry": "nonsense"}', *text[1:]]) + "\n")
    with pytest.raises(RequestError, match="no entry of a study"):
        view_of(place)


def test_how_fast_a_study_was_tells_how_long_another_takes(place):
    setup = {"config": {"model": "mini", "method": "full"}, "search": {"samples": 4}}
    study = open_place(place)
    rate = learn_rate([(study, setup)], model="mini", method="full")
    assert rate.per_step == pytest.approx(10 / 40) and rate.per_sample == 0.25
    assert rate.seconds(trials=2, steps=100, looks=4, samples=8) == pytest.approx(2 * (25 + 8))
    assert learn_rate([(study, setup)], model="mini", method="lora") is None


def test_studies_are_found_below_the_roots_and_by_their_jobs(place, tmp_path):
    from studio.jobs import Queue

    queue = Queue(tmp_path / "runs")
    words = ["search", "s.toml", f"--output-dir={place.folder}", "--storage=sqlite:///x.db", "--name=one"]
    job = queue.submit(words)
    shown = queue.submit(["search", "show", str(place.folder)])
    (found,) = find_places([tmp_path / "runs"], queue.jobs())
    assert (found.folder, found.storage, found.title) == (place.folder, "sqlite:///x.db", "one")
    assert [one.id for one in jobs_of(found, queue.jobs())] == [job.id] != [shown.id]
    assert find_places([tmp_path / "runs"], []) == [place]


def test_reading_a_study_does_not_load_torch(place):
    code = (
        "import sys; from pathlib import Path; from studio.studies import Place; from studio.study_view import view_of;"
        f"view_of(Place(folder=Path({str(place.folder)!r}))); import studio.search_form;"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
