"""Videos and variants side by side; tables to paste."""

import numpy as np
import pytest

from studio.cli.run import check_words
from studio.compare_form import base_toml, cells_of, compare_words, csv_of, find_comparisons, latex_of, numbers_of
from studio.errors import RequestError
from studio.side_by_side import MOST_FRAMES, in_step, look_at, measure, psnr_of, ssim_of
from studio.side_sets import (
    Side,
    Variant,
    check_variants,
    find_adapters,
    read_seeds,
    save_side,
    side_words,
    sides,
)

TABLE = "| method | trained | KD |\n| --- | ---: | ---: |\n| lora_1 | 1,024 | 0.5000 |\n| full (failed) |  |  |"


def test_a_video_says_what_it_is(make_video, tmp_path):
    clip = look_at(make_video(tmp_path / "a.mp4", frames=12, rate=12))
    assert (clip.fps, clip.frames, clip.width, clip.height, clip.mime) == (12.0, 12, 64, 48, "video/mp4")


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.mp4", b"nothing", "no video that can be read"),
        ("a.exe", b"MZ", "browsers do not play .exe"),
        ("b.mp4", None, "is not there any more"),
    ],
)
def test_what_cannot_be_played_is_told(tmp_path, name, content, told):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(RequestError, match=told):
        look_at(tmp_path / name)


def test_videos_in_step_take_the_finest_rate_and_the_shortest_time(make_video, tmp_path):
    one = look_at(make_video(tmp_path / "a.mp4", frames=24, rate=12))
    two = look_at(make_video(tmp_path / "b.mp4", frames=24, rate=24))
    assert in_step([one, two]) == (24.0, 24)
    assert in_step([one]) == (12.0, 24)


def test_psnr_and_ssim_are_as_they_are_defined():
    grey = np.full((32, 32, 3), 100, np.uint8)
    assert psnr_of(grey, grey) == 100 and ssim_of(grey, grey) == pytest.approx(1)
    assert psnr_of(grey, grey + 10) == pytest.approx(10 * np.log10(255**2 / 100))
    # of two even pictures only the term of the means is left
    c1 = (0.01 * 255) ** 2
    assert ssim_of(grey, grey + 10) == pytest.approx((2 * 100 * 110 + c1) / (100**2 + 110**2 + c1))
    noise = np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)
    assert ssim_of(noise, np.roll(noise, 9, 0)) < 0.2


def test_two_videos_are_measured_frame_by_frame(make_video, tmp_path):
    one = look_at(make_video(tmp_path / "a.mp4"))
    two = look_at(make_video(tmp_path / "b.mp4", first=10))
    same, shifted = measure(one, one), measure(one, two)
    assert same.frames == tuple(range(12)) and min(same.psnr) == 100 and min(same.ssim) == pytest.approx(1)
    assert shifted.size == (64, 48) and 27 < np.mean(shifted.psnr) < 29.5


def test_long_videos_are_measured_at_frames_evenly_taken(make_video, tmp_path):
    clip = look_at(make_video(tmp_path / "a.mp4", frames=300, rate=30, size=(32, 32)))
    found = measure(clip, clip)
    assert len(found.frames) == MOST_FRAMES and (found.frames[0], found.frames[-1]) == (0, 299)


def test_videos_of_other_rates_or_shapes_are_not_laid_over_each_other(make_video, tmp_path):
    one = look_at(make_video(tmp_path / "a.mp4"))
    with pytest.raises(RequestError, match="the rates differ, 12 and 24"):
        measure(one, look_at(make_video(tmp_path / "b.mp4", rate=24)))
    with pytest.raises(RequestError, match="the shapes differ"):
        measure(one, look_at(make_video(tmp_path / "c.mp4", size=(48, 64))))


# --- variants -----------------------------------------------------------------------------------------------------


def test_seeds_are_read_with_commas_and_ranges():
    assert read_seeds("0, 7 3-5") == (0, 7, 3, 4, 5)


