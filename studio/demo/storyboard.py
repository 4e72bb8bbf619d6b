"""What is filmed: the four shots that won a slot, and with the outtakes every clip of the demo."""

from __future__ import annotations

from typing import Final

from studio.demo.clips import Action, Reel, Shot, Take
from studio.demo.designs import OPEN, PALE
from studio.demo.outtakes import OUTTAKES
from studio.demo.outtakes_tova import TOVA_OUTTAKES
from studio.demo.sounds import MARKET, RAIN, TRAM, WAVES

_WON: Final[tuple[Reel, ...]] = (
    Reel(
        file_name="slot-01.mp4",
        sound=WAVES,
        shots=(
            Shot(
                place="pier",
                seconds=2.0,
                takes=(Take(who="mei", action=Action.WALK, faces=("calm", "smile"), x=(400, 760), yaw=85),),
                camera=((480, 400, 1.12), (740, 400, 1.12)),
                shake=1.5,
            ),
            Shot(
                place="pier",
                seconds=1.6,
                takes=(
                    Take(
                        who="mei", action=Action.WAVE, faces=("smile", "happy"), framing="medium", x=(600, 640), yaw=20
                    ),
                ),
                camera=((620, 360, 1.0), (640, 340, 1.12)),
                depth=2,
            ),
            Shot(
                place="pier",
                seconds=1.4,
                takes=(
                    Take(who="mei", action=Action.LOOK, faces=("smile", "surprised"), framing="close", x=(610, 660)),
                ),
                camera=((640, 360, 1.0), (640, 350, 1.06)),
                depth=5,
            ),
        ),
    ),
    Reel(
        file_name="slot-02.mp4",
        sound=RAIN,
        shots=(
            Shot(
                place="rain_street",
                seconds=1.9,
                takes=(Take(who="rui", action=Action.WALK, x=(780, 470), yaw=80, is_mirrored=True, scale=0.93),),
                camera=((760, 380, 1.08), (540, 380, 1.08)),
                brightness=(0.5, 1.05),
            ),
            Shot(
                place="rain_street",
                seconds=1.6,
                takes=(
                    Take(
                        who="rui",
                        action=Action.TALK,
                        faces=("cross", "calm"),
                        framing="bust",
                        x=(640, 620),
                        yaw=15,
                        outfit=OPEN,
                    ),
                ),
                camera=((640, 360, 1.0), (640, 370, 1.1)),
                depth=4,
            ),
            Shot(
                place="rain_street",
                seconds=1.5,
                takes=(
                    Take(
                        who="rui",
                        action=Action.POINT,
                        faces=("surprised", "cross"),
                        framing="medium",
                        x=(560, 560),
                        yaw=40,
                        outfit=OPEN,
                    ),
                ),
                camera=((600, 360, 1.15), (660, 360, 1.0)),
                shake=2,
                depth=2,
            ),
        ),
    ),
    Reel(
        file_name="slot-03.mp4",
        sound=MARKET,
        shots=(
            Shot(
                place="market",
                seconds=1.7,
                takes=(Take(who="tova", action=Action.RUN, faces=("happy",), x=(320, 900), yaw=80, scale=1.25),),
                camera=((420, 430, 1.2), (840, 430, 1.2)),
                whip=(0.9, 1.25),
            ),
            Shot(
                place="market",
                seconds=1.6,
                takes=(
                    Take(
                        who="tova",
                        action=Action.CHEER,
                        faces=("happy", "laughing"),
                        framing="medium",
                        x=(640, 640),
                        scale=1.02,
                    ),
                ),
                camera=((640, 360, 1.0), (640, 370, 1.12)),
                depth=2,
            ),
            Shot(
                place="market",
                seconds=1.4,
                takes=(
                    Take(
                        who="tova",
                        action=Action.LOOK,
                        faces=("surprised", "smile"),
                        framing="close",
                        x=(640, 620),
                        outfit=PALE,
                    ),
                ),
                depth=5,
            ),
        ),
    ),
    Reel(
        file_name="slot-04.mp4",
        sound=TRAM,
        shots=(
            Shot(
                place="tram",
                seconds=1.8,
                takes=(
                    Take(
                        who="dario",
                        action=Action.ON_HIP,
                        faces=("sly", "smile"),
                        framing="medium",
                        x=(600, 600),
                        yaw=30,
                    ),
                ),
                camera=((600, 360, 1.0), (640, 350, 1.15)),
                shake=2.5,
                depth=2,
            ),
            Shot(
                place="tram",
                seconds=1.5,
                takes=(Take(who="dario", action=Action.TALK, faces=("smile", "sly"), framing="close", x=(660, 640)),),
                depth=5,
                shake=2,
            ),
            Shot(
                place="tram",
                seconds=1.5,
                takes=(
                    Take(
                        who="dario",
                        action=Action.WALK,
                        faces=("sly",),
                        x=(760, 480),
                        yaw=60,
                        is_mirrored=True,
                        outfit=OPEN,
                    ),
                ),
                camera=((700, 390, 1.08), (560, 390, 1.08)),
            ),
        ),
    ),
)

REELS: Final[tuple[Reel, ...]] = (*_WON, *OUTTAKES, *TOVA_OUTTAKES)
