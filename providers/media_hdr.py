"""High dynamic range and wide gamut made plain sRGB, as a player on an ordinary screen shows them.

Two transfers bring more light than sRGB holds: PQ (SMPTE ST 2084) and HLG (ARIB STD-B67), both in ITU-R BT.2100.
Their light is bent into the 203 cd/m² that BT.2408 gives to white, by the curve of BT.2390 section 5.4.1, on the
largest of R, G and B, so that no hue turns; then BT.2020's primaries are brought to BT.709's and clipped.
"""

from __future__ import annotations

from enum import IntEnum
from functools import lru_cache
from typing import Any

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from providers.ports import RgbImage

Floats = NDArray[np.float32]


class Transfer(IntEnum):
    """How light was written as numbers, by the codes of ITU-T H.273; any other counts as the screen's own."""

    SCREEN = 1
    PQ = 16
    HLG = 18


WIDE_PRIMARIES = 9
"""ITU-T H.273: BT.2020."""

_WHITE_NITS = 203.0
"""ITU-R BT.2408-4 table 1: where a diffuse white lies in PQ, and in HLG on a screen of 1,000 cd/m²."""

_PEAK_NITS = 1000.0
"""What is taken as the brightest of a clip: the screen most are graded on. Brighter light becomes white."""

_FROM_WIDE = np.array(
    [[1.660491, -0.587641, -0.072850], [-0.124550, 1.132900, -0.008349], [-0.018151, -0.100579, 1.118730]], np.float32
)
"""Linear BT.2020 to linear BT.709 (ITU-R BT.2087-0, inverse of equation 2)."""

_WIDE_LUMA = np.array([0.2627, 0.6780, 0.0593], np.float32)
_STRIP_ROWS = 64
_SCREEN_STEPS = 1 << 15
_GAIN_STEPS = 4096


def transfer_of(frame: VideoFrame) -> Transfer:
    """How the frame's light is written."""
    code = int(frame.color_trc)
    return Transfer(code) if code in (Transfer.PQ, Transfer.HLG) else Transfer.SCREEN


def is_plain(frame: VideoFrame) -> bool:
    """Whether the frame's numbers can be shown as they are."""
    return transfer_of(frame) is Transfer.SCREEN and int(frame.color_primaries) != WIDE_PRIMARIES


def srgb_of(deep: NDArray[np.uint16], transfer: Transfer, *, is_wide: bool) -> RgbImage:
    """The picture in sRGB, 8 bits. `deep` is height × width × 3 in the clip's own R, G, B, full range of 16 bits.

    Deterministic; a few dozen MB beside the two pictures, whatever their size.
    """
    shown = np.empty(deep.shape, np.uint8)
    for top in range(0, deep.shape[0], _STRIP_ROWS):
        light = _light(deep[top : top + _STRIP_ROWS], transfer)
        if is_wide:
            light = light @ _FROM_WIDE.T
        steps = np.clip(light, 0, 1) * np.float32(_SCREEN_STEPS) + np.float32(0.5)
        shown[top : top + _STRIP_ROWS] = _screen_numbers()[steps.astype(np.uint16)]
    return shown


def _light(codes: NDArray[np.uint16], transfer: Transfer) -> Floats:
    """Linear light, 1 = white on the screen."""
    match transfer:
        case Transfer.PQ:
            gains: Floats = _pq_gains()[codes.max(axis=2)]
            nits: Floats = _pq_nits()[codes]
        case Transfer.HLG:
            nits = _hlg_nits(codes)
            gains = _gain_of_nits(nits.max(axis=2))
        case Transfer.SCREEN:
            return _screen_light()[codes]
    return nits * (gains[:, :, None] / np.float32(_WHITE_NITS))


def _pq_to_nits(signal: NDArray[Any]) -> Floats:
    """SMPTE ST 2084:2014, equation 4.1: cd/m² of a signal 0…1."""
    root = signal.astype(np.float64) ** (1 / _PQ_M2)
    return np.asarray(10_000 * (np.maximum(root - _PQ_C1, 0) / (_PQ_C2 - _PQ_C3 * root)) ** (1 / _PQ_M1), np.float32)


