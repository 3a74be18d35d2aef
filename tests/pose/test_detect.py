import numpy as np
import pytest
import torch

onnx = pytest.importorskip("onnx", reason="makes tiny networks with the onnx package (dev extra)")


def save_network(path, nodes, inputs, outputs, constants):
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


@pytest.fixture
def mini_weights(tmp_path):
    """A mini network by hand: joint k's heat is where red is k's shade (0.04 + 0.05 k), averaged over the cell."""
    from onnx import helper

    shades = (0.04 + 0.05 * np.arange(18, dtype=np.float32)).reshape(1, 18, 1, 1)
    nodes = [
        helper.make_node("Slice", ["pixels", "zero", "one", "axis"], ["red"]),
        helper.make_node("Sub", ["red", "shades"], ["away"]),
        helper.make_node("Abs", ["away"], ["distance"]),
        helper.make_node("Less", ["distance", "limit"], ["near"]),
        helper.make_node("Cast", ["near"], ["hot"], to=1),
        helper.make_node("AveragePool", ["hot"], ["heatmaps"], kernel_shape=[4, 4], strides=[4, 4]),
    ]
    constants = {
        "zero": np.array([0]), "one": np.array([1]), "axis": np.array([1]),
        "shades": shades, "limit": np.array(0.02, np.float32),
    }  # fmt: skip
    return save_network(
        tmp_path / "model.onnx",
        nodes,
        {"pixels": ["batch", 3, 128, 128]},
        {"heatmaps": ["batch", 18, 32, 32]},
        constants,
    )


def picture(*people, width=128, height=128, cell=4):
    """A grey picture with a square of each joint's shade."""
    frame = torch.full((height, width, 3), 255, dtype=torch.uint8)
    for xy in people:
        for joint, (x, y) in enumerate(xy):
            left, top = int(x) // cell * cell, int(y) // cell * cell
            frame[top : top + cell, left : left + cell, 0] = round(255 * (0.04 + 0.05 * joint))
    return frame


