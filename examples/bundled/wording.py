"""The words of the captions: what styles, tempi, moods and uses are called."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Wording:
    """How people name a style. names: stand alone, the plainest first. nouns: after an adjective and in sentences.

    moods: true of every piece of the style. uses: what it is played for.
    """

    names: tuple[str, ...]
    nouns: tuple[str, ...]
    moods: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()


DANCING = ("dancing", "a party", "the dance floor", "a night out", "a club night")
GAMES = ("a video game", "a retro game", "an arcade game", "a platformer", "a pixel art game")
CALM = ("relaxing", "meditation", "a quiet evening", "calming down", "winding down")
DINNER = ("a dinner", "a restaurant", "a cocktail bar", "a cafe", "a lounge")

STYLES: dict[str, Wording] = {
    "disco": Wording(
        (
            "disco",
            "disco beat",
            "disco music",
            "70s disco",
            "disco groove",
            "seventies disco",
            "disco funk",
            "nu disco",
        ),
        ("disco track", "disco song", "disco beat", "disco groove", "disco tune"),
        ("groovy", "danceable", "funky", "glittering"),
        (*DANCING, "a roller disco", "a summer party"),
    ),
    "house": Wording(
        (
            "house",
            "house music",
            "deep house",
            "house beat",
            "club house",
            "edm",
            "electronic dance music",
            "club music",
        ),
        ("house track", "house tune", "house groove", "club track", "dance track", "house beat"),
        ("danceable", "groovy", "hypnotic", "pumping"),
        (*DANCING, "a pool party", "a fashion show"),
    ),
    "techno": Wording(
        (
            "techno",
            "techno beat",
            "techno music",
            "electronic",
            "acid techno",
            "detroit techno",
            "rave",
            "warehouse techno",
        ),
        ("techno track", "techno tune", "techno beat", "rave track", "club track", "electronic track"),
        ("hypnotic", "driving", "mechanical", "relentless", "repetitive"),
        ("a rave", "a warehouse party", "the dance floor", "a club night", "dancing all night"),
    ),
    "trance": Wording(
        ("trance", "trance music", "uplifting trance", "edm", "electronic dance music", "eurodance", "trance anthem"),
        ("trance track", "trance tune", "trance anthem", "dance track"),
        ("euphoric", "hypnotic", "soaring"),
        (*DANCING, "a festival", "a rave"),
    ),
    "drum and bass": Wording(
        ("drum and bass", "d'n'b", "dnb", "drum'n'bass", "drum n bass", "jungle", "liquid drum and bass", "breakbeat"),
        ("drum and bass track", "dnb track", "jungle track", "drum and bass tune", "breakbeat track"),
        ("rolling", "electronic", "urban"),
        ("a rave", "a racing game", "a car chase", "a club night", "skateboarding"),
    ),
    "synthwave": Wording(
        (
            "synthwave",
            "80s synthwave",
            "retrowave",
            "outrun",
            "synth pop",
            "eighties synth music",
            "80s synth",
            "electronic",
        ),
        ("synthwave track", "retrowave track", "synthwave song", "80s synth track"),
        ("retro", "nostalgic", "neon", "futuristic", "cinematic"),
        ("a night drive", "driving at night", "a science fiction film", "an 80s movie", "a retro game"),
    ),
    "trap": Wording(
        ("trap", "trap beat", "trap music", "southern hip hop", "808 beat", "rap beat", "trap instrumental"),
        ("trap beat", "trap instrumental", "trap track", "rap beat"),
        ("menacing", "moody", "urban", "hard"),
        ("a rapper", "rapping", "the street", "a freestyle"),
    ),
    "ambient": Wording(
        (
            "ambient",
            "ambient music",
            "ambient pad",
            "drone",
            "ambient soundscape",
            "slow ambient",
            "new age",
            "soundscape",
        ),
        ("ambient piece", "ambient track", "soundscape", "ambient drone", "pad"),
        ("atmospheric", "floating", "slow", "ethereal", "spacious", "peaceful", "quiet", "dreamy"),
        ("meditation", "yoga", "sleep", "sleeping", "relaxing", "a planetarium", "deep focus", "a spa"),
    ),
    "chiptune": Wording(
        (
            "chiptune",
            "8-bit",
            "8-bit music",
            "video game music",
            "chip music",
            "8bit",
            "game boy music",
            "nintendo music",
        ),
        ("chiptune", "8-bit tune", "video game tune", "chip tune", "game theme"),
        ("retro", "playful", "pixelated", "electronic"),
        (*GAMES, "a boss fight", "a level theme"),
    ),
    "drums": Wording(
        (
            "drums only",
            "drums",
            "drum beat",
            "drum loop",
            "drum groove",
            "just drums",
            "beat",
            "percussion",
            "drum solo",
        ),
        ("drum beat", "drum groove", "drum loop", "beat", "drum pattern"),
        ("rhythmic", "percussive"),
        ("practising", "a jam session", "sampling", "a drummer"),
    ),
    "rock": Wording(
        (
            "rock",
            "rock music",
            "rock band",
            "hard rock",
            "guitar rock",
            "classic rock",
            "rock song",
            "alternative rock",
        ),
        ("rock song", "rock track", "rock riff", "rock tune", "rock anthem"),
        ("powerful", "raw", "electric"),
        ("a road trip", "a stadium", "a live concert", "a sports highlight", "a motorbike ride"),
    ),
    "metal": Wording(
        ("metal", "heavy metal", "thrash metal", "metal riff", "death metal", "metal music", "headbanging metal"),
        ("metal track", "metal riff", "metal song", "heavy metal track"),
        ("aggressive", "heavy", "brutal", "angry", "loud", "fierce"),
        ("headbanging", "a mosh pit", "a boss fight", "lifting weights", "a battle"),
    ),
    "pop": Wording(
        ("pop", "pop music", "pop song", "pop track", "radio pop", "mainstream pop", "indie pop", "pop beat"),
        ("pop song", "pop track", "pop tune", "pop ballad"),
        ("catchy", "radio-friendly"),
        ("the radio", "a commercial", "a vlog", "an advert", "a road trip"),
    ),
    "blues": Wording(
        ("blues", "blues band", "electric blues", "slow blues", "blues shuffle", "chicago blues", "12-bar blues"),
        ("blues song", "blues shuffle", "blues tune", "blues jam"),
        ("soulful", "bluesy", "gritty"),
        ("a smoky bar", "a late night bar", "a jam session", "a road trip"),
    ),
    "funk": Wording(
        ("funk", "funk groove", "funk band", "funky groove", "70s funk", "funk music", "soul funk", "funk beat"),
        ("funk track", "funk groove", "funk jam", "funk song"),
        ("funky", "groovy", "danceable", "tight", "syncopated"),
        ("dancing", "a block party", "a heist film", "a party", "a cooking show"),
    ),
    "reggae": Wording(
        ("reggae", "reggae music", "roots reggae", "reggae band", "jamaican reggae", "reggae groove", "dub"),
        ("reggae song", "reggae track", "reggae groove", "reggae tune"),
        ("laid-back", "sunny", "relaxed", "tropical"),
        ("the beach", "a summer party", "a barbecue", "a holiday", "an island holiday"),
    ),
    "hip hop": Wording(
        ("hip hop", "hip hop beat", "hip-hop", "hiphop", "boom bap", "rap beat", "old school hip hop", "90s hip hop"),
        ("hip hop beat", "hip hop track", "boom bap beat", "rap instrumental", "hip-hop instrumental"),
        ("urban", "head-nodding", "cool", "streetwise"),
        ("rapping", "a rapper", "a freestyle", "the street", "a basketball game"),
    ),
    "lo-fi": Wording(
        ("lo-fi", "lofi", "lo-fi hip hop", "lofi beats", "lofi hip hop", "chillhop", "lo-fi beat", "lofi study beat"),
        ("lofi beat", "lo-fi track", "chillhop beat", "lo-fi hip hop beat"),
        ("chill", "mellow", "cozy", "relaxed", "warm", "nostalgic", "calm"),
        ("studying", "homework", "a rainy day", "reading", "working", "relaxing", "a coffee shop", "late nights"),
    ),
    "bossa nova": Wording(
        ("bossa nova", "bossa", "brazilian bossa nova", "brazilian jazz", "latin jazz", "samba", "brazilian music"),
        ("bossa nova", "bossa nova tune", "bossa track", "bossa nova song"),
        ("laid-back", "elegant", "breezy", "smooth", "warm"),
        (*DINNER, "the beach", "a hotel lobby", "an elevator", "a sunset"),
    ),
    "salsa": Wording(
        ("salsa", "latin music", "salsa band", "cuban music", "latin dance", "mambo", "cuban salsa"),
        ("salsa", "salsa track", "latin tune", "salsa song"),
        ("hot", "danceable", "spicy", "festive"),
        ("salsa dancing", "dancing", "a carnival", "a street party", "a summer party"),
    ),
    "jazz": Wording(
        ("jazz", "jazz band", "swing jazz", "swing", "jazz music", "bebop", "jazz combo", "cool jazz", "jazz club"),
        ("jazz tune", "jazz piece", "swing tune", "jazz standard", "jazz number"),
        ("swinging", "smooth", "smoky", "sophisticated"),
        (*DINNER, "a jazz club", "a detective film", "a late night bar"),
    ),
    "country": Wording(
        ("country", "country music", "country song", "country band", "americana", "nashville country", "western"),
        ("country song", "country tune", "country track"),
        ("rustic", "down-home", "folksy"),
        ("a road trip", "a barn dance", "a rodeo", "a truck drive", "a western"),
    ),
    "bluegrass": Wording(
        ("bluegrass", "bluegrass band", "banjo bluegrass", "folk", "appalachian folk", "hoedown", "string band"),
        ("bluegrass tune", "bluegrass song", "hoedown", "folk tune", "breakdown"),
        ("rustic", "acoustic", "folksy", "rural"),
        ("a barn dance", "a county fair", "a front porch", "a hoedown", "a chase through the fields"),
    ),
    "piano": Wording(
        ("piano", "piano music", "piano piece", "classical piano", "solo piano", "piano solo", "piano alone"),
        ("piano piece", "piano tune", "piano solo", "piano composition"),
        ("acoustic", "intimate", "expressive"),
        (*DINNER, "studying", "a wedding", "reading", "a drama"),
    ),
    "acoustic guitar": Wording(
        ("acoustic guitar", "guitar", "fingerstyle guitar", "acoustic guitar solo", "folk guitar", "unplugged guitar"),
        ("acoustic guitar piece", "guitar piece", "guitar tune", "folk guitar tune"),
        ("acoustic", "warm", "intimate", "natural"),
        ("a campfire", "a road trip", "studying", "a documentary", "a quiet morning", "a wedding"),
    ),
    "strings": Wording(
        (
            "strings",
            "classical strings",
            "string orchestra",
            "classical music",
            "classical",
            "string ensemble",
            "orchestral strings",
        ),
        ("string piece", "classical piece", "string orchestra piece", "orchestral piece"),
        ("classical", "elegant", "orchestral", "lush"),
        ("a wedding", "a ball", "a period drama", "a documentary", "a gala"),
    ),
    "film score": Wording(
        (
            "film score",
            "film music",
            "cinematic",
            "movie soundtrack",
            "orchestral",
            "soundtrack",
            "cinematic orchestra",
            "trailer music",
        ),
        ("film score", "soundtrack", "cinematic piece", "orchestral cue", "movie theme"),
        ("cinematic", "orchestral", "dramatic", "grand"),
        ("a film", "a movie trailer", "a fantasy film", "a documentary", "a historical drama"),
    ),
    "music box": Wording(
        ("music box", "music box melody", "a music box", "toy music box", "lullaby", "music box lullaby"),
        ("music box melody", "lullaby", "music box tune"),
        ("delicate", "tinkling", "childlike", "innocent", "quiet"),
        ("a baby", "a nursery", "bedtime", "sleep", "a fairy tale", "falling asleep"),
    ),
    "choir": Wording(
        ("choir", "choir pad", "vocal", "choral music", "voices", "a choir", "choral", "vocal choir", "sacred choir"),
        ("choral piece", "choir piece", "choir", "vocal piece"),
        ("sacred", "ethereal", "angelic", "solemn"),
        ("a church", "a cathedral", "a funeral", "a ceremony", "a fantasy film"),
    ),
    "church organ": Wording(
        ("church organ", "pipe organ", "organ", "sacred organ music", "church music", "cathedral organ"),
        ("church organ piece", "pipe organ piece", "hymn", "organ piece"),
        ("sacred", "solemn", "majestic", "grand"),
        ("a church", "a cathedral", "a wedding ceremony", "a funeral", "a mass"),
    ),
    "organ": Wording(
        ("hammond organ", "organ", "electric organ", "organ solo", "organ music", "gospel organ"),
        ("organ piece", "organ tune", "hammond organ groove", "organ solo"),
        ("soulful", "warm", "vintage"),
        ("a church service", "a baseball game", "a soul club", "an old quiz show"),
    ),
    "harpsichord": Wording(
        ("harpsichord", "baroque harpsichord", "baroque", "baroque music", "harpsichord solo", "classical harpsichord"),
        ("harpsichord piece", "baroque piece", "harpsichord tune", "baroque dance"),
        ("baroque", "ornate", "courtly", "classical"),
        ("a royal court", "a period drama", "a palace", "a masked ball"),
    ),
    "harp": Wording(
        ("harp", "harp music", "celtic harp", "harp solo", "classical harp", "concert harp"),
        ("harp piece", "harp tune", "harp melody"),
        ("heavenly", "gentle", "delicate", "magical"),
        (*CALM, "a wedding", "a fairy tale", "a dream scene", "a spa"),
    ),
    "marimba": Wording(
        ("marimba", "marimba music", "mallets", "marimba solo", "mallet percussion", "wooden mallets"),
        ("marimba piece", "marimba tune", "marimba pattern"),
        ("playful", "wooden", "tropical", "bouncy"),
        ("a cartoon", "a ringtone", "a nature documentary", "a puzzle game"),
    ),
    "accordion": Wording(
        ("accordion", "accordion music", "french accordion", "accordion folk", "musette", "polka", "folk accordion"),
        ("accordion tune", "accordion piece", "folk tune"),
        ("folksy", "nostalgic", "european"),
        ("a street in paris", "a village dance", "a cafe", "a folk festival"),
    ),
    "sitar": Wording(
        ("sitar", "indian", "indian music", "indian sitar", "raga", "sitar music", "indian classical"),
        ("sitar piece", "raga", "indian piece", "sitar melody"),
        ("indian", "meditative", "exotic", "eastern", "hypnotic"),
        ("yoga", "meditation", "an indian restaurant", "a travel documentary"),
    ),
    "saxophone": Wording(
        ("saxophone", "sax", "saxophone solo", "sax solo", "saxophone melody", "sax melody"),
        ("saxophone solo", "sax melody", "saxophone piece", "sax tune"),
        ("smooth", "sultry", "soulful"),
        ("a late night bar", "a romantic dinner", "a detective film", "a lonely night"),
    ),
    "bass": Wording(
        ("bass", "electric bass", "bass guitar", "bass line", "bass solo", "bassline", "bass riff"),
        ("bass line", "bass groove", "bass riff", "bass solo"),
        ("low", "deep", "groovy"),
        ("practising", "a jam session", "a bass player"),
    ),
    "electric guitar": Wording(
        ("electric guitar", "guitar solo", "guitar", "electric guitar solo", "guitar riff", "guitar melody"),
        ("guitar solo", "guitar riff", "electric guitar piece", "guitar melody"),
        ("electric", "expressive"),
        ("practising", "a jam session", "a road movie"),
    ),
    "flute": Wording(
        ("flute", "flute melody", "flute music", "flute solo", "classical flute", "flute tune"),
        ("flute melody", "flute piece", "flute tune", "flute solo"),
        ("airy", "pastoral", "light"),
        (*CALM, "a fairy tale", "a forest", "a nature documentary"),
    ),
    "violin": Wording(
        ("violin", "violin melody", "violin solo", "classical violin", "violin music"),
        ("violin piece", "violin melody", "violin solo", "violin tune"),
        ("expressive", "classical"),
        ("a wedding", "a drama", "a concert hall", "a love scene"),
    ),
    "cello": Wording(
        ("cello", "cello melody", "cello solo", "classical cello", "cello music"),
        ("cello piece", "cello melody", "cello solo"),
        ("deep", "expressive", "classical", "warm"),
        ("a drama", "a documentary", "a funeral", "a concert hall"),
    ),
    "trumpet": Wording(
        ("trumpet", "trumpet melody", "trumpet solo", "brass", "trumpet music", "trumpet fanfare"),
        ("trumpet melody", "trumpet solo", "trumpet piece", "trumpet tune"),
        ("brassy", "proud"),
        ("a parade", "a ceremony", "a royal entrance", "a western"),
    ),
    "clarinet": Wording(
        ("clarinet", "clarinet melody", "clarinet solo", "woodwind", "clarinet music"),
        ("clarinet melody", "clarinet piece", "clarinet solo", "clarinet tune"),
        ("woody", "mellow"),
        ("a cartoon", "a garden party", "a concert hall", "an old film"),
    ),
}

TEMPI = (  # below this many bpm: words that stand alone or before a noun
    (72, ("very slow", "slow", "slow-moving", "at a slow tempo", "downtempo", "unhurried")),
    (92, ("slow", "relaxed", "at a slow tempo", "slow tempo", "leisurely", "easygoing")),
    (112, ("mid-tempo", "moderate", "medium tempo", "at a moderate tempo", "midtempo", "walking pace")),
    (134, ("upbeat", "uptempo", "lively", "at a lively tempo", "up-tempo", "moderately fast")),
    (156, ("fast", "uptempo", "quick", "at a fast tempo", "fast-paced", "brisk")),
    (999, ("very fast", "fast", "at a very fast tempo", "rapid", "racing", "high-speed", "frantic")),
)
NUMBERS = (
    *(
        "{} bpm",
        "at {} bpm",
        "{} BPM",
        "at {} BPM",
        "{}bpm",
        "{} beats per minute",
        "tempo {}",
        "at {} beats per minute",
    ),
    *("bpm {}", "tempo of {} bpm", "tempo: {} bpm"),
)
TEXTURES = (
    ("sparse", "simple", "minimal", "minimalist", "uncluttered", "stripped-down", "bare"),
    ("busy", "dense", "intricate", "full", "detailed"),
)
FORCES = (
    ("soft", "quiet", "gentle", "calm", "tender", "delicate"),
    ("steady", "balanced", "easy"),
    ("loud", "energetic", "intense", "powerful", "strong", "high-energy"),
)
# Moods by mode (minor or not), tempo (under 100 bpm or not) and energy (soft or not).
MOODS = {
    (True, True, True): (
        "sad",
        "melancholic",
        "melancholy",
        "sorrowful",
        "lonely",
        "wistful",
        "gloomy",
        "mournful",
        "bittersweet",
    ),
    (True, True, False): ("dark", "moody", "sad", "brooding", "serious", "somber", "ominous", "heavy-hearted"),
    (True, False, True): ("mysterious", "wistful", "restless", "melancholic", "moody", "nervous"),
    (True, False, False): ("tense", "dramatic", "dark", "urgent", "moody", "suspenseful", "exciting"),
    (False, True, True): (
        "peaceful",
        "dreamy",
        "tender",
        "romantic",
        "warm",
        "hopeful",
        "serene",
        "soothing",
        "tranquil",
    ),
    (False, True, False): ("warm", "hopeful", "positive", "content", "bright", "sunny", "optimistic", "feel-good"),
    (False, False, True): ("cheerful", "light", "playful", "sweet", "carefree", "happy", "innocent", "bright"),
    (False, False, False): (
        "happy",
        "joyful",
        "cheerful",
        "uplifting",
        "bright",
        "fun",
        "triumphant",
        "sunny",
        "feel-good",
    ),
}
SPOOKY = ("spooky", "creepy", "eerie", "haunting", "sinister", "scary")
EPIC = ("epic", "heroic", "grand", "majestic", "mighty")
MODES = {
    "major": ("in a major key", "major key", "major"),
    "minor": ("in a minor key", "minor key", "minor"),
    "lydian": ("lydian", "in lydian mode", "in a major key"),
    "mixolydian": ("mixolydian", "in mixolydian mode"),
    "dorian": ("dorian", "in dorian mode", "in a minor key"),
    "phrygian": ("phrygian", "in phrygian mode", "in a minor key"),
    "harmonic minor": ("in a minor key", "harmonic minor", "minor key"),
    "blues": ("bluesy", "with a blues scale"),
}
USES_SAD = ("a sad scene", "a breakup", "a rainy day", "a drama", "a goodbye")
USES_SPOOKY = ("a horror film", "halloween", "a haunted house", "a ghost story", "a thriller")
USES_EPIC = ("an adventure film", "a battle scene", "a movie trailer", "a fantasy game")
USES_HARD = ("a workout", "the gym", "running", "working out", "sports", "exercise")
USES_BRIGHT = ("summer", "a summer party", "a birthday party", "a sunny day", "a holiday", "a celebration")
USES_SOFT = ("relaxing", "sleep", "falling asleep", "studying", "meditation", "background music", "reading")
USES_LOVE = ("a romantic dinner", "a wedding", "a love scene", "valentine's day")
