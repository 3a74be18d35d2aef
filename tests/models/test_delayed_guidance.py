"""Guidance that begins late: in the animator, in long clips, and in other pipelines of diffusers."""

import pytest
import torch

from models.delayed_guidance import GuidanceDelay, delay_guidance


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def reference():
    return torch.randint(0, 256, (32, 32, 3), generator=generator(1), dtype=torch.uint8)


@pytest.fixture
def animate(tiny, reference):
    from pose.motions import make_motion

    def call(num_frames=9, batch=1, **changes):
        poses = make_motion("wave", num_frames=num_frames, frame_size=(32, 32))
        request = {
            "reference": [reference] * batch, "poses": poses, "reference_pose": poses.frame(0),
            "prompt": "a red jelly dances", "generator": [generator(k) for k in range(batch)],
            "output_type": "latent", "num_inference_steps": 6, "guidance_scale": 4.0,
        }  # fmt: skip
        return tiny(**{**request, **changes}).frames

    return call


@pytest.fixture
def passes(tiny, monkeypatch):
    """Whether each pass of the transformer had the explicit pose: the negative ones have none."""
    seen = []
    forward = tiny.transformer.forward

    def record(**inputs):
        seen.append(inputs["pose_tokens"] is not None)
        return forward(**inputs)

    monkeypatch.setattr(tiny.transformer, "forward", record)
    return seen


def scales(delay, magnitudes, full=5.0):
    """What a delay gives for differences of these sizes, one list a step."""
    found = []
    for row in magnitudes:
        difference = torch.tensor(row, dtype=torch.float32)[:, None]
        scale = delay.scale(full, difference, len(row))
        found.append(scale.tolist() if isinstance(scale, torch.Tensor) else scale)
    return found


def test_a_share_of_the_steps_is_made_before():
    for start, unguided in ((0.0, 0), (0.01, 1), (0.3, 3), (0.7, 7), (1.0, 10)):
        found = scales(GuidanceDelay(start, -2.0, 10), [[1.0]] * 10)
        assert found == [-2.0] * unguided + [5.0] * (10 - unguided), start


def test_auto_begins_behind_the_first_local_minimum_of_each_sample():
    delay = GuidanceDelay("auto", 1.0, 5)
    found = scales(delay, [[9.0, 5.0], [4.0, 6.0], [3.0, 7.0], [3.5, 1.0], [1.0, 2.0]])
    assert found == [1.0, [1.0, 5.0], [1.0, 5.0], 5.0, 5.0]
    assert delay.began == [3, 1] and not delay.watches


def test_auto_without_a_minimum_never_begins():
    delay = GuidanceDelay("auto", 1.0, 3)
    assert scales(delay, [[3.0], [2.0], [2.0]]) == [1.0, 1.0, 1.0] and delay.began == [None]


@pytest.mark.parametrize(
    ("start", "before", "words"),
    [
        (1.5, 1.0, "guidance_start must be a share of the steps from 0 to 1, or 'auto', got 1.5"),
        ("soon", 1.0, "or 'auto', got 'soon'"), (0.5, 2.0, "guidance_before must be from -20 to 1, got 2"),
        (0.5, -30.0, "guidance_before must be from -20 to 1"), (float("nan"), 1.0, "got nan"),
    ],
)  # fmt: skip
def test_values_out_of_range_are_refused(start, before, words):
    with pytest.raises(ValueError, match=words):
        GuidanceDelay(start, before, 10)


def test_zero_is_what_it_was_and_one_is_unguided(animate):
    assert torch.equal(animate(guidance_start=0.0), animate())
    assert torch.equal(animate(guidance_start=1.0), animate(guidance_scale=1.0))
    assert not torch.equal(animate(guidance_start=0.5), animate())


def test_the_early_steps_cost_one_pass_alone_and_opposite_guidance_both(animate, passes):
    def made(**changes):
        passes.clear()
        animate(**changes)
        return list(passes)

    assert made(guidance_start=0.5) == [True] * 3 + [True, False] * 3
    assert made(guidance_start=0.5, guidance_before=0.0) == [False] * 3 + [True, False] * 3
    assert made(guidance_start=0.5, guidance_before=-1.0) == [True, False] * 6
    assert made(guidance_start="auto") == [True, False] * 6


