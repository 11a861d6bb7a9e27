"""Word times that hold the audio which the decoder attended (pure).

Times come from a warp of the attention over all of the window (`streamer.model.decoding.alignment`). Behind a forced
prefix a hypothesis is often one or two words long; the warp then knows the order but hardly the place, while the frame
that a word's last token attended most is still right. So each word reaches to that frame, and none beyond the next
word's.
"""

from dataclasses import replace

from streamer.events import FRAME_SAMPLES
from streamer.policy.decision import Words


def placed(words: Words) -> Words:
    """The words with times that hold what was attended; their order and that of their times stay as they are."""
    found, earliest = [], 0
    for index, word in enumerate(words):
        attended = word.attended_sample
        start = max(earliest, min(word.start_sample, attended))
        end = max(word.end_sample, start, attended + FRAME_SAMPLES // 2)
        following = words[index + 1].attended_sample if index + 1 < len(words) else end
        if following > attended:
            end = min(end, max(following, start))
        found.append(replace(word, start_sample=start, end_sample=end))
        earliest = end
    return tuple(found)
