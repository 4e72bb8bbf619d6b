"""Captions: what a trainer is told about a picture. The trigger word first, then what varies, never the character.

A LoRA learns what the captions leave out: whatever they say of face, skin, eyes or hair would be tied to those words
instead of the trigger word (LoRA Dataset Studio and Recoil, curation_and_identity.md section 1; one source of four
says otherwise). So captions name framing, view, light and the colours around, in eight words or more, no two alike.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum

from domain.characters import CharacterKind
from domain.pictures import Framing, Light, View
from domain.records import Record

CAPTION_RULES_VERSION = 2
"""Raised whenever the words of this file change, so that sets captioned by older ones are made anew."""

FEWEST_WORDS = 8
"""curation_and_identity.md section 1."""

LONGEST_OWN = 2000
"""Characters of a caption a person wrote; the text encoders of today's trainers read 77 to 512 tokens."""


LONGEST_DESCRIBED = 800
"""Characters of a captioner's words that are kept, whole clauses only; ours: the longest of today's need no more."""


class CaptionStyle(StrEnum):
    """Prose for FLUX, Wan and Hunyuan; comma-separated tags for SDXL of the booru kind (LDS, Scenario, Recoil)."""

    PROSE = "prose"
    TAGS = "tags"


class TriggerRule(StrEnum):
    """How the trigger word gets into a caption, trainer by trainer (fal.md 2.1, runpod_trainers.md 2.4).

    `WORD`: it stands in the caption itself. For trainers that ignore their trigger field when captions exist
    (flux-lora-fast-training), have no such field (FLUX.2, Z-Image and Qwen, which also fail when a caption is missing),
    read captions only (kohya, musubi) or cache their text embeddings (ai-toolkit then). `PLACEHOLDER`: the caption says
    `[trigger]` and the trainer puts the word there (flux-lora-portrait-trainer, turbo-flux-trainer, ai-toolkit without
    that cache). `PREPENDED`: the trainer puts the word before each caption itself (ltx23-video-trainer). Whether
    fal's Wan trainers prepend theirs is not confirmed, so they get `WORD`: said twice does no harm, never does.
    """

    WORD = "word"
    PLACEHOLDER = "placeholder"
    PREPENDED = "prepended"


PLACEHOLDER = "[trigger]"


class Surroundings(Record):
    """What a picture's light and edges look like, in words; measured by providers/picture_words.py."""

    light: Light
    tone: str
    """`warm`, `cool` or `neutral`."""
    above: str
    below: str
    left: str
    right: str
    """Names of colours."""


class Shown(Record):
    """What varies in one picture."""

    surroundings: Surroundings
    framing: Framing = Framing.UNKNOWN
    view: View = View.UNKNOWN


LIGHT_WORDS = {
    Light.NIGHT: "night light",
    Light.DIM: "dim light",
    Light.SOFT: "soft light",
    Light.BRIGHT: "bright light",
}

_FRAMING_PROSE = {
    Framing.CLOSE_UP: "a close-up",
    Framing.BUST: "a picture from the waist up",
    Framing.FULL: "a full-length picture",
    Framing.UNKNOWN: "a picture",
}
_FRAMING_TAGS = {Framing.CLOSE_UP: "close-up", Framing.BUST: "upper body", Framing.FULL: "full body"}
_VIEW_PROSE = {
    View.FRONTAL: "from the front",
    View.THREE_QUARTER: "in three-quarter view",
    View.PROFILE: "from the side",
    View.BACK: "from behind",
}
_VIEW_TAGS = {
    View.FRONTAL: "front view",
    View.THREE_QUARTER: "three-quarter view",
    View.PROFILE: "from side",
    View.BACK: "from behind",
}
_CLASS_WORDS = {
    CharacterKind.PERSON: "person",
    CharacterKind.ILLUSTRATED: "character",
    CharacterKind.OTHER: "subject",
}

_LIKENESS_TEXT = """
face faces facial faced skin skinned complexion freckle freckles freckled eye eyes eyed eyebrow eyebrows eyelash
eyelashes iris hair hairs haired hairstyle haircut hairdo fringe bangs ponytail braid braids beard bearded moustache
mustache stubble bald blonde blond brunette redhead ginger nose lip lips mouth cheek cheeks cheekbones chin jaw
jawline forehead ear ears wrinkle wrinkles scar dimple dimples
"""
"""Words that say who somebody is. `braid` and the like are hair; clothes are not in it, for they change."""

_LIKENESS_WORDS = frozenset(_LIKENESS_TEXT.split())


