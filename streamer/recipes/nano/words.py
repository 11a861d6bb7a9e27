"""What `nano` can write: its vocabulary, the sentences it is trained on, and those kept away from the training.

The vocabulary has no homophones of the digits (to, too, for, ate, won). Sentences come from templates and from words in
random order, so that the decoder hears rather than guesses.
"""

import re
from collections.abc import Sequence

import numpy as np

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

NAMES = ("anna", "david", "maria", "peter")
PEOPLE = ("mother", "father", "the doctor", "the police", *NAMES)
THINGS = ("door", "window", "light", "kettle", "music", "car", "phone", "garden door", "kitchen window", "fire alarm")
PLACES = ("kitchen", "garden", "street", "car", "bus", "train", "room")
STATES = ("hot", "cold", "ready", "here", "open", "home", "hungry", "down", "up")
SUBJECTS = ("the tea", "the coffee", "dinner", "the water", "the kettle", "the baby", "the dog", "the cat", "the bus")
DAYS = ("monday", "friday", "sunday", "today", "tomorrow")
GREETINGS = (
    "good morning",
    "good evening",
    "good night",
    "hello",
    "goodbye",
    "thank you",
    "sorry",
    "yes",
    "no",
    "please",
)

TEMPLATES = (
    "{greeting} {name}",
    "{greeting}",
    "{greeting} {greeting}",
    "{name} {verb} the {thing}",
    "please {verb} the {thing}",
    "{verb} the {thing} please",
    "{verb} the {thing} now",
    "turn the {thing} up",
    "turn the {thing} down",
    "call {person}",
    "call {person} please",
    "please call {person} again",
    "{name} call {person} now",
    "help {greeting} help",
    "help me {name}",
    "fire fire in the {place}",
    "smoke in the {place}",
    "{subject} is {state}",
    "is {subject} {state}",
    "{subject} is very {state}",
    "{name} is {state}",
    "we are {state}",
    "are you {state} {name}",
    "what is the time",
    "where is {subject}",
    "where is {name}",
    "where is the {thing}",
    "the {thing} is in the {place}",
    "come here {name}",
    "come home {day}",
    "come {day} please",
    "wait here",
    "wait {name} listen",
    "listen to the {thing}",
    "stop the {thing}",
    "stop {name} stop",
    "bring the {thing} {day}",
    "left again",
    "the {place} is {state}",
    "{day} is good",
    "my name is {name}",
    "my phone is {digits}",
    "call {digits}",
    "room {digits}",
    "bus {digits} is here",
    "train {digits} is ready",
    "{digits} {street}",
    "the table is ready {name}",
    "bring the key {name}",
    "what is your name",
)
SLOTS = {
    "greeting": GREETINGS,
    "name": NAMES,
    "verb": ("open", "close", "stop", "bring", "turn"),
    "thing": THINGS,
    "person": PEOPLE,
    "place": PLACES,
    "state": STATES,
    "subject": SUBJECTS,
    "day": DAYS,
    "street": ("garden street", "kitchen street", "street"),
}
REPLACED = {
    "in": "behind",
    "to": "",
    "me": "",
    "my": "the",
    "your": "the",
}  # no words that sound like digits or are too short

HELD_OUT = (
    # the demo's lines
    "good morning maria",
    "good morning david the tea is ready",
    "is the water hot",
    "yes the kettle is hot please wait",
    "open the kitchen window please",
    "smoke alarm",
    "stop call the fire police now",
    "call nine one one please",
    "help is here anna",
    "thank you goodbye",
    "bus nine four seven two five",
    "two eight six four zero five one",
    "six one eight zero two",
    "nine seven three one five zero",
    "train five two nine zero four",
    "please call six zero four eight one",
    "eight six nine two four zero",
    # the tests' lines, of which the demo says one
    "hello david where is the key",
    "mother is home tomorrow",
    "please close the garden door",
    "seven three five call peter again",
    "the coffee is cold",
)


def vocabulary() -> tuple[str, ...]:
    """All words that training text can contain: digits first, the rest in alphabetical order."""
    words = {word for template in TEMPLATES for word in re.sub(r"{\w+}", "", template).split()}
    words |= {word for options in SLOTS.values() for option in options for word in option.split()}
    words = {REPLACED.get(word, word) for word in words} | {"behind", "the"}
    return DIGITS + tuple(sorted(words - set(DIGITS) - {""}))


def is_held_out(words: Sequence[str]) -> bool:
    """Whether a held-out sentence stands in `words` (as neighbours, in order)."""
    text = f" {' '.join(words)} "
    return any(f" {sentence} " in text for sentence in HELD_OUT)


def sentence(random: np.random.Generator) -> tuple[str, ...]:
    """One training sentence, from a template (3 of 5) or as words in random order; never a held-out one."""
    while True:
        words = _from_template(random) if random.random() < 0.6 else _shuffled(random)
        if words and not is_held_out(words):
            return words


def digits(random: np.random.Generator, shortest: int, longest: int) -> tuple[str, ...]:
    """A run of `shortest` to `longest` digits."""
    return tuple(DIGITS[i] for i in random.integers(0, 10, random.integers(shortest, longest + 1)))


def _from_template(random: np.random.Generator) -> tuple[str, ...]:
    def fill(match: re.Match[str]) -> str:
        slot = match.group(1)
        return " ".join(digits(random, 1, 4)) if slot == "digits" else str(random.choice(SLOTS[slot]))

    text = re.sub(r"{(\w+)}", fill, str(random.choice(TEMPLATES)))
    return tuple(word for word in (REPLACED.get(word, word) for word in text.split()) if word)


def _shuffled(random: np.random.Generator) -> tuple[str, ...]:
    words = vocabulary()
    return tuple(words[i] for i in random.integers(0, len(words), random.integers(1, 6)))
