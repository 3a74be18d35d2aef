"""Figures of an audit, on sets whose copies are known."""

import pytest
import torch

DIM = 16


def cloud(count, seed):
    return torch.nn.functional.normalize(torch.randn(count, DIM, generator=torch.Generator().manual_seed(seed)), dim=1)


def copies(trained, count, noise=0.01):
    return torch.nn.functional.normalize(trained[torch.arange(count) % len(trained)] + noise * cloud(count, 99), dim=1)


def sets(made, **more):
    from training.finetune.audit.near import Sets

    trained = more.pop("trained", cloud(60, 1))
    unseen = cloud(80, 2)
    given = {"held_out": unseen, "blurred": unseen, "once": tuple(range(len(trained))), **more}
    return Sets(space="toy", made=made, trained=trained, **given)


def figures(some):
    from training.finetune.audit.near import feature_figures

    return {figure.name: figure for figure in feature_figures(some)}


JUDGED = ("copy-rate", "copy-rate-blurred", "neighbour-ratio", "c-t", "authenticity")


def test_a_model_that_copies_is_told_by_every_figure_that_judges():
    found = figures(sets(copies(cloud(60, 1), 100)))
    assert {name: found[name].verdict for name in JUDGED} == dict.fromkeys(JUDGED, "copying")
    assert found["copy-rate"].title == "copy-rate(toy, N=100)"
    assert found["copy-rate"].value == 1 and found["copy-rate"].background == 0.05


def test_one_that_does_not_is_told_by_none():
    found = figures(sets(cloud(100, 5)))
    assert {name: found[name].verdict for name in JUDGED} == dict.fromkeys(JUDGED, "no copying")
    assert found["copy-rate"].low <= 0.05 <= found["copy-rate"].high


def test_what_needs_more_pictures_says_so_and_the_others_stand():
    found = figures(sets(copies(cloud(60, 1), 100), held_out=cloud(5, 2), blurred=cloud(5, 2)))
    assert found["copy-rate"].verdict == "not measured" and found["copy-rate"].value is None
    assert "needs 20 held-out pictures at least, there are 5" in found["copy-rate"].why
    assert found["neighbour-ratio"].value == 1


def test_mifid_needs_twice_as_many_pictures_as_dimensions():
    assert "needs 33 samples, there are 32" in figures(sets(cloud(32, 5)))["mifid"].why
    assert figures(sets(cloud(33, 5)))["mifid"].value > 0


def test_samples_that_are_as_near_as_soft_pictures_are_blurred_and_no_copies():
    # unseen pictures lie in other directions; soft ones, and the samples, among those that were trained
    trained, unseen = cloud(60, 1), cloud(80, 2)
    trained[:, 8:], unseen[:, :8] = 0, 0
    soft, near = cloud(80, 3), cloud(100, 4)
    soft[:, 8:], near[:, 8:] = 0, 0
    found = figures(sets(near, trained=trained, held_out=unseen, blurred=soft))
    assert found["copy-rate"].verdict == "copying" and found["copy-rate-blurred"].verdict == "no copying"


def test_duplicates_in_the_data_do_not_hide_copies_from_the_neighbour_ratio():
    once = cloud(60, 1)
    twice = torch.cat([once, once])
    made = copies(once, 50)
    assert figures(sets(made, trained=twice))["neighbour-ratio"].value == 0
    assert figures(sets(made, trained=twice, once=tuple(range(60))))["neighbour-ratio"].value == 1


def test_sscd_is_beside_held_out_pictures():
    from training.finetune.audit.near import similarity_figures

    mean, *tails, above = similarity_figures(sets(copies(cloud(60, 1), 40)))
    assert mean.value > 0.99 > mean.background
    assert [tail.name for tail in tails] == ["sscd-75", "sscd-90", "sscd-95"]
    assert mean.background < tails[0].background < tails[1].background < tails[2].background < 0.99 < tails[0].value
    assert above.value == 1 and above.background < 0.9


