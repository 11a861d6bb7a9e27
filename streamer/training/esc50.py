"""ESC-50's 50 categories as AudioSet labels, and what its file names say.

ESC-50: K. J. Piczak, "ESC: Dataset for Environmental Sound Classification", ACM Multimedia 2015. The mapping is ours:
the AudioSet class of the same sound, with its more specific and more general names where AudioSet's raters use both.
"""

import re
from types import MappingProxyType

CATEGORIES = MappingProxyType(
    {
        "airplane": ("Fixed-wing aircraft, airplane",),
        "breathing": ("Breathing",),
        "brushing_teeth": ("Toothbrush",),
        "can_opening": ("Hiss",),
        "car_horn": ("Vehicle horn, car horn, honking",),
        "cat": ("Cat", "Meow"),
        "chainsaw": ("Chainsaw",),
        "chirping_birds": ("Bird", "Chirp, tweet"),
        "church_bells": ("Church bell", "Bell"),
        "clapping": ("Clapping", "Applause"),
        "clock_alarm": ("Alarm clock", "Alarm"),
        "clock_tick": ("Tick-tock", "Clock"),
        "coughing": ("Cough",),
        "cow": ("Moo", "Cattle, bovinae"),
        "crackling_fire": ("Fire", "Crackle"),
        "crickets": ("Cricket", "Insect"),
        "crow": ("Crow",),
        "crying_baby": ("Baby cry, infant cry",),
        "dog": ("Dog", "Bark"),
        "door_wood_creaks": ("Creak",),
        "door_wood_knock": ("Knock",),
        "drinking_sipping": ("Liquid",),
        "engine": ("Engine",),
        "fireworks": ("Fireworks",),
        "footsteps": ("Walk, footsteps",),
        "frog": ("Frog",),
        "glass_breaking": ("Glass", "Shatter"),
        "hand_saw": ("Sawing",),
        "helicopter": ("Helicopter",),
        "hen": ("Chicken, rooster",),
        "insects": ("Insect", "Fly, housefly"),
        "keyboard_typing": ("Typing", "Computer keyboard"),
        "laughing": ("Laughter",),
        "mouse_click": ("Computer keyboard",),
        "pig": ("Pig", "Oink"),
        "pouring_water": ("Pour", "Liquid"),
        "rain": ("Rain",),
        "rooster": ("Crowing, cock-a-doodle-doo", "Chicken, rooster"),
        "sea_waves": ("Waves, surf", "Ocean"),
        "sheep": ("Sheep", "Bleat"),
        "siren": ("Siren", "Alarm"),
        "sneezing": ("Sneeze",),
        "snoring": ("Snoring",),
        "thunderstorm": ("Thunder", "Thunderstorm"),
        "toilet_flush": ("Toilet flush",),
        "train": ("Train",),
        "vacuum_cleaner": ("Vacuum cleaner",),
        "washing_machine": ("Mechanisms",),
        "water_drops": ("Drip",),
        "wind": ("Wind",),
    }
)

FOLDS = ("1", "2", "3", "4", "5")
_FILE_NAME = re.compile(r"([1-5])-\d+-[A-Z]-\d+$")


def fold_of(stem: str) -> str:
    """The fold that an ESC-50 file name begins with (`3-132852-A-10` is in fold 3); empty for other names."""
    found = _FILE_NAME.match(stem)
    return found.group(1) if found else ""
