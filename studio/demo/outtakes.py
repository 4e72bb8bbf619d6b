"""Further shots of Mei and Rui, which won no slot and which they are learned from."""

from __future__ import annotations

from typing import Final

from studio.demo.clips import Action, Reel, Shot, Take
from studio.demo.designs import DEEP, OPEN, OPEN_PALE, PALE
from studio.demo.sounds import TRAM

OUTTAKES: Final[tuple[Reel, ...]] = (
    Reel(
        file_name="mei-lighthouse.mp4",
        shots=(
            Shot(
                place="lighthouse",
                seconds=1.7,
                takes=(
                    Take(
                        who="mei",
                        action=Action.RUN,
                        faces=("happy",),
                        x=(860, 400),
                        yaw=75,
                        is_mirrored=True,
                        outfit=PALE,
                    ),
                ),
                camera=((800, 410, 1.15), (480, 410, 1.15)),
                whip=(0.5, 0.8),
            ),
            Shot(
                place="lighthouse",
                seconds=1.5,
                takes=(
                    Take(
                        who="mei",
                        action=Action.THINK,
                        faces=("worried", "calm"),
                        framing="bust",
                        x=(560, 590),
                        yaw=40,
                        outfit=OPEN_PALE,
                    ),
                ),
                camera=((600, 360, 1.0), (640, 360, 1.1)),
                depth=3,
            ),
            Shot(
                place="lighthouse",
                seconds=1.5,
                takes=(
                    Take(
                        who="rui",
                        action=Action.TALK,
                        faces=("calm",),
                        x=(900, 880),
                        yaw=40,
                        is_mirrored=True,
                        scale=0.95,
                    ),
                    Take(
                        who="mei",
                        action=Action.ON_HIP,
                        faces=("surprised", "happy"),
                        x=(560, 580),
                        yaw=35,
                        scale=0.98,
                        outfit=PALE,
                    ),
                ),
                camera=((720, 370, 1.0), (720, 385, 1.07)),
                brightness=(1.0, 0.7),
            ),
        ),
    ),
    Reel(
        file_name="mei-market-portrait.mp4",
        width=540,
        height=960,
        frames_per_second=25,
        shots=(
            Shot(
                place="market",
                seconds=1.44,
                takes=(
                    Take(
                        who="mei", action=Action.STAND, faces=("smile", "happy"), x=(330, 350), scale=1.12, outfit=OPEN
                    ),
                ),
                camera=((350, 380, 1.0), (350, 390, 1.06)),
            ),
            Shot(
                place="market",
                seconds=1.4,
                takes=(
                    Take(
                        who="mei",
                        action=Action.CHEER,
                        faces=("laughing",),
                        framing="medium",
                        x=(700, 700),
                        yaw=0,
                        scale=0.72,
                    ),
                ),
                camera=((700, 360, 1.0), (700, 340, 1.1)),
                depth=2,
            ),
            Shot(
                place="market",
                seconds=1.4,
                takes=(
                    Take(
                        who="mei",
                        action=Action.LOOK,
                        faces=("calm", "smile"),
                        framing="bust",
                        x=(960, 980),
                        yaw=40,
                        outfit=DEEP,
                        scale=0.9,
                    ),
                ),
                camera=((960, 360, 1.0), (980, 330, 1.15)),
                depth=4,
            ),
        ),
    ),
    Reel(
        file_name="rui-tram.mp4",
        sound=TRAM,
        shots=(
            Shot(
                place="tram",
                seconds=1.6,
                takes=(
                    Take(
                        who="rui",
                        action=Action.THINK,
                        faces=("worried", "calm"),
                        framing="medium",
                        x=(800, 600),
                        yaw=40,
                        is_mirrored=True,
                        outfit=OPEN,
                    ),
                ),
                camera=((680, 380, 1.0), (600, 335, 1.3)),
                shake=2,
                depth=2,
            ),
            Shot(
                place="tram",
                seconds=1.5,
                takes=(
                    Take(
                        who="rui",
                        action=Action.LOOK,
                        faces=("calm", "surprised", "smile"),
                        framing="close",
                        x=(720, 600),
                    ),
                ),
                camera=((660, 350, 1.2), (640, 370, 1.0)),
                depth=5,
            ),
            Shot(
                place="tram",
                seconds=1.5,
                takes=(
                    Take(who="rui", action=Action.POCKETS, faces=("smile",), x=(430, 500), yaw=20, scale=0.95),
                    Take(
                        who="mei",
                        action=Action.WAVE,
                        faces=("happy",),
                        x=(860, 820),
                        yaw=0,
                        is_mirrored=True,
                        outfit=DEEP,
                    ),
                ),
                camera=((640, 390, 1.06), (660, 390, 1.06)),
                shake=2,
            ),
        ),
    ),
    Reel(
        file_name="rui-rooftop.webm",
        shots=(
            Shot(
                place="rooftop",
                seconds=1.5,
                takes=(
                    Take(
                        who="rui",
                        action=Action.RUN,
                        faces=("surprised",),
                        x=(380, 820),
                        yaw=80,
                        outfit=OPEN,
                        scale=0.9,
                    ),
                ),
                camera=((480, 390, 1.1), (760, 390, 1.1)),
                whip=(0.9, 1.2),
            ),
            Shot(
                place="rooftop",
                seconds=1.4,
                takes=(
                    Take(
                        who="rui",
                        action=Action.WAVE,
                        faces=("smile", "happy"),
                        framing="medium",
                        x=(520, 680),
                        yaw=0,
                        scale=0.94,
                    ),
                ),
                camera=((600, 360, 1.0), (680, 340, 1.16)),
                depth=2,
            ),
            Shot(
                place="rooftop",
                seconds=1.3,
                takes=(
                    Take(
                        who="rui",
                        action=Action.LOOK,
                        faces=("calm", "worried"),
                        framing="bust",
                        x=(660, 660),
                        yaw=85,
                        is_mirrored=True,
                    ),
                ),
                camera=((640, 360, 1.0), (580, 350, 1.22)),
                depth=4,
                brightness=(1.08, 1.0),
            ),
        ),
    ),
)