def pictures(count, seed):
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def by_pixels(made, trained, groups, held_out=None):
    from training.finetune.audit.near import Tiles, pixel_figures
    from training.metrics.memorization import tiled_distance

    unseen = pictures(40, 2) if held_out is None else held_out
    far = tiled_distance(unseen, trained)
    tiles = Tiles(made=tiled_distance(made, trained), held_out=far, blurred=far)
    found, extracted = pixel_figures(tiles, made.split(groups), unseen.split(groups))
    return {figure.name: figure for figure in found}, extracted


def test_a_caption_whose_seeds_make_one_trained_picture_is_extracted():
    trained = pictures(10, 1)
    copied = trained[:1].repeat(4, 1, 1, 1)
    # the second caption makes one picture again and again, but none that was trained; the third makes three others
    made = torch.cat([copied, pictures(1, 7).repeat(4, 1, 1, 1), pictures(4, 8)])
    found, extracted = by_pixels(made, trained, 4)
    assert extracted.by_cliques == (True, False, False) and extracted.same == (True, True, False)
    assert found["extraction"].value == pytest.approx(1 / 3) and found["extraction"].count == 3
    assert found["copy-rate-tiled"].value == pytest.approx(4 / 12)


def test_seeds_that_are_only_chained_are_no_clique():
    from training.finetune.audit.near import extract

    base = torch.zeros(3, 3, 16, 16)
    base[1], base[2] = 0.15, 0.3
    found = extract(torch.zeros(3, 1), [base], limit=0.2)
    assert found.by_components == (True,) and found.by_cliques == (False,)


def test_one_collapsed_picture_near_to_a_trained_one_is_no_proof():
    trained = pictures(10, 1)
    # every caption makes the same picture: one of twenty such is as near as that by chance
    made = torch.cat([trained[:1].repeat(4, 1, 1, 1), *(pictures(1, 20 + k).repeat(4, 1, 1, 1) for k in range(19))])
    found, _ = by_pixels(made, trained, 4)
    assert found["extraction"].value == found["extraction"].background == 0.05
    assert found["extraction"].verdict == "no copying"


def test_too_few_seeds_for_extraction_say_so():
    found, _ = by_pixels(pictures(4, 3), pictures(10, 1), 2)
    assert "raise --seeds-per-caption" in found["extraction"].why


def test_blur_stops_where_the_samples_are_as_soft():
    from training.finetune.audit.samples import softened

    sharp = pictures(4, 0)
    assert torch.equal(softened(sharp, sharp), sharp)
    soft = torch.nn.functional.avg_pool2d(sharp, 5, 1, 2)
    again = softened(sharp, soft)
    edges = [float(p.diff(dim=-1).abs().mean()) for p in (sharp, soft, again)]
    assert edges[2] < 0.6 * edges[0]


def test_captions_are_asked_as_often_as_pictures_have_them_each_sample_by_a_seed_of_its_own():
    from types import SimpleNamespace

    from training.finetune.audit.samples import ask_captions

    trained = [SimpleNamespace(caption=c) for c in ("common",) * 6 + ("rare",) * 2]
    asked = ask_captions(trained, 16, 4, seed=0)
    assert [one.caption for one in asked[::4]] == ["common"] * 3 + ["rare"]
    assert len({one.seed for one in asked}) == 16
    assert not {one.seed for one in asked} & {one.seed for one in ask_captions(trained, 16, 4, seed=1)}


def test_a_loss_that_is_lower_for_trained_pictures_shows_in_gap_and_attack():
    from training.finetune.audit.network import loss_figures

    generator = torch.Generator().manual_seed(0)
    before = torch.rand(150, generator=generator), torch.rand(150, generator=generator)
    learned = {f.name: f for f in loss_figures(before[0] - 0.5, before[1], before)}
    assert learned["loss-gap"].verdict == learned["membership-loss"].verdict == "copying"
    assert learned["loss-gap"].value == pytest.approx(0.5, abs=0.1)
    assert learned["membership-loss"].low > 0.5 > learned["membership-loss-tpr"].background
    not_learned = {f.name: f for f in loss_figures(before[0] - 0.1, before[1] - 0.1, before)}
    assert not_learned["loss-gap"].verdict == not_learned["membership-loss"].verdict == "no copying"