def spread_figure(x=64.0, y=20.0):
    """18 joints in different cells; the neck is at (x, y + 12)."""
    places = [(0, 0), (0, 12), *((8 * (k % 4) - 12, 24 + 8 * (k // 4)) for k in range(16))]
    return [(x + dx, y + dy) for dx, dy in places]


def test_the_mini_detector_finds_each_joint_at_its_cells_centre(mini_weights):
    from pose.detect import load_detector

    figure = spread_figure()
    (person,) = load_detector("mini", weights=mini_weights).detect(picture(figure))
    expected = torch.tensor([(x // 4 * 4 + 2, y // 4 * 4 + 2) for x, y in figure])
    torch.testing.assert_close(person.xy, expected, atol=0.1, rtol=0)
    assert person.confidence.min() > 0.9 and person.num_visible == 18 and person.score > 0.9
    assert person.box[0] < person.box[2] and person.box[1] < person.box[3]


def test_a_letterboxed_picture_gives_px_of_the_picture(mini_weights):
    from pose.detect import load_detector

    figure = [(2 * x, 2 * y + 100) for x, y in spread_figure()]
    frame = torch.full((512, 256, 3), 255, dtype=torch.uint8)
    for joint, (x, y) in enumerate(figure):
        left, top = int(x) // 16 * 16, int(y) // 16 * 16
        frame[top : top + 16, left : left + 16, 0] = round(255 * (0.04 + 0.05 * joint))
    (person,) = load_detector("mini", weights=mini_weights).detect(frame)
    assert (person.xy[1] - torch.tensor([136.0, 168.0])).abs().max() < 1.0


def test_an_onnx_file_with_heatmaps_is_known_as_mini(mini_weights):
    from pose.detect import PoseDetector, load_detector
    from pose.mini_detector import MiniDetector

    detector = load_detector(str(mini_weights))
    assert isinstance(detector, MiniDetector) and isinstance(detector, PoseDetector)


def test_nobody_in_the_picture_is_an_empty_list(mini_weights):
    from pose.detect import load_detector

    assert load_detector("mini", weights=mini_weights).detect(torch.full((64, 64, 3), 255, dtype=torch.uint8)) == []


def test_a_missing_joint_is_marked(mini_weights):
    from pose.detect import load_detector

    frame = picture(spread_figure())
    x, y = spread_figure()[4]
    frame[int(y) // 4 * 4 :, int(x) // 4 * 4 :][:4, :4] = 255
    (person,) = load_detector("mini", weights=mini_weights).detect(frame)
    assert person.xy[4].tolist() == [-1, -1] and person.confidence[4] == 0 and person.num_visible == 17


def test_two_clear_necks_are_two_people(mini_weights):
    from pose.detect import SeveralPeopleError, extract_poses, load_detector

    detector = load_detector("mini", weights=mini_weights)
    frames = [picture(spread_figure(28.0), spread_figure(96.0)) for _ in range(3)]
    assert len(detector.detect(frames[0])) == 2
    with pytest.raises(SeveralPeopleError, match=r"2 people found in clip\.mp4"):
        extract_poses(frames, detector, fps=12.0, source="clip.mp4")
    right = extract_poses(frames, detector, fps=12.0, person=2)
    assert right.xy[0, 1].tolist() == pytest.approx([98.0, 34.0], abs=0.1)
    assert right.visible.all() and right.frame_size == (128, 128)


def test_extracting_keeps_one_pose_a_frame(mini_weights):
    from pose.detect import extract_poses, load_detector

    frames = [picture(spread_figure(40.0 + 2 * k)) for k in range(20)]
    frames[7] = torch.full((128, 128, 3), 255, dtype=torch.uint8)
    poses = extract_poses(iter(frames), load_detector("mini", weights=mini_weights), fps=8.0)
    assert len(poses) == 20 and poses.fps == 8.0
    assert not poses.visible[7].any() and poses.visible[[6, 8]].all()


def test_nobody_in_the_clip_is_an_error(mini_weights):
    from pose.detect import PoseNotFoundError, extract_poses, load_detector

    detector = load_detector("mini", weights=mini_weights)
    with pytest.raises(PoseNotFoundError, match=r"no person found in clip\.mp4 \(2 frames"):
        extract_poses([torch.zeros(32, 32, 3, dtype=torch.uint8)] * 2, detector, fps=8.0, source="clip.mp4")
    with pytest.raises(ValueError, match="no frames"):
        extract_poses([], detector, fps=8.0)


def test_frames_of_different_sizes_are_refused(mini_weights):
    from pose.detect import extract_poses, load_detector

    frames = [torch.zeros(32, size, 3, dtype=torch.uint8) for size in (32, 48)]
    with pytest.raises(ValueError, match="one size"):
        extract_poses(frames, load_detector("mini", weights=mini_weights), fps=8.0)


def test_missing_mini_weights_say_how_to_get_them(tmp_path):
    from pose.detect import DetectorUnavailableError, load_detector

    with pytest.raises(DetectorUnavailableError, match="studio train --recipe mini-pose"):
        load_detector("mini", weights=tmp_path / "model.onnx")


# rtmlib


@pytest.fixture
def simcc_file(tmp_path):
    """An RTMPose-like network that finds joint k of 17 at bin (40 + 10 k, 60 + 20 k) of whatever it sees."""
    from onnx import helper

    spots_x, spots_y = np.zeros((1, 17, 384), np.float32), np.zeros((1, 17, 512), np.float32)
    joints = np.arange(17)
    spots_x[0, joints, 40 + 10 * joints] = 0.8
    spots_y[0, joints, 60 + 20 * joints] = 0.9
    nodes = [
        helper.make_node("ReduceMean", ["input"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "nothing"], ["zero"]),
        helper.make_node("Add", ["spots_x", "zero"], ["simcc_x"]),
        helper.make_node("Add", ["spots_y", "zero"], ["simcc_y"]),
    ]
    return save_network(
        tmp_path / "rtmpose.onnx",
        nodes,
        {"input": [1, 3, 256, 192]},
        {"simcc_x": [1, 17, 384], "simcc_y": [1, 17, 512]},
        {"spots_x": spots_x, "spots_y": spots_y, "nothing": np.array(0, np.float32)},
    )


def test_a_local_rtmpose_file_runs_through_rtmlib(simcc_file, capsys):
    from pose.detect import load_detector

    detector = load_detector(str(simcc_file))
    (person,) = detector.detect(torch.zeros(256, 192, 3, dtype=torch.uint8))
    # rtmlib pads the box by a quarter, so bin b is at b / 2 * 1.25 - a quarter's half
    assert person.xy[0].tolist() == pytest.approx([20 * 1.25 - 24, 30 * 1.25 - 32], abs=0.6)
    shoulders = (person.xy[2] + person.xy[5]) / 2
    torch.testing.assert_close(person.xy[1], shoulders)
    assert person.confidence[0] == pytest.approx(0.85, abs=1e-3)
    assert capsys.readouterr().out == ""  # rtmlib's prints go to stderr


def test_boxes_come_from_the_yolox_file_beside_it(simcc_file, tmp_path):
    from onnx import helper

    from pose.detect import load_detector

    boxes = np.array([[[0, 0, 48, 64, 0.9], [0, 0, 9, 9, 0.1], [48, 0, 96, 64, 0.8]]], np.float32)
    nodes = [
        helper.make_node("ReduceMean", ["input"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "nothing"], ["zero"]),
        helper.make_node("Add", ["boxes", "zero"], ["dets"]),
    ]
    save_network(
        tmp_path / "yolox_tiny.onnx",
        nodes,
        {"input": [1, 3, 64, 64]},
        {"dets": [1, 3, 5]},
        {"boxes": boxes, "nothing": np.array(0, np.float32)},
    )
    people = load_detector(str(simcc_file)).detect(torch.zeros(64, 96, 3, dtype=torch.uint8))
    assert len(people) == 2 and people[0].box[0] < people[1].box[0]


def test_an_onnx_file_of_another_kind_is_refused(tmp_path):
    from onnx import helper

    from pose.detect import DetectorUnavailableError, load_detector

    path = save_network(
        tmp_path / "other.onnx", [helper.make_node("Abs", ["x"], ["y"])], {"x": [1, 3, 8, 8]}, {"y": [1, 3, 8, 8]}, {}
    )
    with pytest.raises(DetectorUnavailableError, match="no known pose detector"):
        load_detector(str(path))
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a network")
    with pytest.raises(DetectorUnavailableError, match="no ONNX model that can be loaded"):
        load_detector(str(broken))


@pytest.mark.parametrize("name", ["rtmpose", "rtmw", "dwpose"])
@pytest.mark.parametrize("offline", [True, False])
def test_weights_that_cannot_be_had_name_the_file_and_its_place(name, offline, tmp_path, monkeypatch):
    from pose.detect import DetectorUnavailableError, load_detector

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    if offline:
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    else:
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)  # the tests' own socket block makes the download fail
    with pytest.raises(DetectorUnavailableError) as caught:
        load_detector(name)
    message = str(caught.value)
    assert "https://download.openmmlab.com" in message and str(tmp_path / "hub" / "checkpoints") in message
    assert ("HF_HUB_OFFLINE" in message) == offline and "--detector MODEL.onnx" in message


def test_an_unknown_name_lists_the_known_ones():
    from pose.detect import load_detector

    with pytest.raises(ValueError, match="known are mini, rtmpose, rtmw, dwpose"):
        load_detector("openpose")
    with pytest.raises(ValueError, match="does not exist"):
        load_detector("none.onnx")
