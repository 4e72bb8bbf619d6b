"""Further shots of Tova, which won no slot and which she is learned from."""

from __future__ import annotations

from typing import Final

from studio.demo.clips import Action, Reel, Shot, Take
from studio.demo.designs import OPEN, PALE
from studio.demo.sounds import RAIN, TRAM

TOVA_OUTTAKES: Final[tuple[Reel, ...]] = (
    Reel(
        file_name="tova-rain.mp4",
        sound=RAIN,
        shots=(
            Shot(
                place="rain_street",
                seconds=1.7,
                takes=(
                    Take(
                        who="tova",
                        action=Action.WALK,
                        faces=("calm", "smile"),
                        x=(820, 500),
                        yaw=45,
                        is_mirrored=True,
                        scale=1.3,
                    ),
                ),
                camera=((780, 400, 1.12), (560, 400, 1.12)),
                brightness=(0.22, 1.0),
            ),
            Shot(
                place="rain_street",
                seconds=1.6,
                takes=(
                    Take(
                        who="tova",
                        action=Action.POINT,
                        faces=("surprised", "happy"),
                        framing="medium",
                        x=(520, 520),
                        yaw=25,
                        scale=1.1,
                    ),
                ),
                camera=((580, 360, 1.0), (640, 360, 1.1)),
                depth=2,
                shake=1.5,
            ),
            Shot(
                place="rain_street",
                seconds=1.5,
                takes=(
                    Take(
                        who="tova",
                        action=Action.TALK,
                        faces=("worried", "cross"),
                        framing="bust",
                        x=(640, 640),
                        yaw=40,
                        outfit=OPEN,
                    ),
                ),
                camera=((640, 360, 1.0), (650, 370, 1.12)),
                depth=4,
            ),
        ),
    ),
    Reel(
        file_name="tova-rooftop.mp4",
        shots=(
            Shot(
                place="rooftop",
                seconds=1.6,
                takes=(
                    Take(
                        who="tova",
                        action=Action.ON_HIP,
                        faces=("smile", "sly"),
                        x=(560, 560),
                        yaw=15,
                        scale=1.3,
                        outfit=OPEN,
                    ),
                ),
                camera=((580, 380, 1.0), (600, 405, 1.15)),
            ),
            Shot(
                place="rooftop",
                seconds=1.5,
                takes=(
                    Take(
                        who="tova",
                        action=Action.STAND,
                        faces=("calm", "asleep", "smile"),
                        framing="close",
                        x=(660, 640),
                        yaw=85,
                        is_mirrored=True,
                    ),
                ),
                camera=((620, 360, 1.0), (600, 360, 1.08)),
                depth=5,
            ),
            Shot(
                place="rooftop",
                seconds=1.5,
                takes=(
                    Take(who="tova", action=Action.RUN, faces=("laughing", "happy"), x=(360, 860), yaw=60, scale=1.35),
                ),
                camera=((480, 390, 1.08), (760, 390, 1.08)),
                shake=2,
            ),
        ),
    ),
    Reel(
        file_name="tova-tram.mp4",
        sound=TRAM,
        shots=(
            Shot(
                place="tram",
                seconds=1.5,
                takes=(
                    Take(
                        who="tova",
                        action=Action.WAVE,
                        faces=("happy", "smile"),
                        x=(600, 600),
                        yaw=0,
                        scale=1.35,
                        outfit=PALE,
                    ),
                ),
                camera=((640, 390, 1.08), (620, 385, 1.04)),
                shake=2,
            ),
            Shot(
                place="tram",
                seconds=1.5,
                takes=(
                    Take(
                        who="tova",
                        action=Action.THINK,
                        faces=("calm", "worried"),
                        framing="bust",
                        x=(640, 640),
                        yaw=40,
                        is_mirrored=True,
                    ),
                ),
                camera=((640, 360, 1.1), (640, 370, 1.0)),
                depth=4,
            ),
            Shot(
                place="tram",
                seconds=1.4,
                takes=(
                    Take(
                        who="tova",
                        action=Action.CHEER,
                        faces=("laughing",),
                        framing="medium",
                        x=(660, 660),
                        yaw=0,
                        outfit=OPEN,
                        scale=0.9,
                    ),
                ),
                camera=((640, 370, 1.0), (640, 360, 1.1)),
                depth=2,
                brightness=(1.05, 0.85),
            ),
        ),
    ),
)