def test_few_held_out_pictures_give_a_gap_but_no_attack_and_none_give_neither():
    from training.finetune.audit.network import loss_figures

    few = {f.name: f for f in loss_figures(torch.rand(30), torch.rand(30), (torch.rand(30), torch.rand(30)))}
    assert few["loss-gap"].value is not None and "needs 100 held-out" in few["membership-loss"].why
    none = {f.name: f for f in loss_figures(torch.rand(30), torch.zeros(0), (torch.rand(30), torch.zeros(0)))}
    assert none["loss-gap"].verdict == "not measured"


def test_an_interval_holds_the_truth_about_as_often_as_it_says():
    from training.metrics.memorization import correlation_interval, difference_interval, membership

    inside = 0
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        one, two = torch.randn(100, generator=generator) + 1, torch.randn(100, generator=generator)
        low, high = difference_interval(one, two, rounds=400)
        inside += low <= 1 <= high
    assert 34 <= inside <= 40
    attack = membership(torch.randn(100), torch.randn(100))
    assert attack.interval[0] < attack.auc < attack.interval[1]
    assert correlation_interval(0.9, 12)[0] > 0.6 and correlation_interval(0.2, 12)[0] < 0


def canaries(repeats, scores):
    from training.finetune.audit.canaries import Canary, score

    found = [Canary(sample=None, repeats=count) for count in repeats]
    return score(found, "loss", scores)


def test_canaries_are_ranked_by_their_repeats():
    from training.finetune.audit.canaries import canary_figures

    (right,) = canary_figures(canaries([1, 2, 5, 10, 20, 50], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]))
    assert right.value == pytest.approx(1) and right.verdict == "copying" and right.name == "canaries-loss"
    (wrong,) = canary_figures(canaries([1, 2, 5, 10, 20, 50], [0.6, 0.1, 0.5, 0.2, 0.4, 0.3]))
    assert wrong.verdict == "no copying"
    (few,) = canary_figures(canaries([1, 50], [0.1, 0.2]))
    assert few.verdict == "not measured" and "studio data plant" in few.why
    assert canary_figures([]) == []


def test_a_quantile_of_few_held_out_pictures_is_a_background_that_is_hardly_known():
    from training.metrics.memorization import nearer_rate

    few, many = (nearer_rate(torch.rand(200), torch.linspace(0, 1, count)) for count in (20, 400))
    assert few.background_high > 0.15 > 0.08 > many.background_high > 0.05 > many.background_low > 0.025
    wrong = sum(
        nearer_rate(torch.rand(200, generator=g), torch.rand(20, generator=g)).above_background
        for g in (torch.Generator().manual_seed(seed) for seed in range(100))
    )
    assert wrong <= 3  # without the interval it would be a quarter of them


def audit(**verdicts):
    """An audit with nothing in it but these figures."""
    from training.finetune.audit.figure import Figure
    from training.finetune.audit.pairs import Twins
    from training.finetune.audit.report import Audit

    made = [
        Figure(name=name.replace("_", "-"), space="toy", count=64, verdict=verdict,
               value=None if verdict == "not measured" else 0.3, low=0.2, high=0.4, background=0.05, why="too few")
        for name, verdict in {
            "copy_rate": "no copying", "copy_rate_blurred": "no copying", "extraction": "no copying", **verdicts
        }.items()
    ]  # fmt: skip
    return Audit(
        run="r", trained=60, held_out=60, samples=64, steps=10, seed=0, space="toy", figures=tuple(made), risks=(),
        canaries=(), twins=Twins(identical=(), trained=(), leaked=()), pairs=(), distances={},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("verdicts", "copies", "words"),
    [
        ({}, False, "No copying was found"),
        (
            {"copy_rate": "copying", "copy_rate_blurred": "copying"},
            True,
            "This model copies what it was trained on. 30%",
        ),
        ({"copy_rate": "copying"}, False, "blur, not copying"),
        (
            {"extraction": "copying"},
            True,
            "For 30% of the captions that it was asked, 64 times in all, several seeds make one",
        ),
        ({"copy_rate": "not measured", "copy_rate_blurred": "not measured"}, None, "could not be measured: Too few"),
        ({"membership_loss": "copying"}, False, "But it tells trained pictures from unseen ones"),
    ],
)
def test_the_verdict_is_told_in_words(verdicts, copies, words):
    found = audit(**verdicts)
    assert found.copies is copies and words in found.words