def test_it_is_as_if_the_scale_changed_at_that_step(animate):
    def rise(pipe, step, timestep, tensors):
        if step == 2:
            pipe._guidance_scale = 4.0
        return tensors

    by_hand = animate(guidance_scale=1.0001, callback_on_step_end=rise)
    torch.testing.assert_close(animate(guidance_start=0.5), by_hand, atol=1e-3, rtol=1e-3)


def test_auto_tells_when_it_began_and_equals_that_share(animate, tiny):
    found = animate(guidance_start="auto", num_inference_steps=12)
    (began,) = tiny.guidance_began
    if began is None:
        pytest.fail("the difference never rose: the test shows nothing")
    assert 0 < began < 12
    torch.testing.assert_close(found, animate(guidance_start=began / 12, num_inference_steps=12))


def test_each_video_of_a_batch_begins_on_its_own(animate, tiny):
    together = animate(guidance_start="auto", num_inference_steps=12, batch=3)
    began = tiny.guidance_began
    for k in range(3):
        alone = animate(guidance_start="auto", num_inference_steps=12, generator=[generator(k)])
        assert tiny.guidance_began == [began[k]]
        torch.testing.assert_close(together[k : k + 1], alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("start", [0.5, "auto"])
def test_all_windows_of_a_long_clip_begin_together(start, animate, tiny, passes):
    made = animate(num_frames=25, guidance_start=start, num_inference_steps=12)
    windows = len(passes) // (18 if start == 0.5 else 24)
    assert windows > 1 and len(passes) == windows * (18 if start == 0.5 else 24)
    assert len(tiny.guidance_began) == 1 and made.shape[2] == 7
    assert torch.equal(made, animate(num_frames=25, guidance_start=start, num_inference_steps=12))
    assert torch.equal(animate(num_frames=25, guidance_start=1.0), animate(num_frames=25, guidance_scale=1.0))


def test_a_delay_of_no_guidance_is_refused(animate):
    with pytest.raises(ValueError, match=r"guidance_start 0\.5: there is no guidance at guidance_scale 1"):
        animate(guidance_start=0.5, guidance_scale=1.0)


# other pipelines


@pytest.fixture(params=["sd", "sd3"])
def picture_pipeline(request):
    from diffusers import DiffusionPipeline

    absent = {"text_encoder_3": None, "tokenizer_3": None} if request.param == "sd3" else {}
    pipe = DiffusionPipeline.from_pretrained(request.getfixturevalue(request.param), **absent)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(pipe, scale=5.0, **more):
    made = pipe(
        ["a b", "c"], width=32, height=32, num_inference_steps=6, guidance_scale=scale, output_type="latent",
        generator=[generator(3), generator(4)], **more,
    )  # fmt: skip
    return made.images


def test_in_other_pipelines_zero_changes_no_bit_and_one_is_the_scale_before(picture_pipeline):
    plain, unguided = draw(picture_pipeline), draw(picture_pipeline, scale=1.0)
    with delay_guidance(picture_pipeline, 0.0):
        assert torch.equal(draw(picture_pipeline), plain)
    with delay_guidance(picture_pipeline, 1.0, before=1.0):
        torch.testing.assert_close(draw(picture_pipeline), unguided, atol=1e-4, rtol=1e-4)
    with delay_guidance(picture_pipeline, 0.5):
        first = draw(picture_pipeline)
        assert torch.equal(draw(picture_pipeline), first) and not torch.equal(first, plain)
    with delay_guidance(picture_pipeline, "auto", before=-2.0):
        assert not torch.equal(draw(picture_pipeline), plain)
    assert torch.equal(draw(picture_pipeline), plain)  # nothing is left of it


def test_pipelines_of_other_kinds_are_refused(tiny, wan, sd):
    from diffusers import DiffusionPipeline

    with pytest.raises(ValueError, match="AnimateXPipeline is not a pipeline"), delay_guidance(tiny, 0.5):
        pass
    video = DiffusionPipeline.from_pretrained(wan)
    video.set_progress_bar_config(disable=True)
    with delay_guidance(video, 0.5), pytest.raises(ValueError, match="one prediction at a time"):
        video(["a", "b"], width=32, height=32, num_frames=5, num_inference_steps=2, output_type="latent")
    pictures = DiffusionPipeline.from_pretrained(sd)
    pictures.set_progress_bar_config(disable=True)
    with delay_guidance(pictures, 0.5), pytest.raises(ValueError, match="no guidance to delay"):
        draw(pictures, scale=1.0)
