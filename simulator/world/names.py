"""Made-up names for tracks, artists, genres and playlists: plausible words, no real act or song intended."""

from __future__ import annotations

import numpy as np

GENRES = (
    "rock", "pop", "hip hop", "electronic", "jazz", "classical", "folk", "metal", "soul", "reggae", "country", "blues",
    "latin", "ambient", "punk", "funk", "r&b", "indie", "house", "techno", "afrobeat", "soundtrack", "gospel", "disco",
)  # fmt: skip
_STYLE = (
    "dream", "northern", "slow", "garage", "desert", "chamber", "future", "coastal", "lo-fi", "progressive", "acoustic",
    "dark", "vintage", "island", "minimal", "orchestral", "street", "cosmic", "underground", "golden", "post",
    "tropical",
)  # fmt: skip
_ADJECTIVE = (
    "Silver", "Broken", "Quiet", "Golden", "Paper", "Electric", "Hollow", "Velvet", "Distant", "Wild", "Crystal",
    "Burning", "Faded", "Northern", "Lonely", "Midnight", "Amber", "Wooden", "Restless", "Scarlet", "Gentle", "Frozen",
    "Secret", "Summer", "Rusty", "Hidden", "Neon", "Winter", "Violet", "Tender", "Sleeping", "Stolen", "Endless",
    "Blue", "Crooked", "Sunlit", "Invisible", "Ragged", "Holy", "Salted",
)  # fmt: skip
_NOUN = (
    "Harbor", "Moon", "River", "Garden", "Mirror", "Highway", "Lantern", "Kingdom", "Letters", "Thunder", "Orchard",
    "Avenue", "Ocean", "Shadow", "Carousel", "Satellite", "Windows", "Feather", "Station", "Valley", "Engine", "Island",
    "Compass", "Cinema", "Mountain", "Parade", "Signal", "Honey", "Ghost", "Skyline", "Fever", "Bridge", "Stranger",
    "Atlas", "Ember", "Tide", "Canyon", "Rooftop", "Marble", "Arrow", "Bloom", "Static", "Radio", "Lullaby",
)  # fmt: skip
_VERB = (
    "Run", "Fall", "Come Back", "Hold On", "Wait", "Drive", "Sing", "Belong", "Return", "Wake Up", "Drift", "Surrender",
    "Dance", "Walk", "Give In", "Disappear",
)  # fmt: skip
_PLURAL = (
    "Foxes", "Cartographers", "Sparrows", "Lanterns", "Wolves", "Drifters", "Mirrors", "Pilots", "Orchids", "Strangers",
    "Astronauts", "Tigers", "Ghosts", "Kings", "Sailors", "Satellites", "Dreamers", "Ravens", "Gardeners", "Tides",
    "Machines", "Hearts", "Brothers", "Sisters", "Comets", "Villains", "Poets", "Nomads", "Echoes", "Engineers",
)  # fmt: skip
_GIVEN = (
    "Mara", "Jonas", "Ada", "Theo", "Ines", "Malik", "Freya", "Oscar", "Leila", "Bruno", "Nadia", "Felix", "Yuna",
    "Omar", "Clara", "Idris", "Paloma", "Hugo", "Sanna", "Kofi", "Elise", "Ravi", "Noor", "Emil", "Tala", "Marco",
    "Vera", "Dario", "Amara", "Silas", "Juno", "Mateo", "Signe", "Kaito", "Rosa", "Anton", "Zadie", "Luca",
)  # fmt: skip
_ONSET = ("b", "br", "c", "d", "f", "g", "gr", "h", "k", "l", "m", "n", "p", "r", "s", "st", "t", "tr", "v", "w")
_VOWEL = ("a", "e", "i", "o", "u", "ai", "ei", "ou")
_ENDING = (
    "n",
    "r",
    "son",
    "berg",
    "li",
    "dez",
    "mann",
    "ska",
    "tti",
    "ford",
    "vik",
    "ra",
    "mo",
    "quist",
    "well",
    "sen",
)


def _pick(words: tuple[str, ...], n: int, rng: np.random.Generator) -> list[str]:
    return [words[i] for i in rng.integers(0, len(words), size=n).tolist()]


def track_titles(n: int, rng: np.random.Generator) -> list[str]:
    """n titles; they may repeat, as titles do."""
    form = rng.integers(0, 6, size=n).tolist()
    adjective, noun, other, verb = (_pick(w, n, rng) for w in (_ADJECTIVE, _NOUN, _NOUN, _VERB))
    out = []
    for f, a, b, c, v in zip(form, adjective, noun, other, verb, strict=True):
        out.append((f"{a} {b}", f"{v} to the {b}", f"{b} and {c}", f"{b} of {c}", f"{v}, {a} {b}", f"The {a} {b}")[f])
    return out


def artist_names(n: int, rng: np.random.Generator) -> list[str]:
    """n different names, of bands and of people."""
    out: dict[str, None] = {}
    while len(out) < n:
        m = n - len(out)
        form = rng.integers(0, 5, size=m).tolist()
        given, plural, adjective, noun = (_pick(w, m, rng) for w in (_GIVEN, _PLURAL, _ADJECTIVE, _NOUN))
        parts = [_pick(w, m, rng) for w in (_ONSET, _VOWEL, _ONSET, _VOWEL, _ENDING)]
        for i, f in enumerate(form):
            surname = "".join(p[i] for p in parts).capitalize()
            name = (
                f"{given[i]} {surname}",
                f"{given[i]} {surname}",
                f"The {adjective[i]} {plural[i]}",
                f"{surname} {noun[i]}",
                f"{given[i]} & the {plural[i]}",
            )[f]
            out[name] = None
    return list(out)


def show_titles(styles_of: list[str], rng: np.random.Generator) -> list[str]:
    """A title for a show about each of these styles."""
    form, noun = rng.integers(0, 4, size=len(styles_of)).tolist(), _pick(_NOUN, len(styles_of), rng)
    return [
        (f"The {n} Hour", f"{n} Talks", f"Inside {s}", f"{s.capitalize()} and the {n}")[f]
        for f, n, s in zip(form, noun, styles_of, strict=True)
    ]


def list_titles(styles_of: list[str], rng: np.random.Generator) -> list[str]:
    """A title for a playlist of each of these styles."""
    form, word = rng.integers(0, 4, size=len(styles_of)).tolist(), _pick(_ADJECTIVE, len(styles_of), rng)
    return [
        (f"{w} {s}", f"{s.capitalize()} for hours", f"All {s}", f"{s.capitalize()}, {w.lower()}")[f]
        for f, w, s in zip(form, word, styles_of, strict=True)
    ]


def styles(genre: int, n: int) -> list[str]:
    """n names of styles within a genre, all different over genres."""
    name = genre_name(genre)
    return [
        f"{_STYLE[(7 * genre + i) % len(_STYLE)]} {name}" + (f" {i // len(_STYLE) + 1}" if i >= len(_STYLE) else "")
        for i in range(n)
    ]


def genre_name(genre: int) -> str:
    """The name of a genre; numbered when there are more genres than words."""
    return GENRES[genre] if genre < len(GENRES) else f"{GENRES[genre % len(GENRES)]} {genre // len(GENRES) + 1}"
