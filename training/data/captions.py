"""The grammar of the drawn world: who, doing what, where, and what the background does."""

import re
from collections.abc import Sequence
from typing import Final

import torch

from training.data.backgrounds import Scene
from training.data.puppets import COLOURS, Puppet

NOUNS: Final = {
    "human": ("person", "figure"),
    "lanky": ("lanky figure", "tall thin person"),
    "stubby": ("stubby figure", "short stocky figure"),
    "big-headed": ("big-headed doll", "doll with a big head"),
    "neckless": ("stocky figure without a neck", "brawny figure"),
    "boxy": ("juice box", "box on legs"),
    "blobby": ("blob", "round monster"),
    "long-armed": ("long-armed ape", "ape with long arms"),
    "bean-shaped": ("bean", "walking bean"),
}
EAR_WORDS: Final = {"round": "round bear ears", "long": "long rabbit ears", "pointed": "pointed cat ears"}
ACTIONS: Final = {
    "walk": ("walking", "walks along"),
    "run": ("running", "runs"),
    "wave": ("waving a hand", "waves hello"),
    "wave_both": ("waving both arms", "waves both arms overhead"),
    "jump": ("jumping", "jumps up and down"),
    "jumping_jack": ("doing jumping jacks", "does jumping jacks"),
    "squat": ("doing squats", "squats"),
    "kick": ("kicking", "kicks"),
    "clap": ("clapping", "claps"),
    "cheer": ("cheering", "cheers with both arms up"),
    "sway": ("swaying", "sways from side to side"),
    "twist": ("twisting", "dances the twist"),
    "turn": ("turning", "turns from side to side"),
    "march": ("marching", "marches"),
    "bow": ("bowing", "bows"),
    "point": ("pointing", "points to the sides"),
    "disco": ("dancing disco", "does a disco dance"),
    "robot": ("dancing like a robot", "does the robot dance"),
    "swim": ("swimming in the air", "swings the arms in circles"),
    "dance": ("dancing", "dances"),
    "stand": ("standing still", "stands there"),
}
PLACE_WORDS: Final = {
    "flat": ("in front of a {sky} wall", "before a plain {sky} wall"),
    "gradient": ("under a {sky} sky", "in front of a {sky} gradient"),
    "wallpaper": ("in front of {sky} wallpaper", "before a patterned {sky} wall"),
    "hills": ("in the hills", "in front of {accent} hills"),
    "town": ("in a town", "in a street with {accent} houses"),
    "room": ("in a {sky} room", "in a room with a window"),
}
DYNAMIC_WORDS: Final = {
    "still": ("the background is still", "nothing moves in the background"),
    "rain": ("rain falls", "it is raining"),
    "snow": ("snow falls", "it is snowing"),
    "clouds": ("clouds drift by", "white clouds move across the sky"),
    "waves": ("waves roll in the background", "the sea moves in waves"),
    "flames": ("flames rise in the background", "a fire burns in the background"),
    "lights": ("lights blink in the background", "coloured lights flash"),
    "grass": ("grass sways in the wind", "tall grass moves in the wind"),
    "pan": ("the camera pans", "the camera moves sideways"),
}


def colour_name(rgb: Sequence[float]) -> str:
    """Finds the nearest colour word."""
    return min(COLOURS, key=lambda name: sum((a - b) ** 2 for a, b in zip(COLOURS[name], rgb, strict=True)))


def caption(puppet: Puppet, scene: Scene, action: str, generator: torch.Generator) -> str:
    """Says what the clip shows, with synonyms and omissions at random."""
    numbers = iter(torch.rand(16, generator=generator).tolist())

    def choose(options: Sequence[str]) -> str:
        return options[int(next(numbers) * len(options))]

    look = puppet.colour if puppet.pattern == "solid" else f"{puppet.pattern} {puppet.colour}"
    if puppet.pattern != "solid" and next(numbers) < 0.5:
        look = f"{puppet.colour} and {puppet.second} {puppet.pattern}"
    who = f"a {look} {choose(NOUNS[puppet.plan])}"
    extras = [EAR_WORDS[puppet.ears]] if puppet.ears != "none" else []
    if puppet.hat != "none":
        extras.append(f"a {puppet.hat}")
    if puppet.tail > 0:
        extras.append("a tail")
    if extras and next(numbers) < 0.7:
        who += " with " + " and ".join(extras[:2])
    where = choose(PLACE_WORDS[scene.place]).format(sky=colour_name(scene.sky), accent=colour_name(scene.accent))
    parts = [f"{who} {choose(ACTIONS[action])}"]
    if next(numbers) < 0.8:
        parts[0] += f" {where}"
    if scene.dynamic != "still" or next(numbers) < 0.4:
        parts.append(choose(DYNAMIC_WORDS[scene.dynamic]))
    if next(numbers) < 0.15:
        parts.reverse()
    return re.sub(r"\ba (?=[aeiou])", "an ", ", ".join(parts))
