"""The places of Neon Harbor, painted once per shot at 1280 x 720, with the light they throw on people."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from PIL import Image
from pydantic import ConfigDict

from domain.errors import BadInput
from domain.records import Record
from studio.demo.canvas import SIZE, Canvas
from studio.demo.ink import Colour, hex_colour, mix


class Scene(Record):
    """A painted place. `light` multiplies people's colours (255 = unchanged), `rim` is the light along their edge."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    picture: Image.Image
    light: Colour
    rim: Colour
    rim_from: float
    reflection: float = 0.0
    is_raining: bool = False


def _skyline(
    canvas: Canvas, base: float, low: float, high: float, colour: Colour, window: Colour | None, lit: float = 0.3
) -> None:
    rng, x = canvas.random, -20.0
    while x < SIZE[0]:
        width, height = rng.uniform(50, 120), rng.uniform(low, high)
        canvas.box(x, base - height, x + width, base, colour)
        if rng.random() < 0.3:
            canvas.box(x + width * 0.4, base - height - 26, x + width * 0.46, base - height, colour)
        if window is not None:
            for row in range(int(height // 22)):
                for column in range(int(width // 17)):
                    if rng.random() < lit:
                        left, top = x + 7 + column * 17, base - height + 9 + row * 22
                        canvas.box(left, top, left + 7, top + 10, mix(window, colour, rng.uniform(0, 0.5)))
        x += width + rng.uniform(-4, 8)


def _fish(x: float, y: float, s: float) -> list[tuple[float, float]]:
    half = [(-60.0, 0.0), (-25.0, -26.0), (20.0, -22.0), (45.0, 0.0), (72.0, -22.0)]
    below = [(dx, -dy) for dx, dy in reversed(half)]
    return [(x + dx * s, y + dy * s) for dx, dy in half + below]


def _pier(seed: int) -> Scene:
    c = Canvas([(0, "#0b1030"), (0.35, "#2a1c5a"), (0.58, "#7a2f78"), (0.62, "#1a1c4a"), (1, "#0b1030")], seed)
    for _ in range(70):
        c.disc(c.random.uniform(0, 1280), c.random.uniform(0, 260), c.random.uniform(0.6, 1.6), (220, 220, 255))
    c.disc(1010, 120, 52, hex_colour("#ffe9c4"))
    c.disc(990, 108, 10, hex_colour("#f2d7ae"))
    c.shine(1010, 120, 80, (90, 70, 60))
    _skyline(c, 430, 60, 190, hex_colour("#1d1748"), hex_colour("#ffcf7a"), 0.22)
    _skyline(c, 432, 30, 120, hex_colour("#120f33"), hex_colour("#ff9ad0"), 0.25)
    pink, cyan, gold = hex_colour("#ff4fb0"), hex_colour("#3fe0ff"), hex_colour("#ffc94a")
    c.box(150, 250, 345, 340, hex_colour("#0c0a26"), 8)
    c.neon(_fish(240, 295, 1.15), cyan, 6)
    c.box(820, 280, 930, 372, hex_colour("#0c0a26"), 8)
    c.neon([(838, 350), (838, 302), (870, 350), (870, 302)], pink, 6)
    c.neon([(890, 302), (890, 350)], pink, 6)
    c.neon([(890, 326), (912, 326), (912, 302), (912, 350)], pink, 6)
    c.neon([(520, 352), (570, 262), (620, 352), (520, 352)], gold, 5)
    c.neon([(1130, 330), (1130, 250), (1190, 250), (1190, 330)], cyan, 5)
    c.box(0, 430, 1280, 560, hex_colour("#10123a"))
    c.mirror(430, 560, 0.85)
    for _ in range(80):
        x, y = c.random.uniform(0, 1280), c.random.uniform(440, 558)
        c.line(
            [(x, y), (x + c.random.uniform(15, 60), y)], mix(hex_colour("#4a58b0"), pink, c.random.random() * 0.6), 1.4
        )
    c.shape([(0, 548), (1280, 548), (1280, 720), (0, 720)], hex_colour("#2c2344"))
    for k in range(8):
        y = 548 + 172 * (k / 8) ** 1.4
        c.line([(0, y), (1280, y)], hex_colour("#1b1532"), 2.5)
        for _ in range(5):
            x = c.random.uniform(0, 1280)
            c.line([(x, y), (x - 14, y + 25)], hex_colour("#1b1532"), 2)
    for x, colour in ((240, cyan), (570, gold), (860, pink), (1160, cyan)):
        for k in range(7):
            y = 560 + k * 22
            w = 40 - 4 * k + c.random.uniform(-8, 8)
            c.disc(x + c.random.uniform(-7, 7), y + 5, w, mix(hex_colour("#2c2344"), colour, 0.42 - 0.045 * k), 4.5)
    for x in (60, 470, 760, 1220):
        c.box(x - 15, 500, x + 15, 562, hex_colour("#171230"), 6)
        c.box(x - 21, 494, x + 21, 510, hex_colour("#3a2f5c"), 6)
    for x in (385, 1085):
        c.box(x - 5, 190, x + 5, 552, hex_colour("#151030"))
        c.disc(x, 186, 19, hex_colour("#fff0c8"))
        c.shine(x, 186, 70, (150, 110, 60))
    c.line([(385, 205), (560, 246), (735, 258), (910, 246), (1085, 205)], hex_colour("#151030"), 2)
    for k in range(9):
        x = 420 + k * 78
        c.disc(x, 262 - 0.00042 * (x - 735) ** 2 + 2, 6, (pink, gold, cyan)[k % 3])
        c.shine(x, 262 - 0.00042 * (x - 735) ** 2, 14, mix((0, 0, 0), (pink, gold, cyan)[k % 3], 0.6))
    return Scene(picture=c.finish(), light=(206, 198, 240), rim=(255, 110, 200), rim_from=1.0, reflection=0.26)


def _market(seed: int) -> Scene:
    c = Canvas([(0, "#6fc3ee"), (0.4, "#c5ecfa"), (0.55, "#fff4dc"), (1, "#fff4dc")], seed)
    for x, y, s in ((180.0, 80.0, 1.0), (760.0, 60.0, 1.3), (1130.0, 110.0, 0.8)):
        for dx, dy, r in ((-45, 8, 26), (0, -6, 38), (42, 6, 28)):
            c.disc(x + dx * s, y + dy * s, r * s, (255, 255, 255))
        c.box(x - 70 * s, y + 8 * s, x + 70 * s, y + 34 * s, (255, 255, 255), 13 * s)
    facades = ("#f2b38a", "#f5d98c", "#9fd0c0", "#e99a9a", "#c8b6e2", "#f0c8a0", "#a8c8e8")
    wall = 0.0
    for k, facade in enumerate(facades):
        width, top = 185.0, 150 + 38 * ((k * 7) % 3)
        colour = hex_colour(facade)
        c.box(wall, top, wall + width, 520, colour)
        c.box(wall - 4, top - 12, wall + width + 4, top + 4, mix(colour, (120, 60, 40), 0.4))
        for row in range(2):
            for column in range(3):
                left, up = wall + 20 + column * 55, top + 30 + row * 82
                c.box(left - 4, up - 4, left + 36, up + 54, (255, 250, 240))
                c.box(left, up, left + 32, up + 50, hex_colour("#5f86a0"))
                c.line([(left + 16, up), (left + 16, up + 50)], (255, 250, 240), 3)
                if (row + column + k) % 3 == 0:
                    c.box(left - 6, up + 52, left + 38, up + 62, hex_colour("#c85a3c"))
        wall += width
    c.box(0, 505, 1280, 720, hex_colour("#c9bfae"))
    for row in range(9):
        y = 512 + row * row * 2.7
        for column in range(34):
            left = column * 42 + (row % 2) * 21 - 20
            c.box(
                left,
                y,
                left + 37,
                y + 4 + row * 4,
                mix(hex_colour("#c9bfae"), hex_colour("#a89a88"), c.random.random() * 0.7),
                4,
            )
    for k, (left, stripe) in enumerate(((-40, "#e0483e"), (330, "#1d9a94"), (770, "#e8a52c"), (1080, "#3f6fc4"))):
        right = left + 300
        c.box(left + 14, 330, left + 24, 560, hex_colour("#8a5a3c"))
        c.box(right - 24, 330, right - 14, 560, hex_colour("#8a5a3c"))
        c.box(left + 5, 452, right - 5, 470, hex_colour("#8a5a3c"))
        c.box(left + 10, 470, right - 10, 560, hex_colour("#b9814f"))
        for plank in range(4):
            c.line([(left + 10, 488 + plank * 20), (right - 10, 488 + plank * 20)], hex_colour("#97653a"), 2)
        c.box(left + 16, 432, right - 16, 454, hex_colour("#eaf6fb"), 8)
        for f in range(6):
            fx = left + 42 + f * 42
            body = hex_colour(("#8fb3c9", "#f08a70", "#c7d2da", "#7f9bb8")[(f + k) % 4])
            c.shape(_fish(fx, 438 + (f % 2) * 5, 0.30), body)
        for s in range(10):
            w = 30.0
            colour = hex_colour(stripe) if s % 2 == 0 else (255, 250, 240)
            c.shape(
                [(left + 20 + s * 26, 282), (left + 46 + s * 26, 282), (left + (s + 1) * w, 350), (left + s * w, 350)],
                colour,
            )
            c.disc(left + s * w + 15, 350, 15, colour, 13)
    for x0 in (0, 640):
        c.line([(x0, 180), (x0 + 320, 235), (x0 + 640, 180)], hex_colour("#6a4a3a"), 2)
        for k in range(12):
            x = x0 + 25 + k * 54
            y = 235 - 0.00054 * (x - x0 - 320) ** 2
            c.shape(
                [(x - 13, y), (x + 13, y), (x, y + 30)], hex_colour(("#e0483e", "#1d9a94", "#e8a52c", "#3f6fc4")[k % 4])
            )
    return Scene(picture=c.finish(), light=(255, 252, 244), rim=(255, 250, 225), rim_from=-1.0)


def _tram(seed: int) -> Scene:
    c = Canvas([(0, "#7a4526"), (0.16, "#a8652f"), (0.6, "#c98743"), (1, "#5a2f1e")], seed)
    c.box(0, 0, 1280, 92, hex_colour("#f0d9a8"))
    c.box(0, 84, 1280, 104, hex_colour("#8a4f28"))
    for k in range(5):
        c.disc(128 + k * 256, 40, 62, hex_colour("#fff6d8"), 18)
        c.shine(128 + k * 256, 44, 84, (170, 120, 50))
    for k in range(4):
        left = 24 + k * 316
        c.box(left - 14, 124, left + 294, 414, hex_colour("#6e3b1f"), 26)
        c.box(left, 138, left + 280, 400, hex_colour("#2d3570"), 18)
        for band, colour in ((180, "#39427f"), (220, "#5a4a8c"), (262, "#8a5590"), (300, "#c56a80")):
            c.box(left, band, left + 280, 400, hex_colour(colour), 10)
        x = left + 4.0
        while x < left + 268:
            width, height = c.random.uniform(28, 60), c.random.uniform(40, 165)
            right = min(x + width, left + 278)
            c.box(x, 398 - height, right, 398, hex_colour("#231a48"))
            for _ in range(4):
                wx, wy = c.random.uniform(x + 3, max(x + 4, right - 8)), c.random.uniform(402 - height, 386)
                c.box(wx, wy, wx + 5, wy + 8, hex_colour("#ffd27a"))
            x += width + 3
        c.shape(
            [(left + 40, 398), (left + 120, 140), (left + 165, 140), (left + 85, 398)],
            mix(hex_colour("#5a4a8c"), (255, 255, 255), 0.08),
        )
        c.line([(left, 215), (left + 280, 215)], hex_colour("#6e3b1f"), 7)
    c.box(0, 428, 1280, 470, hex_colour("#8a4f28"))
    c.box(0, 470, 1280, 600, hex_colour("#70401f"))
    for k in range(8):
        left = 10 + k * 160
        c.box(left, 424, left + 146, 520, hex_colour("#2f7a5c"), 20)
        c.box(left + 8, 432, left + 138, 505, hex_colour("#3c9470"), 16)
        c.box(left - 2, 512, left + 150, 560, hex_colour("#25644b"), 14)
    c.box(0, 600, 1280, 720, hex_colour("#4a2a1e"))
    for k in range(14):
        c.line([(k * 100, 600), (k * 130 - 190, 720)], hex_colour("#3a2018"), 3)
    for x in (190, 620, 1050):
        c.box(x - 6, 60, x + 6, 640, hex_colour("#e0b24a"))
        c.box(x - 2, 60, x, 640, hex_colour("#ffe9a8"))
    c.box(0, 108, 1280, 117, hex_colour("#e0b24a"))
    for k in range(9):
        x = 70 + k * 142
        c.line([(x, 112), (x, 160)], hex_colour("#3a2018"), 5)
        c.line([(x - 15, 188), (x, 160), (x + 15, 188), (x - 15, 188)], hex_colour("#f6e6c4"), 6)
    return Scene(picture=c.finish(), light=(255, 234, 205), rim=(255, 206, 120), rim_from=-1.0)


def _lighthouse(seed: int) -> Scene:
    c = Canvas(
        [(0, "#3a2f78"), (0.25, "#8f4f96"), (0.45, "#f0806a"), (0.6, "#ffc87a"), (0.61, "#5a4a8a"), (1, "#2d2a60")],
        seed,
    )
    for y, x, w in ((130, 100, 330), (176, 560, 420), (226, 40, 280), (258, 760, 380), (86, 800, 260)):
        c.box(x, y, x + w, y + 13, mix(hex_colour("#f7a58a"), hex_colour("#8f4f96"), 1 - y / 280), 7)
        c.box(x + 60, y + 10, x + w + 50, y + 20, mix(hex_colour("#f7a58a"), hex_colour("#8f4f96"), 1 - y / 300), 5)
    c.disc(420, 420, 66, hex_colour("#fff0b8"))
    c.shine(420, 410, 120, (160, 90, 40))
    c.box(0, 436, 1280, 600, hex_colour("#5a4a8a"))
    c.mirror(436, 600, 0.5)
    for k in range(26):
        y = 442 + k * 5
        glint = c.random.uniform(12, 70)
        c.line([(420 - glint, y), (420 + glint, y)], mix(hex_colour("#ffd890"), hex_colour("#5a4a8a"), k / 30), 2.2)
    c.shape(
        [(640, 600), (720, 470), (800, 440), (960, 420), (1150, 430), (1280, 410), (1280, 620)], hex_colour("#3c2f5e")
    )
    c.shape([(640, 600), (730, 500), (860, 470), (1000, 480), (1280, 460), (1280, 640)], hex_colour("#2f2650"))
    for low, high, w0, w1, colour in (
        (430, 360, 52, 47, "#f6ede0"),
        (360, 290, 47, 42, "#d9483e"),
        (290, 220, 42, 37, "#f6ede0"),
        (220, 160, 37, 33, "#d9483e"),
    ):
        c.shape([(1010 - w0, low), (1010 + w0, low), (1010 + w1, high), (1010 - w1, high)], hex_colour(colour))
        c.shape(
            [(1010 + w0 * 0.35, low), (1010 + w0, low), (1010 + w1, high), (1010 + w1 * 0.35, high)],
            mix(hex_colour(colour), hex_colour("#3a2f78"), 0.4),
        )
    c.box(965, 148, 1055, 162, hex_colour("#2a2148"))
    c.box(984, 104, 1036, 148, hex_colour("#fff6c0"))
    c.shape([(975, 104), (1045, 104), (1010, 66)], hex_colour("#b5362f"))
    for x in (984, 1001, 1019, 1034):
        c.line([(x, 104), (x, 148)], hex_colour("#2a2148"), 3)
    c.shape([(984, 112), (0, 20), (0, 190), (984, 140)], hex_colour("#b0698c"))
    c.shape([(984, 118), (0, 66), (0, 140), (984, 134)], hex_colour("#dd9a90"))
    c.shine(1010, 126, 90, (255, 225, 140))
    c.shape([(0, 590), (300, 566), (700, 578), (1280, 560), (1280, 720), (0, 720)], hex_colour("#3f5a4a"))
    c.shape([(0, 628), (420, 604), (1280, 622), (1280, 720), (0, 720)], hex_colour("#34503f"))
    for _ in range(240):
        left, root = c.random.uniform(0, 1280), c.random.uniform(590, 715)
        c.line(
            [(left, root), (left + c.random.uniform(-6, 8), root - c.random.uniform(9, 22))],
            mix(hex_colour("#57805a"), hex_colour("#ffb870"), c.random.random() * 0.45),
            2.2,
        )
    for x in range(30, 1280, 150):
        c.box(x, 520, x + 11, 606, hex_colour("#54405a"), 3)
    for y in (538, 566):
        c.line([(0, y), (1280, y + 3)], hex_colour("#54405a"), 6)
    return Scene(picture=c.finish(), light=(250, 222, 224), rim=(255, 186, 110), rim_from=-1.0)


def _rain_street(seed: int) -> Scene:
    c = Canvas([(0, "#101a38"), (0.5, "#243a66"), (0.7, "#2b3f66"), (1, "#141d38")], seed)
    _skyline(c, 470, 180, 400, hex_colour("#1a2750"), hex_colour("#f8d58a"), 0.14)
    signs = ("#ff4f7b", "#37e6c8", "#ffb03a", "#8f7bff", "#3fb8ff")
    for k in range(5):
        left = -30 + k * 268
        colour = hex_colour(("#27355f", "#33305c", "#1f3a58", "#3a2f55", "#28406a")[k])
        c.box(left, 110 + 30 * (k % 3), left + 262, 520, colour)
        for row in range(2):
            for column in range(4):
                is_lit = c.random.random() < 0.4
                wx, wy = left + 22 + column * 60, 150 + 30 * (k % 3) + row * 64
                c.box(wx, wy, wx + 36, wy + 44, hex_colour("#ffd98a") if is_lit else mix(colour, (10, 14, 40), 0.5), 3)
        lit = hex_colour(signs[k])
        c.box(left + 14, 380, left + 248, 520, hex_colour("#0e1430"))
        c.box(left + 24, 392, left + 160, 506, mix(lit, (255, 240, 200), 0.62))
        c.shine(left + 92, 450, 70, mix((0, 0, 0), lit, 0.30))
        c.box(left + 174, 392, left + 238, 520, mix(colour, (90, 60, 50), 0.5))
        for s in range(3):
            c.box(left + 34 + s * 42, 440 - 12 * (s % 2), left + 62 + s * 42, 506, mix(lit, (30, 20, 60), 0.55), 6)
        c.box(left + 30, 336, left + 232, 374, hex_colour("#0a0f26"), 8)
        for s in range(7):
            x = left + 48 + s * 25
            c.neon(
                [(x, 346), (x + 12 * (s % 2), 355), (x, 364)] if s % 3 else [(x, 346), (x, 364), (x + 10, 364)], lit, 4
            )
        c.box(left + 240, 250, left + 262, 372, hex_colour("#0a0f26"), 6)
        for s in range(4):
            c.neon([(left + 246, 264 + s * 27), (left + 256, 264 + s * 27)], hex_colour(signs[(k + 2) % 5]), 5)
    c.box(0, 518, 1280, 552, hex_colour("#3b4a70"))
    c.box(0, 548, 1280, 556, hex_colour("#232f52"))
    c.box(0, 556, 1280, 720, hex_colour("#182242"))
    c.mirror(556, 720, 0.72, 1.5)
    for _ in range(46):
        middle, y = c.random.uniform(0, 1280), c.random.uniform(566, 716)
        puddle = c.random.uniform(10, 34)
        c.disc(middle, y, puddle, mix(hex_colour("#3c5288"), hex_colour(c.random.choice(signs)), 0.3), puddle * 0.16)
        c.disc(middle, y, puddle * 0.8, hex_colour("#22305a"), puddle * 0.11)
    for x in (300, 930):
        c.box(x - 5, 200, x + 5, 556, hex_colour("#0d1226"))
        c.line([(x, 204), (x + 50, 190)], hex_colour("#0d1226"), 7)
        c.disc(x + 56, 198, 16, hex_colour("#fff2cc"), 9)
        c.shine(x + 56, 206, 80, (130, 110, 70))
    return Scene(
        picture=c.finish(), light=(206, 216, 246), rim=(90, 230, 235), rim_from=-1.0, reflection=0.24, is_raining=True
    )


def _rooftop(seed: int) -> Scene:
    c = Canvas([(0, "#5f8fd0"), (0.22, "#a9b8e8"), (0.42, "#ffc9b8"), (0.58, "#ffe6a0"), (1, "#ffe6a0")], seed)
    c.disc(860, 400, 96, hex_colour("#fffbe0"))
    c.shine(860, 400, 190, (150, 110, 50))
    for y, x, w in ((110, 120, 300), (160, 700, 360), (214, 330, 260), (90, 960, 240)):
        c.box(x, y, x + w, y + 16, mix(hex_colour("#fff0ea"), hex_colour("#f7b8b8"), y / 260), 8)
        c.box(x + 40, y - 10, x + w - 70, y + 8, mix(hex_colour("#fff0ea"), hex_colour("#f7b8b8"), y / 260), 9)
    _skyline(c, 540, 60, 210, hex_colour("#d9a0a8"), None)
    _skyline(c, 545, 30, 150, hex_colour("#b07a98"), hex_colour("#ffe6b0"), 0.12)
    _skyline(c, 550, 10, 80, hex_colour("#84608a"), hex_colour("#ffd890"), 0.10)
    c.blend(430, 545, hex_colour("#ffd8b0"), 0.28)
    c.box(0, 530, 1280, 566, hex_colour("#a8606a"))
    c.box(0, 522, 1280, 536, hex_colour("#d88a80"))
    c.box(0, 564, 1280, 720, hex_colour("#8a5468"))
    for k in range(7):
        y = 572 + k * 4 * (k + 2)
        c.line([(0, y), (1280, y)], hex_colour("#7a485e"), 2)
    for k in range(15):
        c.line([(640 + (k - 7) * 100, 566), (640 + (k - 7) * 190, 720)], hex_colour("#7a485e"), 2)
    for x in (150, 250):
        c.line([(x, 372), (x - 12, 560)], hex_colour("#5a3a4e"), 9)
    c.box(110, 240, 290, 380, hex_colour("#9a5f4c"), 8)
    for k in range(7):
        c.line([(122 + k * 26, 244), (122 + k * 26, 376)], hex_colour("#7f4a40"), 3)
    c.shape([(98, 244), (302, 244), (200, 178)], hex_colour("#6a3f4a"))
    for x, h in ((1090, 150), (1180, 110)):
        c.box(x, 530 - h, x + 62, 532, hex_colour("#9c5a58"))
        c.box(x - 6, 524 - h, x + 68, 542 - h, hex_colour("#6a3f4a"))
    c.line([(290, 300), (520, 346), (760, 352), (1090, 400)], hex_colour("#5a3a4e"), 2.5)
    for x, y, colour, h in (
        (380, 320, "#f5f0e6", 74),
        (470, 338, "#e0685a", 60),
        (560, 348, "#4fa8a0", 84),
        (660, 350, "#f3c95a", 58),
        (985, 388, "#f5f0e6", 66),
    ):
        c.shape([(x, y), (x + 58, y + 7), (x + 52, y + h), (x - 3, y + h - 5)], hex_colour(colour))
    return Scene(picture=c.finish(), light=(255, 236, 226), rim=(255, 232, 150), rim_from=1.0)


_PLACES: Final[dict[str, Callable[[int], Scene]]] = {
    "pier": _pier,
    "market": _market,
    "tram": _tram,
    "lighthouse": _lighthouse,
    "rain_street": _rain_street,
    "rooftop": _rooftop,
}
PLACES: Final = tuple(_PLACES)


def paint_scene(place: str, seed: int = 7) -> Scene:
    """A place by its name in `PLACES`; the seed varies windows and stars. About 0.3 s; deterministic."""
    if place not in _PLACES:
        raise BadInput(f"Place {place!r} is not known: write one of {', '.join(PLACES)}.")
    return _PLACES[place](seed)
