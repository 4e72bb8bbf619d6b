"""What a drawn character is made of: its design, what it wears today, its face and its pose."""

from __future__ import annotations

from enum import StrEnum

from domain.records import Record
from studio.demo.ink import Colour


class Hair(StrEnum):
    """How the hair falls; each is a hairline around the head (see `heads`)."""

    BALD = "bald"
    CROP = "crop"
    BOB = "bob"
    BUN = "bun"
    LONG = "long"
    CURLS = "curls"
    PONYTAIL = "ponytail"
    MOHAWK = "mohawk"


class Beard(StrEnum):
    """Hair on the face."""

    NONE = "none"
    FULL = "full"
    MOUSTACHE = "moustache"
    GOATEE = "goatee"


class Garment(StrEnum):
    """The upper garment."""

    PEACOAT = "peacoat"
    TRENCH = "trench"
    RAINCOAT = "raincoat"
    SUIT = "suit"
    JUMPER = "jumper"
    DRESS = "dress"


class Accessory(StrEnum):
    """The one thing that makes a person known from afar."""

    SCARF = "scarf"
    FEDORA = "fedora"
    GOGGLES = "goggles"
    POCKET_SQUARE = "pocket_square"
    GLASSES = "glasses"
    BEANIE = "beanie"
    HEADPHONES = "headphones"
    BAG = "bag"


class Design(Record):
    """A character's model sheet. Lengths are in heads (the height of this character's head is 1)."""

    name: str
    heads_tall: float
    head_width: float = 1.0
    shoulder: float
    waist: float
    hip: float
    belly: float = 0.0
    skin: Colour
    hair: Hair
    hair_colour: Colour
    beard: Beard = Beard.NONE
    beard_colour: Colour = (90, 90, 96)
    eye_colour: Colour
    eye_size: float = 1.0
    brow_width: float = 0.03
    nose: float = 0.5
    has_lashes: bool = False
    has_freckles: bool = False
    garment: Garment
    garment_colour: Colour
    trim_colour: Colour
    inner_colour: Colour
    tie_colour: Colour
    legs_colour: Colour
    shoe_colour: Colour
    boot_height: float = 0.35
    hem: float = 0.2
    flare: float = 1.1
    accessories: tuple[Accessory, ...]
    accessory_colour: Colour


class Outfit(Record):
    """Today's clothes: the same person, not the same pixels. `fade` moves the accessory's colour, -1 dark to 1 pale."""

    is_open: bool = False
    fade: float = 0.0


OPEN = Outfit(is_open=True)
PALE = Outfit(fade=0.7)
DEEP = Outfit(fade=-0.7)
OPEN_PALE = Outfit(is_open=True, fade=0.5)


class Face(Record):
    """An expression. Openness 0-1, `smile` and `gaze` -1 to 1; `brow_tilt` above 0 is worried, below 0 cross."""

    eye_open: float = 1.0
    brow_lift: float = 0.0
    brow_tilt: float = 0.0
    smile: float = 0.5
    mouth_open: float = 0.0
    mouth_width: float = 1.0
    cheek: float = 0.0
    gaze: float = 0.0


FACES: dict[str, Face] = {
    "calm": Face(),
    "happy": Face(smile=0.95, mouth_open=0.45, cheek=0.8, brow_lift=0.35, eye_open=0.92),
    "smile": Face(smile=0.8, cheek=0.5, brow_lift=0.15, mouth_width=1.1),
    "surprised": Face(eye_open=1.25, brow_lift=1.0, smile=-0.1, mouth_open=0.75, mouth_width=0.55),
    "worried": Face(brow_tilt=0.9, brow_lift=0.25, smile=-0.55, mouth_width=0.85),
    "cross": Face(brow_tilt=-0.9, brow_lift=-0.35, smile=-0.6, eye_open=0.78, mouth_width=0.9),
    "sly": Face(eye_open=0.55, brow_tilt=-0.25, smile=0.75, mouth_width=0.9, gaze=0.6),
    "laughing": Face(eye_open=0.0, smile=1.0, mouth_open=0.9, cheek=1.0, brow_lift=0.6, mouth_width=1.1),
    "talking": Face(smile=0.3, mouth_open=0.35, mouth_width=0.8),
    "asleep": Face(eye_open=0.0, smile=0.15),
}
"""The named expressions; `blinking` and `looking` change one of them."""


def blinking(face: Face) -> Face:
    """The same face with closed eyes."""
    return face.model_copy(update={"eye_open": 0.0})


def looking(face: Face, gaze: float) -> Face:
    """The same face with the eyes turned, -1 (their right) to 1."""
    return face.model_copy(update={"gaze": gaze})


class Pose(Record):
    """Where the limbs are. Angles in degrees from hanging straight down, positive towards the right of the picture.

    `yaw` turns the body and `head_yaw` the head: 0 looks at us, 40 three-quarter, 85 profile to the right.
    Near limbs are those on the left of the picture (nearer to us in profile). `sway` moves hems and scarf ends,
    `lean` tips the whole figure, `bob` lifts it (in heads).
    """

    yaw: float = 0.0
    head_yaw: float = 0.0
    near_arm: tuple[float, float] = (-11.0, -5.0)
    far_arm: tuple[float, float] = (11.0, 5.0)
    near_leg: tuple[float, float] = (-3.0, -1.0)
    far_leg: tuple[float, float] = (3.0, 1.0)
    lean: float = 0.0
    bob: float = 0.0
    sway: float = 0.0
    head_tilt: float = 0.0
    has_open_hand: bool = False
