"""Real inputs at the smallest size: the tiny pipeline on disk, a drawn picture, keypoints, a video with sound."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def result(self) -> dict[str, Any]:
        return json.loads(self.out.strip().splitlines()[-1])


@pytest.fixture
def studio(capfd: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Runs the command line in this process, as the console script does."""

    def run(*words: object) -> Ran:
        from studio.__main__ import main

        capfd.readouterr()
        code = main([str(word) for word in words])
        return Ran(code, *capfd.readouterr())

    return run


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from models.presets import tiny_pipeline

    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A red figure on a light ground, 48x64."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (48, 64), (200, 220, 235))
    pen = ImageDraw.Draw(image)
    pen.ellipse((18, 6, 30, 18), fill=(220, 60, 40))
    pen.rectangle((19, 18, 29, 40), fill=(220, 60, 40))
    pen.rectangle((19, 40, 22, 60), fill=(120, 40, 40))
    pen.rectangle((26, 40, 29, 60), fill=(120, 40, 40))
    path = tmp_path_factory.mktemp("pictures") / "figure.png"
    image.save(path)
    return path


@pytest.fixture(scope="session")
def keypoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second of waving at 6 frames a second, in our own format."""
    from pose.motions import make_motion
    from pose.readers import write_keypoints

    path = tmp_path_factory.mktemp("poses") / "waving.json"
    write_keypoints(path, make_motion("wave", num_frames=6, fps=6.0, frame_size=(96, 128)))
    return path


@pytest.fixture(scope="session")
def beep_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds at 24 frames a second with a beep of 0.1 s at 0 s and at 1 s."""
    import av

    path = tmp_path_factory.mktemp("videos") / "beep.mp4"
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=24)
        video.width = video.height = 64
        video.pix_fmt = "yuv420p"
        sound = container.add_stream("aac", rate=44100, layout="mono")
        for index in range(48):
            picture = np.full((64, 64, 3), index * 5, np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode(None))
        time_s = np.arange(88200) / 44100
        wave = (np.sin(2 * np.pi * 440 * time_s) * (time_s % 1 < 0.1)).astype(np.float32)[None]
        frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 44100, 0
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    return path


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real pictures and videos beside the repository; they are not part of it."""
    folder = Path(__file__).parents[2].parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the folder ../shared/data with real inputs is not here")
    return folder


@pytest.fixture
def needs_detector() -> None:
    from studio.weights import mini_detector

    if not mini_detector().is_file():
        pytest.skip("the mini detector's weights are not here: run the recipe mini-pose")


@pytest.fixture
def make_study() -> Callable[..., Path]:
    """Writes the ledger of a study into a folder, as searches do: trials of (mask, [(step, quality, copying)])."""

    def make(folder: Path, trials: Any, *, budget: int = 10, limit: float | None = None, running: bool = False) -> Path:
        from training.search.entries import Asked, Budget, Finished, Header, Measured
        from training.search.ledger import open_ledger
        from training.search.space import Candidate, LogUniform, Space
        from training.search.trial import Point

        folder.mkdir(parents=True)
        sites = tuple(f"blocks.{block}.{kind}" for block in (0, 1) for kind in ("attn1", "ffn"))
        space = Space(sites=sites, numbers={"learning_rate": LogUniform(low=1e-4, high=1e-2)})
        header = Header(name=folder.name, space=space, budget=Budget(trials=budget), limit=limit, reference=(1.0, 0.5))
        entries: list[Any] = [header]
        for number, (mask, points) in enumerate(trials):
            candidate = Candidate(mask=tuple(bit == "1" for bit in mask), values={"learning_rate": 1e-3})
            why = "anchor" if number < 2 else "strategy"
            entries.append(Asked(trial=number, candidate=candidate, why=why, worker="w", at=1.0))
            for step, quality, copying in points:
                path = f"trial-{number}/step-{step}.safetensors" if "1" in mask else None
                metrics = {"trained-numbers": 1000.0 * mask.count("1")}
                point = Point(
                    step=step,
                    quality=quality,
                    copying=copying,
                    metrics=metrics,
                    path=path,
                    train_seconds=2.0,
                    judge_seconds=1.0,
                )
                entries.append(Measured(trial=number, point=point))
            if not running or number < len(trials) - 1:
                outcome, reason = ("complete", None) if points else ("failed", "no memory left")
                entries.append(Finished(trial=number, outcome=outcome, reason=reason, steps=0, seconds=1.0, at=2.0))
        ledger = open_ledger(folder, None)
        with ledger.exclusive():
            for entry in entries:
                ledger.append(entry)
        return folder

    return make


@pytest.fixture
def make_video() -> Callable[..., Path]:
    """Writes a small video of one grey that brightens frame by frame."""

    def make(path: Path, *, frames: int = 12, rate: int = 12, size: tuple[int, int] = (64, 48), first: int = 0) -> Path:
        import av

        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=rate)
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
            for index in range(frames):
                picture = np.full((size[1], size[0], 3), min(255, first + index * 10), np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode(None))
        return path

    return make


@pytest.fixture
def shared_queue(tmp_path, postgres):
    """A queue that several machines share: a fresh PostgreSQL database."""
    import sqlalchemy as sa

    from studio.jobs import Queue

    name = f"jobs_{tmp_path.name.replace('-', '_')[-40:]}".lower()
    engine = sa.create_engine(postgres.replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f'create database "{name}"')
    return Queue(tmp_path / "runs", postgres.replace("/postgres?", f"/{name}?"))
