"""`Person` and who is who: follows people through a clip, whatever order a detector lists them in."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pose.sequence import VISIBLE, PoseSequence
from pose.skeleton import NUM_JOINTS

MAX_MOVE: Final = 0.5
"""The longest mean joint move between two frames that still is the same person, in body sizes."""
MAX_JUMP: Final = 2.0
"""The same for someone who was out of sight, or who is alone in the frame."""
MIN_SHARE: Final = 0.25
"""A track counts as a person when seen in this share of the frames, at this share of the largest person's size."""


class PoseNotFoundError(ValueError):
    """Nobody was found, or not the person asked for."""


class SeveralPeopleError(ValueError):
    """Several people were found and none was chosen; the message lists them."""


class DetectorUnavailableError(ValueError):
    """A detector's weights cannot be had; the message says which file belongs where."""


@dataclass(frozen=True, kw_only=True)
class Person:
    """One person in one frame."""

    xy: Float[Tensor, "18 2"]
    """px; -1 where missing."""
    confidence: Float[Tensor, "18"]
    """0..1; 0 where missing."""
    score: float
    """Mean confidence of the joints found."""
    box: tuple[float, float, float, float]
    """(left, top, right, bottom) in px around the joints found."""
    hands: Float[Tensor, "42 3"] | None = None
    face: Float[Tensor, "68 3"] | None = None
    feet: Float[Tensor, "6 3"] | None = None

    @classmethod
    def from_joints(
        cls,
        xy: Float[Tensor, "18 2"],
        confidence: Float[Tensor, "18"],
        *,
        hands: Float[Tensor, "42 3"] | None = None,
        face: Float[Tensor, "68 3"] | None = None,
        feet: Float[Tensor, "6 3"] | None = None,
    ) -> "Person":
        """Makes a person from joints; score and box come from the visible ones, or from all when none is."""
        found = confidence >= VISIBLE
        use = found if found.any() else torch.ones_like(found)
        (left, top), (right, bottom) = xy[use].amin(0).tolist(), xy[use].amax(0).tolist()
        score = float(confidence[use].mean())
        box = (left, top, right, bottom)
        return cls(xy=xy, confidence=confidence, score=score, box=box, hands=hands, face=face, feet=feet)

    @property
    def num_visible(self) -> int:
        """Number of joints found."""
        return int((self.confidence >= VISIBLE).sum())

    @property
    def size(self) -> float:
        """The longer side of the box, px."""
        return max(self.box[2] - self.box[0], self.box[3] - self.box[1], 1.0)


@dataclass
class Track:
    """One person over the frames seen so far: frame index -> person."""

    people: dict[int, Person] = field(default_factory=dict)

    def last(self) -> tuple[int, Person]:
        """The newest sighting."""
        index = next(reversed(self.people))
        return index, self.people[index]

    def distance(self, index: int, person: Person) -> float:
        """Mean joint distance in body sizes from where this track is expected in frame `index`."""
        last_index, last = self.last()
        expected = last.xy.numpy()
        if len(self.people) > 1:  # constant velocity of the whole body, so that two who cross keep their names
            before_index = list(self.people)[-2]
            step = _centre(last) - _centre(self.people[before_index])
            expected = expected + step / (last_index - before_index) * min(index - last_index, 3)
        both = ((last.confidence >= VISIBLE) & (person.confidence >= VISIBLE)).numpy()
        if both.sum() >= 3:
            moved = np.linalg.norm(person.xy.numpy()[both] - expected[both], axis=-1).mean()
        else:
            moved = np.linalg.norm(_centre(person) - _centre(last))
        return float(moved) / max(last.size, person.size)