def write_caption(trigger_word: str, shown: Shown, style: CaptionStyle = CaptionStyle.PROSE) -> str:
    """The automatic caption of one picture, the trigger word itself first. Eight words or more; pure."""
    around = shown.surroundings
    sides = f"{around.left} on the left and {around.right} on the right"
    is_one_colour = around.left == around.right
    if style is CaptionStyle.TAGS:
        tags = [
            trigger_word,
            _FRAMING_TAGS.get(shown.framing, ""),
            _VIEW_TAGS.get(shown.view, ""),
            LIGHT_WORDS[around.light],
            f"{around.tone} tones",
            f"{around.above} above",
            f"{around.below} below",
            f"{around.left} background" if is_one_colour else sides.replace(" and ", ", "),
        ]
        return ", ".join(tag for tag in tags if tag)
    view = f" {_VIEW_PROSE[shown.view]}" if shown.view in _VIEW_PROSE else ""
    background = f" and a background of {around.left}" if is_one_colour else f", {sides}"
    return (
        f"{trigger_word}, {_FRAMING_PROSE[shown.framing]}{view}, in {LIGHT_WORDS[around.light]} with "
        f"{around.tone} tones, {around.above} above, {around.below} below{background}"
    )


def fixed_caption(trigger_word: str, kind: CharacterKind) -> str:
    """The one caption of every picture where a character's captions are `fixed`."""
    return f"{trigger_word}, a picture of this one {class_word(kind)} in the season"


def own_caption(text: str, trigger_word: str) -> str:
    """A caption somebody wrote: their words on one line, the trigger word first where they left it out.

    `[trigger]` and `[name]` become the word. Control characters and all beyond 2,000 characters go: the file came
    from outside. An empty text gives ''.
    """
    words = " ".join("".join(char if char.isprintable() else " " for char in text).split())[:LONGEST_OWN].strip()
    if not words:
        return ""
    words = words.replace(PLACEHOLDER, trigger_word).replace("[name]", trigger_word)
    return words if says_trigger(words, trigger_word) else f"{trigger_word}, {words}"


def cleaned_caption(text: str, trigger_word: str, automatic: str) -> str:
    """A caption made of a captioner's words, which are a stranger's: the trigger word, then what varies. Pure.

    Clauses that say a word of face, skin, eyes or hair go, with the bare adjectives beside them ("Her hair, long and
    black"). Where fewer than eight words are left, those of the `automatic` caption of the same picture follow. So the
    result is never empty, one printable line, and describes nobody's looks, unless `automatic` does. English only:
    looks described in another language stay.
    """
    clauses = _without_likeness(_clauses(_plain_words(text, trigger_word)))
    said = _joined(clauses)
    caption = f"{trigger_word}, {said}" if said else trigger_word
    if len(caption.split()) >= FEWEST_WORDS:
        return caption
    rest = caption_for_trainer(automatic, trigger_word, TriggerRule.PREPENDED)
    return f"{caption}, {rest}"


def caption_for_trainer(caption: str, trigger_word: str, rule: TriggerRule) -> str:
    """A set's caption (which says the trigger word) as this trainer wants it."""
    whole = caption if says_trigger(caption, trigger_word) else f"{trigger_word}, {caption}"
    pattern = _word(trigger_word)
    match rule:
        case TriggerRule.WORD:
            return whole
        case TriggerRule.PLACEHOLDER:
            return pattern.sub(PLACEHOLDER, whole)
        case TriggerRule.PREPENDED:
            rest = re.sub(rf"^{pattern.pattern}[\s,:;.-]*", "", whole)
            return rest or whole


def says_trigger(caption: str, trigger_word: str) -> bool:
    """Whether the caption holds the trigger word as a word of its own, letter by letter."""
    return _word(trigger_word).search(caption) is not None


def likeness_words(caption: str, trigger_word: str = "") -> tuple[str, ...]:
    """The words of a caption that describe the character's own looks, in order, each once; the trigger word is none."""
    said = _word(trigger_word).sub(" ", caption) if trigger_word else caption
    found = [word for word in re.findall(r"[a-z]+", said.casefold()) if word in _LIKENESS_WORDS]
    return tuple(dict.fromkeys(found))


