"""The model card tells what the runs did."""

import json


def events(path, steps, total, **metrics):
    rows = [
        {"event": "step", "step": k + 1, "total_steps": total, "seconds": 2.0, "peak_bytes": 2**30}
        for k in range(steps)
    ]
    rows.append({"event": "evaluated", "step": steps, "metrics": metrics})
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return path


def test_the_card_has_steps_minutes_metrics_and_the_command(tmp_path):
    from training.recipes.card import write_card

    log = events(tmp_path / "events.jsonl", 90, 90, psnr_db=25.5)
    write_card(tmp_path, "mini-codec", {}, log, "studio train --recipe mini-codec")
    text = (tmp_path / "README.md").read_text()
    assert "    studio train --recipe mini-codec\n" in text
    assert "90 steps in 3 minutes" in text
    assert "| psnr_db | 25.5 |" in text


def test_a_run_that_went_on_from_another_tells_of_both_and_of_where_it_stopped(tmp_path):
    from training.recipes.card import write_card

    first, second = tmp_path / "first", tmp_path / "second"
    write_card(first, "mini-codec", {}, events(tmp_path / "a", 60, 100, psnr_db=20.0), "the first command")
    write_card(
        second, "mini-codec", {}, events(tmp_path / "b", 30, 30, psnr_db=22.0), "the second command", before=first
    )
    text = (second / "README.md").read_text()
    assert (
        text.index("the first command")
        < text.index("60 steps (stopped there, of 100)")
        < text.index("the second command")
    )


def test_parts_of_other_recipes_stay_on_the_card(tmp_path):
    from training.recipes.card import write_card

    write_card(tmp_path, "mini-clip", {}, events(tmp_path / "a", 1, 1, top1=0.5), "one")
    write_card(tmp_path, "mini-pose", {}, events(tmp_path / "b", 1, 1, pck=0.9), "two")
    text = (tmp_path / "README.md").read_text()
    assert text.index("## mini-clip") < text.index("## mini-pose")