class Tracker:
    """Follows people frame by frame; keeps joints only, never pictures."""

    def __init__(self, *, max_move: float = MAX_MOVE) -> None:
        self.tracks: list[Track] = []
        self.num_frames = 0
        self._most_people = 0
        self._max_move = max_move

    def update(self, people: Sequence[Person]) -> None:
        """Takes the people of the next frame: the closest pairs of track and person first.

        Who is left over goes on with a track that was lost before, when one is near; else a new track starts.
        """
        index = self.num_frames
        self.num_frames += 1
        self._most_people = max(self._most_people, len(people))
        pairs = sorted(
            (track.distance(index, person), t, p)
            for t, track in enumerate(self.tracks)
            for p, person in enumerate(people)
        )
        used_tracks: set[int] = set()
        used_people: set[int] = set()
        for recovering in (False, True):
            for distance, t, p in pairs:
                if t in used_tracks or p in used_people:
                    continue
                if recovering:
                    lost = len(people) == 1 or index - self.tracks[t].last()[0] > 1
                    near = lost and distance <= MAX_JUMP
                else:
                    near = distance <= self._max_move
                if near:
                    self.tracks[t].people[index] = people[p]
                    used_tracks.add(t)
                    used_people.add(p)
        self.tracks += [Track({index: person}) for p, person in enumerate(people) if p not in used_people]

    def people(self) -> list[Track]:
        """Lists who counts as a person, from left to right where first seen; brief or tiny sightings do not."""
        if not self.tracks:
            return []
        if self._most_people == 1:  # a cut or a leap is no second person
            return [Track({index: person for track in self.tracks for index, person in track.people.items()})]
        sizes = [float(np.median([p.size for p in track.people.values()])) for track in self.tracks]
        lengths = [len(track.people) for track in self.tracks]
        kept = [
            track
            for track, size, length in zip(self.tracks, sizes, lengths, strict=True)
            if length >= MIN_SHARE * max(lengths) and size >= MIN_SHARE * max(sizes)
        ]
        return sorted(kept, key=lambda track: float(_centre(next(iter(track.people.values())))[0]))

    def choose(self, person: int | None, *, source: str) -> Track:
        """Takes the only person, or person N (1 is the leftmost).

        Raises:
            PoseNotFoundError: Nobody, or fewer than N people.
            SeveralPeopleError: Several, and `person` is None.
        """
        people = self.people()
        if not people:
            raise PoseNotFoundError(nobody(source, self.num_frames))
        if person is None and len(people) > 1:
            listed = "; ".join(
                f"{n}: {len(track.people)} of {self.num_frames} frames, around x={_centre(track.last()[1])[0]:.0f} px"
                for n, track in enumerate(people, 1)
            )
            raise SeveralPeopleError(
                f"{len(people)} people found in {source} ({listed}); choose one with --person N (1 is the leftmost)"
            )
        if person is not None and not 1 <= person <= len(people):
            raise PoseNotFoundError(
                f"person {person} was asked for, but {source} shows {len(people)}; choose 1 to {len(people)}"
            )
        return people[(person or 1) - 1]

    def everyone(self, *, source: str, frame_size: tuple[int, int], fps: float) -> list[PoseSequence]:
        """Makes each person a `PoseSequence` over all frames, from left to right where first seen.

        Raises:
            PoseNotFoundError: Nobody was seen.
        """
        if not self.people():
            raise PoseNotFoundError(nobody(source, self.num_frames))
        return [self.sequence(track, frame_size=frame_size, fps=fps) for track in self.people()]

    def sequence(self, track: Track, *, frame_size: tuple[int, int], fps: float) -> PoseSequence:
        """Makes the track a `PoseSequence` over all frames; where the person was not seen, all joints are missing."""
        xy = torch.full((self.num_frames, NUM_JOINTS, 2), -1.0)
        confidence = torch.zeros(self.num_frames, NUM_JOINTS)
        for index, person in track.people.items():
            xy[index], confidence[index] = person.xy, person.confidence
        return PoseSequence(
            xy=xy,
            confidence=confidence,
            frame_size=frame_size,
            fps=fps,
            hands=self._extras({i: p.hands for i, p in track.people.items()}, 42),
            face=self._extras({i: p.face for i, p in track.people.items()}, 68),
            feet=self._extras({i: p.feet for i, p in track.people.items()}, 6),
        )

    def _extras(self, found: dict[int, Tensor | None], num_points: int) -> Tensor | None:
        if all(points is None for points in found.values()):
            return None
        result = torch.full((self.num_frames, num_points, 3), -1.0)
        result[..., 2] = 0
        for index, points in found.items():
            if points is not None:
                result[index] = points
        return result


def nobody(source: str, num_frames: int) -> str:
    """Words the message that nobody was found."""
    return (
        f"no person found in {source} ({num_frames} frames); "
        "use a picture in which the whole body is seen, or give keypoints instead"
    )


def _centre(person: Person) -> np.ndarray:
    left, top, right, bottom = person.box
    return np.array([(left + right) / 2, (top + bottom) / 2])