def caption_warnings(
    captions: Sequence[tuple[str, str]], trigger_word: str, *, is_fixed: bool = False
) -> tuple[str, ...]:
    """What a person should know of a set's captions, given as (picture's name, caption), a sentence each.

    Those alike (all named; not where captions are fixed), looks of the character described, fewer than eight words.
    """
    warnings: list[str] = []
    alike: dict[str, list[str]] = {}
    for name, caption in captions:
        alike.setdefault(" ".join(re.findall(r"\w+", caption.casefold())), []).append(name)
    if not is_fixed:
        warnings += [
            f"{', '.join(names[:-1])} and {names[-1]} have the same caption: the LoRA cannot tell what varies between "
            "them, so give all but one their own words, or drop them."
            for names in alike.values()
            if len(names) > 1
        ]
    for name, caption in captions:
        if said := likeness_words(caption, trigger_word):
            warnings.append(
                f"The caption of {name} says {', '.join(said)}: leave the character's own looks out, or the LoRA ties "
                f"them to those words instead of {trigger_word}."
            )
        if (count := len(caption.split())) < FEWEST_WORDS:
            warnings.append(f"The caption of {name} has {count} words: {FEWEST_WORDS} or more teach better.")
    return tuple(warnings)


def class_word(kind: CharacterKind) -> str:
    """What kind of thing the trigger word names, as kohya's class tokens want it."""
    return _CLASS_WORDS[kind]


def _word(trigger_word: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(trigger_word)}(?!\w)")


class _Clause(Record):
    """A few words of a description. `mark`: how it is set off from what stands before it, `.`, `,` or ''."""

    mark: str
    words: str


_BREAKS = re.compile(r"\s*(?:([.!?]+)(?=\s|$)|[,;:()\[\]{}|…\"“”—–]+|\s-+\s)\s*")
_STARTS = (
    "and or but with while who whose which wearing holding carrying standing sitting walking running looking in inside "
    "on at against under above below near beside behind before outside from during by next"
)
_BEFORE_START = re.compile(rf"\s+(?=(?:{'|'.join(_STARTS.split())})\b)", re.IGNORECASE)
_JOINERS = frozenset("and or but with while who whose which".split())  # noqa: SIM905 a text reads better
_BARE_WORDS = 2


def _plain_words(text: str, trigger_word: str) -> str:
    """One printable line without the trigger word and what stands for it, of a length that is soon looked through."""
    line = "".join(char if char.isprintable() else " " for char in text[: 4 * LONGEST_DESCRIBED])
    for placeholder in (PLACEHOLDER, "[name]"):
        line = line.replace(placeholder, " ")
    return " ".join(_word(trigger_word).sub(" ", line).split())


def _clauses(line: str) -> list[_Clause]:
    """A line taken apart at its marks, and before words that begin something new."""
    pieces = _BREAKS.split(line)
    marks = [".", *("." if ends else "," for ends in pieces[1::2])]
    found = []
    for mark, piece in zip(marks, pieces[0::2], strict=True):
        for place, words in enumerate(_BEFORE_START.split(piece)):
            if words.strip():
                found.append(_Clause(mark="" if place else mark, words=words.strip()))
    return found


def _without_likeness(clauses: Sequence[_Clause]) -> list[_Clause]:
    """The clauses that say nothing of somebody's looks, and none that only qualifies one that does."""
    is_out = [bool(likeness_words(clause.words)) for clause in clauses]
    for order in (range(1, len(clauses)), range(len(clauses) - 2, -1, -1)):
        step = -1 if order.step > 0 else 1
        for place in order:
            later = max(place, place + step)
            is_same_sentence = clauses[later].mark != "."
            is_out[place] |= is_out[place + step] and is_same_sentence and _is_bare(clauses[place])
    kept: list[_Clause] = []
    has_gap = False
    for clause, out in zip(clauses, is_out, strict=True):
        if not out:
            kept.append(_Clause(mark=clause.mark or ("," if has_gap else ""), words=clause.words))
        has_gap = out
    return kept


def _is_bare(clause: _Clause) -> bool:
    words = [word for word in clause.words.casefold().split() if word not in _JOINERS]
    return len(words) <= _BARE_WORDS and (not words or words[0] not in _STARTS.split())


def _joined(clauses: Sequence[_Clause]) -> str:
    """The clauses as a text again, as many as fit."""
    said = ""
    for clause in clauses:
        words = clause.words
        if not said or clause.mark:
            first, _, rest = words.partition(" ")
            words = rest if first.casefold() in _JOINERS else words
        if not words:
            continue
        gap = {".": ". ", ",": ", "}.get(clause.mark, " ") if said else ""
        if len(said) + len(gap) + len(words) > LONGEST_DESCRIBED:
            break
        said += gap + words
    return said.rstrip(" .,;:!?-")