def _nits_to_pq(nits: NDArray[Any]) -> Floats:
    """SMPTE ST 2084:2014, equation 5.2: the signal 0…1 of so many cd/m²."""
    power = (np.asarray(nits, np.float64) / 10_000) ** _PQ_M1
    return np.asarray(((_PQ_C1 + _PQ_C2 * power) / (1 + _PQ_C3 * power)) ** _PQ_M2, np.float32)


_PQ_M1, _PQ_M2 = 2610 / 16384, 2523 / 4096 * 128
_PQ_C1, _PQ_C2, _PQ_C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
_HLG_A, _HLG_B, _HLG_C = 0.17883277, 0.28466892, 0.55991073
_HLG_GAMMA = 1.2
"""ITU-R BT.2100-2 table 5, on a screen of 1,000 cd/m²."""


def _bent(nits: Floats) -> Floats:
    """BT.2390-8 section 5.4.1 with black left where it is: light up to 1,000 cd/m² bent into 203."""
    peak, most = (float(_nits_to_pq(np.array([level], np.float32))[0]) for level in (_PEAK_NITS, _WHITE_NITS))
    largest = most / peak
    knee = 1.5 * largest - 0.5
    signal = np.clip(_nits_to_pq(nits) / peak, 0, 1)
    t = np.clip((signal - knee) / (1 - knee), 0, 1)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (-2 * t**3 + 3 * t**2) * largest
    bent: Floats = np.where(signal < knee, signal, spline).astype(np.float32)
    return _pq_to_nits(bent * peak)


@lru_cache(maxsize=1)
def _pq_nits() -> Floats:
    return _pq_to_nits(np.arange(65536, dtype=np.float32) / 65535)


@lru_cache(maxsize=1)
def _pq_gains() -> Floats:
    """For the largest of R, G, B as a code: by how much the picture's light there is taken back."""
    nits = np.maximum(_pq_nits(), 1e-4)
    return np.asarray(_bent(nits) / nits, np.float32)


def _hlg_nits(codes: NDArray[np.uint16]) -> Floats:
    """BT.2100-2 table 5: inverse OETF by channel, then the OOTF by luminance."""
    scene = _hlg_scene()[codes]
    luminance = scene @ _WIDE_LUMA
    return scene * (np.float32(_PEAK_NITS) * luminance ** np.float32(_HLG_GAMMA - 1))[:, :, None]


@lru_cache(maxsize=1)
def _hlg_scene() -> Floats:
    signal = np.arange(65536) / 65535
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - _HLG_C) / _HLG_A) + _HLG_B) / 12).astype(np.float32)


def _gain_of_nits(nits: Floats) -> Floats:
    steps = np.sqrt(np.clip(nits / np.float32(_PEAK_NITS), 0, 1)) * np.float32(_GAIN_STEPS - 1)
    gains: Floats = _hlg_gains()[(steps + np.float32(0.5)).astype(np.uint16)]
    return gains


@lru_cache(maxsize=1)
def _hlg_gains() -> Floats:
    nits = np.maximum((np.arange(_GAIN_STEPS, dtype=np.float32) / (_GAIN_STEPS - 1)) ** 2 * _PEAK_NITS, 1e-4)
    return np.asarray(_bent(nits.astype(np.float32)) / nits, np.float32)


@lru_cache(maxsize=1)
def _screen_light() -> Floats:
    """IEC 61966-2-1, numbers to light."""
    value = np.arange(65536) / 65535
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4).astype(np.float32)


@lru_cache(maxsize=1)
def _screen_numbers() -> NDArray[np.uint8]:
    """IEC 61966-2-1, light to numbers of 8 bits; one place more than steps, for white itself."""
    light = np.arange(_SCREEN_STEPS + 1) / _SCREEN_STEPS
    value = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.asarray(np.clip(value * 255 + 0.5, 0, 255), np.uint8)
