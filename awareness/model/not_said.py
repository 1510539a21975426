"""Does an answer say that the code does not answer the question? One sentence is taught; others are usual."""

from __future__ import annotations

import re

NOT_SAID = "The code above does not say."
"""What a model is taught to answer where no chunk holds the answer."""

_CODE = r"(?:code|snippets?|context|chunks?|files?|text|repository|documentation|information|sources?|lines|above)"
_SAY = (
    r"(?:say|tell|specify|mention|show|contain|include|provide|define|state|give|indicate|have|reveal|list|explain"
    r"|declare|describe|hold|answer)"
)
_SAID = (
    r"(?:said|told|specified|mentioned|shown|contained|included|provided|defined|stated|given|indicated|revealed|listed"
    r"|explained|declared|described|present|found|available|visible|known|part of|in the)"
)
_NOT = r"(?:not|n't|never)"
_FORMS = re.compile(
    "|".join(
        (
            rf"\b{_CODE}\b[^.]{{0,60}}(?:does|do|did)(?: {_NOT}|n't) (?:\w+ly )?{_SAY}\b",  # the code does not say
            rf"\b(?:is|are|was|were)(?: {_NOT}|n't) (?:\w+ly )?{_SAID}\b",  # it is not shown
            r"\bno (?:\w+ )?(?:information|mention|indication|details?|references?|definition|such)\b",
            r"\b(?:can(?:no|')t|can not|cannot|could not|couldn't|unable to|impossible to|not possible to) (?:be )?"
            r"(?:find|found|determined?|tell|answer(?:ed)?|say|see|locate|know|provide)\b",
            r"\bnot enough (?:information|context|code)\b",
            rf"\bnot (?:found |present |defined |mentioned )?in (?:the |this |these )?(?:\w+ )?{_CODE}\b",
            rf"\bthere (?:is|are) no\b[^.]*\b{_CODE}\b",
            r"\b(?:do not|don't) (?:know|have (?:enough|any|that|the|access|information))\b",
        )
    ),
    re.IGNORECASE,
)


def refuses(answer: str) -> bool:
    """Whether the answer says, in one of the usual forms, that what it read does not answer the question."""
    return _FORMS.search(answer.replace("’", "'").replace("`", "")) is not None


_BLUNT = re.compile(
    rf"\W*(?:the |this |these )?(?:\w+ )?{_CODE}(?: \w+){{0,3}} (?:does|do)(?: {_NOT}|n't) (?:\w+ly )?{_SAY}\b",
    re.IGNORECASE,
)


def is_refusal(sentence: str) -> bool:
    """Whether a sentence says no more than that the code does not answer: stricter than `refuses`, for what is shown to
    users. `It raises KeyError if the key is not found` is no refusal."""
    return _BLUNT.match(sentence.replace("’", "'").replace("`", "")) is not None
