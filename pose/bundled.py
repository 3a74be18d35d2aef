"""The bundled motions, named; without torch, for lists of them."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, kw_only=True)
class Bundled:
    """A move, or an improvised dance, at a tempo."""

    about: str
    """What the body does."""
    move: str | None
    """A name of `MOVES`, or None for an improvised dance."""
    tempo: float = 1.0
    seed: int = 0


BUNDLED: Final = {
    "bow": Bundled(about="bows deeply and comes up again", move="bow", tempo=0.7),
    "cheer": Bundled(about="hops with both arms up", move="cheer", tempo=1.4),
    "clap": Bundled(about="claps in front of the chest", move="clap", tempo=1.6),
    "dance-1": Bundled(about="an easy improvised dance", move=None, seed=3),
    "dance-2": Bundled(about="a lively improvised dance", move=None, tempo=1.3, seed=11),
    "disco": Bundled(about="points at the ceiling and back", move="disco", tempo=1.1),
    "jump": Bundled(about="crouches and jumps", move="jump", tempo=1.0),
    "jumping-jack": Bundled(about="jumping jacks", move="jumping_jack", tempo=1.2),
    "kick": Bundled(about="kicks to the left and to the right", move="kick", tempo=0.8),
    "march": Bundled(about="marches on the spot", move="march", tempo=1.0),
    "point": Bundled(about="points to one side and to the other", move="point", tempo=0.8),
    "robot": Bundled(about="robot arms, in jerks", move="robot", tempo=0.9),
    "run": Bundled(about="runs on the spot", move="run", tempo=1.5),
    "squat": Bundled(about="squats with arms out", move="squat", tempo=0.8),
    "sway": Bundled(about="sways from side to side", move="sway", tempo=0.8),
    "swim": Bundled(about="swings the arms in circles", move="swim", tempo=0.9),
    "twist": Bundled(about="twists hips and arms", move="twist", tempo=1.1),
    "walk": Bundled(about="walks on the spot", move="walk", tempo=1.0),
    "wave": Bundled(about="waves one hand", move="wave", tempo=1.3),
    "wave-both": Bundled(about="waves both arms overhead", move="wave_both", tempo=1.0),
}

MOTIONS: Final = {name: bundled.about for name, bundled in BUNDLED.items()}
"""Name -> what the body does."""