@pytest.mark.parametrize("text", ["", "x", "-1", "0-900", "1,2,3,4,5,6,7,8,9", "5-3", "0-" + "9" * 30])
def test_wrong_seeds_are_refused(text):
    with pytest.raises(RequestError, match="seeds"):
        read_seeds(text)


def test_variants_must_be_two_different_ones_that_are_there(tmp_path):
    file = tmp_path / "a.safetensors"
    file.write_bytes(b"x")
    base, one = Variant(label="base"), Variant(label="one", adapter=str(file))
    check_variants([base, one, Variant(label="half", adapter=str(file), scale=0.5)])
    for wrong, told in (
        ([base], "choose 2 to 4"),
        ([base, base], "are the same"),
        ([base, Variant(label="gone", adapter=str(tmp_path / "b"))], "not there any more"),
    ):
        with pytest.raises(RequestError, match=told):
            check_variants(wrong)


def test_a_variant_becomes_a_command_with_its_adapter_and_seed(tmp_path):
    variant = Variant(label="half", adapter="/a.safetensors", scale=0.5)
    words = side_words({"reference": "juice-box", "driving": "wave"}, variant, 7, tmp_path)
    check_words(words)
    assert "--adapter=/a.safetensors:0.5" in words and "--seed=7" in words


def test_what_was_rendered_side_by_side_is_found_again(tmp_path):
    side = Side(
        name="a",
        reference="juice-box",
        driving="wave",
        prompt="",
        seeds=(0, 1),
        made=3.0,
        variants=(Variant(label="base"), Variant(label="x", adapter="/x", scale=2.0)),
        jobs=((1, 2), (3, 4)),
    )
    path = save_side(tmp_path, side)
    (path.parent / "broken.json").write_text("{}")
    assert sides(tmp_path) == [side]


def test_adapters_are_found_in_runs_fronts_and_uploads(tmp_path):
    for name in ("one/adapter.safetensors", "compared/lora/adapter.safetensors", "uploads/mine.safetensors"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "study").mkdir()
    (tmp_path / "study/front.json").write_text(
        '{"front": [{"name": "1:2", "adapter": "trial-1/step-2.safetensors"}, {"name": "0:0", "adapter": null},'
        ' {"name": "9:9", "adapter": "../../etc/passwd"}]}'
    )
    assert set(find_adapters([tmp_path])) == {"one", "compared/lora", "uploads/mine", "study 1:2"}


# --- methods ------------------------------------------------------------------------------------------------------


def test_a_comparison_becomes_a_command(tmp_path):
    words = compare_words(tmp_path / "run.toml", ["lora@0.001", "sara"], {"samples": 8, "output_dir": tmp_path / "out"})
    check_words(words)
    assert "--methods=lora@0.001,sara" in words
    with pytest.raises(RequestError, match="choose a method"):
        compare_words(tmp_path / "run.toml", [], {})


def test_steps_and_seed_are_the_same_for_all():
    text = base_toml({"max_train_steps": 5, "search": {"samples": 16}, "data": [{"folder": "/x"}]}, steps=9, seed=3)
    assert "max_train_steps = 9" in text and "seed = 3" in text and "search" not in text


def test_a_table_is_ready_to_paste_in_every_form():
    head, rows = cells_of(TABLE)
    assert head == ["method", "trained", "KD"] and rows[1] == ["full (failed)", "", ""]
    assert numbers_of(head, rows)[0] == {"method": "lora_1", "trained": 1024.0, "KD": 0.5}
    assert csv_of(head, rows).splitlines()[1] == "lora_1,1024,0.5000"
    latex = latex_of(head, rows)
    assert r"lora\_1 & 1,024 & 0.5000 \\" in latex and latex.count("\n") == 8


def test_comparisons_are_found_before_they_have_a_table(tmp_path):
    from studio.jobs import Queue

    (tmp_path / "old").mkdir()
    (tmp_path / "old/comparison.json").write_text("{}")
    queue = Queue(tmp_path / "runs")
    job = queue.submit(["compare", "run.toml", f"--output-dir={tmp_path / 'new'}"])
    assert set(find_comparisons([tmp_path], [job])) == {(tmp_path / "old").resolve(), (tmp_path / "new").resolve()}
