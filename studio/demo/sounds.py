"""The demo's room tones as ffmpeg lavfi sources."""

from __future__ import annotations

from typing import Final

WAVES: Final = (
    "anoisesrc=color=brown:amplitude=0.5:seed=7:sample_rate=48000,lowpass=f=420,tremolo=f=0.22:d=0.7,volume=0.35"
)
RAIN: Final = "anoisesrc=color=pink:amplitude=0.3:seed=11:sample_rate=48000,highpass=f=900,lowpass=f=6500"
TRAM: Final = "aevalsrc='0.05*sin(2*PI*82.4*t)+0.04*sin(2*PI*123.5*t)+0.03*sin(2*PI*164.8*t)*sin(2*PI*1.5*t)':s=48000"
MARKET: Final = "aevalsrc='0.035*sin(2*PI*261.6*t)+0.03*sin(2*PI*329.6*t)+0.03*sin(2*PI*392*t)*sin(2*PI*0.7*t)':s=48000"
"""Room tones, quiet on purpose: sea, rain, rails, a far accordion."""
