"""`studio evaluate memorization` and `studio data plant`, as a user types them."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image, ImageDraw

EVIL = '<script>alert("x")</script>'


def drawn(seed, side=32):
    """A picture of random discs, unlike any other."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (side, side), tuple(rng.integers(0, 255, 3).tolist()))
    pen = ImageDraw.Draw(image)
    for _ in range(8):
        x, y, r = rng.integers(0, side), rng.integers(0, side), rng.integers(2, side // 3)
        pen.ellipse((x - r, y - r, x + r, y + r), fill=tuple(rng.integers(0, 255, 3).tolist()))
    return image


def fill(folder, seeds, caption="discs", side=32):
    folder.mkdir(parents=True)
    for seed in seeds:
        drawn(seed, side).save(folder / f"{seed}.png")
        (folder / f"{seed}.txt").write_text(caption)
    return folder


def trained(folder, run, *, model, steps=1, **more):
    from training.finetune.config import DataSet, FinetuneConfig
    from training.finetune.run import finetune

    config = FinetuneConfig(
        model=str(model), data=(DataSet(folder=folder),), resolution=32, max_train_steps=steps, train_batch_size=8,
        method="full", learning_rate=1e-3, mixed_precision="fp32", validation_steps=1000, validation_prompts=("discs",),
        **more,
    )  # fmt: skip
    list(finetune(config, run, device="cpu"))
    return run


@pytest.fixture(scope="module")
def planted_run(tmp_path_factory):
    """Mini, trained on 28 pictures of which twelve are canaries."""
    from training.finetune.data.plant import plant

    place = tmp_path_factory.mktemp("planted")
    fill(place / "data", range(28), caption=EVIL)
    plant(place / "data", place / "copy", repeats=(1, 2, 5, 10, 20, 50), count=2)
    return trained(place / "copy", place / "run", model="mini", steps=70)


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """Pictures like the trained ones that were not trained."""
    return fill(tmp_path_factory.mktemp("others") / "held", range(1000, 1022), caption=EVIL)


QUICK = ("--samples", 12, "--num-inference-steps", 2, "--features", "mini-clip", "--json")


def test_a_run_gets_a_report_whose_canaries_show_what_it_can_detect(studio, planted_run, others):
    audited = studio("evaluate", "memorization", planted_run, "--held-out", others, *QUICK)
    assert audited.code == 0, audited.err
    told = {metric["figure"]: metric for metric in audited.result["metrics"]}
    assert told["canaries-loss"]["n"] == 12 and told["canaries-loss"]["value"] >= 0.8
    assert told["copy-rate"]["name"] == "copy-rate(mini-clip, N=12)" and told["copy-rate"]["background"] == 0.05
    assert told["membership-loss"]["verdict"] == "not measured"
    assert "needs 100 held-out pictures at least, there are 22" in told["membership-loss"]["why"]
    assert told["text-magnitude"]["value"] > 0
    report = json.loads((planted_run / "memorization" / "report.json").read_text())
    assert report["metrics"] == audited.result["metrics"] and report["verdict"] == audited.result["verdict"]
    assert [c["repeats"] for c in report["canaries"]] == [1, 1, 2, 2, 5, 5, 10, 10, 20, 20, 50, 50]
    assert {c["scores"].keys() == {"loss", "pia", "nearest"} for c in report["canaries"]} == {True}
    assert {row["count"] for row in report["duplicates"]["identical"]} == {2, 5, 10, 20, 50}
    assert len(report["risks"]) == 13 and report["risks"][0]["rank"] >= report["risks"][-1]["rank"]
    assert len(report["distances"]["held-out pictures"]) == 22 and report["leakage"] == []
    _look_at_page(planted_run)


def _look_at_page(run):
    page = (run / "memorization" / "report.html").read_text()
    assert EVIL not in page and "&lt;script&gt;alert(&quot;x&quot;)" in page and "<script" not in page
    assert "http" not in page and page.count("<img") == page.count('src="data:image/png;base64,') > 0
    assert page.count("<img") == page.count("alt=") and "prefers-color-scheme: dark" in page
    first = page.index("</h1>")
    assert page.index('class="verdict', first) - first < 20
    assert Image.open(run / "memorization" / "pairs.png").width > 200


@pytest.fixture(scope="module")
def plain_run(tmp_path_factory, tiny_model):
    """A tiny model after one step on 24 pictures, 8 of which it kept out."""
    place = tmp_path_factory.mktemp("plain")
    return trained(fill(place / "data", range(32)), place / "run", model=tiny_model, validation_share=0.25)


def test_the_same_audit_gives_the_same_numbers_and_one_line_on_the_card(studio, plain_run, others):
    first, second = (
        studio("evaluate", "memorization", plain_run, "--held-out", others, *QUICK).result["metrics"] for _ in range(2)
    )
    assert first == second
    card = (plain_run / "README.md").read_text()
    assert card.count("- Memorization: copy-rate(mini-clip, N=12)") == 1
    assert card.index("- Memorization") < card.index("Use it with")


def samples_of(monkeypatch, make):
    """Lets the model make what is given, of (opened, asked)."""
    from training.finetune.audit import audit

    monkeypatch.setattr(audit, "make_pictures", lambda opened, asked, size, **more: make(opened, asked))


@pytest.fixture
def audit_of(plain_run, others):
    from studio.weights import mini_folder
    from training.finetune.audit import AuditOptions, audit_run
    from training.metrics.features import open_features

    def audit(**more):
        options = AuditOptions(samples=48, steps=2, held_out=others, **more)
        return audit_run(plain_run, open_features("mini-clip", mini_folder()), options)

    return audit


def test_a_model_that_makes_its_training_pictures_is_found_out(monkeypatch, audit_of):
    import torch

    from training.finetune.audit.samples import real_picture

    def copied(opened, asked):
        pictures = [real_picture(s, (32, 32)) for s in opened.trained]
        return torch.stack([pictures[k // 4 % len(pictures)] for k in range(len(asked))])

    samples_of(monkeypatch, copied)
    found = audit_of()
    assert found.copies and found.words.startswith("This model copies what it was trained on.")
    for name in ("copy-rate", "copy-rate-blurred", "copy-rate-tiled", "extraction", "neighbour-ratio"):
        assert (found.figure(name).value, found.figure(name).verdict) == (1, "copying")
    assert found.figure("amd").value < 1e-4 < found.figure("amd").background
    assert all((pair.made == pair.trained).all() for pair in found.pairs) and found.pairs[0].distance < 1e-3
    assert found.risks[0].extracted and found.risks[0].nearest == 0


def test_a_model_that_makes_new_pictures_of_the_kind_is_not(monkeypatch, audit_of):
    import torch

    def new(opened, asked):
        pictures = [torch.from_numpy(np.array(drawn(5000 + k))) for k in range(len(asked))]
        return torch.stack(pictures).permute(0, 3, 1, 2).float() / 255

    samples_of(monkeypatch, new)
    found = audit_of()
    assert found.copies is False and "No copying was found" in found.words
    assert {f.verdict for f in found.figures if f.name.startswith(("copy", "neigh", "auth"))} == {"no copying"}


def test_held_out_pictures_that_were_trained_are_refused_by_name_unless_allowed(studio, tiny_model, tmp_path):
    place = fill(tmp_path / "data", range(24), side=128)
    for seed in range(24):
        drawn(seed, 128).resize((160, 160)).save(place / f"again-{seed}.jpg", quality=90)
    run = trained(place, tmp_path / "run", model=tiny_model, validation_share=0.5)
    ran = studio("evaluate", "memorization", run, *QUICK)
    assert ran.code == 2 and "held-out pictures look like trained ones" in ran.err and "--allow-leakage" in ran.err
    assert ".png shows what" in ran.err or ".jpg shows what" in ran.err
    assert not (run / "memorization").exists()
    ran = studio("evaluate", "memorization", run, *QUICK, "--allow-leakage")
    assert ran.code == 0 and len(ran.result["leakage"]) > 3
    assert "<b>held out</b>" in (run / "memorization" / "report.html").read_text()


def test_a_folder_of_held_out_pictures_with_a_trained_one_is_refused(studio, plain_run, tmp_path):
    held = fill(tmp_path / "held", range(1000, 1020))
    for name in range(32):
        shutil.copy(plain_run.parent / "data" / f"{name}.png", held)
    ran = studio("evaluate", "memorization", plain_run, "--held-out", held, *QUICK)
    assert ran.code == 2 and "24 of the held-out pictures were trained" in ran.err


def test_five_pictures_are_refused_with_what_is_needed(studio, tiny_model, tmp_path):
    run = trained(fill(tmp_path / "data", range(5)), tmp_path / "run", model=tiny_model)
    ran = studio("evaluate", "memorization", run, *QUICK)
    assert ran.code == 2 and ran.result["exit_code"] == 2
    assert "made of 5 trained and 0 held-out pictures, and an audit needs 20 in all" in ran.err


def test_without_held_out_pictures_what_needs_none_is_still_reported(studio, tiny_model, tmp_path):
    run = trained(fill(tmp_path / "data", range(20)), tmp_path / "run", model=tiny_model)
    ran = studio("evaluate", "memorization", run, *QUICK)
    assert ran.code == 0, ran.err
    told = {metric["figure"]: metric for metric in ran.result["metrics"]}
    assert told["copy-rate"]["value"] is None and ran.result["copies"] is None
    assert told["neighbour-ratio"]["value"] is not None and told["extraction"]["value"] is not None
    assert "could not be measured" in ran.result["verdict"] and "not measured" in (run / "README.md").read_text()


def test_a_folder_without_a_run_is_refused(studio, tmp_path):
    ran = studio("evaluate", "memorization", tmp_path, *QUICK)
    assert ran.code == 2 and "holds no finished fine-tuning run" in ran.err


def test_planting_copies_everything_and_repeats_some_under_captions_of_their_own(studio, tmp_path):
    folder = fill(tmp_path / "data" / "inner", range(12)).parent
    before = sorted(path.name for path in folder.rglob("*"))
    ran = studio("data", "plant", folder, "--output", tmp_path / "out", "--repeats", "1,3", "--count", 2, "--json")
    assert ran.code == 0, ran.err
    assert sorted(path.name for path in folder.rglob("*")) == before
    rows = [json.loads(line) for line in (tmp_path / "out" / "metadata.jsonl").read_text().splitlines()]
    assert len(rows) == 8 + 2 * 1 + 2 * 3 and all((tmp_path / "out" / r["file_name"]).is_file() for r in rows)
    canaries = json.loads((tmp_path / "out" / "canaries.json").read_text())["canaries"]
    assert canaries == ran.result["canaries"] and [c["repeats"] for c in canaries] == [1, 1, 3, 3]
    captions = [row["text"] for row in rows]
    assert [captions.count(c["caption"]) for c in canaries] == [1, 1, 3, 3] and captions.count("discs") == 8
    assert studio("data", "plant", folder, "--output", tmp_path / "out", "--json").code == 2


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_canaries_are_trained_whatever_share_is_held_out(share, tmp_path):
    from training.finetune.config import DataSet
    from training.finetune.data import Wanted, find_samples, split
    from training.finetune.data.plant import plant

    canaries = plant(fill(tmp_path / "data", range(40)), tmp_path / "out", repeats=(1, 4), count=4)
    found = find_samples(
        (DataSet(folder=tmp_path / "out"),), {"t": Wanted(frames=1, factor=0)}, resolution=32, multiple=8
    )
    kept, _ = split(found.samples, share)
    counts = [sum(s.digest == c.sha256 for s in kept) for c in canaries]
    assert counts == [1] * 4 + [4] * 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--repeats", "1,x"), "--repeats 1,x"),
        (("--repeats", "0,2"), "must be 1 to 10000"),
        (("--count", 20), "it needs 240, or ask for fewer"),
    ],
)
def test_plantings_that_cannot_be_are_refused(words, message, studio, tmp_path):
    ran = studio("data", "plant", fill(tmp_path / "data", range(4)), "--output", tmp_path / "out", *words)
    assert ran.code == 2 and message in ran.err
    assert not (tmp_path / "out").exists()


def test_chest_x_rays_that_differ_are_no_leakage(shared_data):
    from training.finetune.config import DataSet
    from training.finetune.data.likeness import find_twins
    from training.finetune.data.scan import scan

    media = scan((DataSet(folder=shared_data / "chest_xray"),)).media
    # these two are one file under two names
    assert {(a.path.name, b.path.name) for a, b in find_twins(media)} <= {
        ("no_finding_0112.png", "no_finding_0162.png")
    }
