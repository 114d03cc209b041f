r"""Ends of responses that state no answer: doubt, attempts, steps on the way, bounds, and what is denied."""

from __future__ import annotations

import re

HEDGE = re.compile(
    r"\b(?:either(?!\s+[a-z]\s*=)|though|although|maybe|perhaps|possibly|might|may be|may have|could be|for (?:example|instance)|unknowns|first step|not sure|guess|"
    r"(?:need|have|want|remains|asked) to (?:find|compute|determine|calculate|show)|"
    r"(?:problem|question|prompt|example) (?:says|states|gives|tells|mentions|has)(?!.*\b(?:so|thus|hence|"
    r"therefore)\b)|continue with)\b|\?|"
    r"^\W*(?:one|another) (?:solution|answer|root|possibility|value|option)\b|"
    r"^\W*case \d+\b(?!.*\b(?:total|sum|answer)\b)|"
    r"\bis an? (?:upper|lower) bound\b|\bno\s+(?:[a-z]+\s+)?solutions?\s+(?:for|when|if|at|where|with)\b|"
    r"\bbetween\s+\$?[\d.,]+\$?\s+and\b|"
    r"^\W*we (?:start|begin) with\b|\bsteps? \d|^\W*\d[\d.,]*\W*\sis\s(?:an?|the\s(?:upper|lower))\b|"
    r"\bmore steps?\b|\bwe (?:still )?need\b.*\bmore\b.*\bto\b|\b(?:to (?:begin|start) with|at first|initially|"
    r"originally)\b|"
    r"^\W*(?:if|unless|let|suppose|assume|given)\b(?!.*,\s*(?:we\s+(?:get|obtain)|then the (?:total|sum|answer|"
    r"value|result|number))\b)|"
    r"\b(?:fails?|does(?:n't| not) (?:work|fit|satisfy)|(?:is|was|be|seems) (?:wrong|incorrect))\b|\((?:wrong|"
    r"incorrect)\)|\((?:no|fails)\)(?!.*\((?:yes|works)\))|\bwe know\b",
    re.I,
)
CHINESE_DENIAL = re.compile(r"不对|不正确|错误|是错的|不成立")
GIVES_UP = re.compile(
    r"\b(?:cannot|can't|can not|unable to|impossible to)\s+(?:determine|solve|find|answer|compute)\b", re.I
)
STEP = re.compile(  # next, divide by 45
    r"^\W*(?:(?:next|then|now|first|finally|so)\b,?\s*)?(?:we\s+(?:now\s+|then\s+|can\s+)?(?:need to\s+|have to\s+)?)?"
    r"(?:divide|multiply|add|subtract|substitute|plug|square|take|compare|consider|try|round|convert)\b"
    r"(?!.*(?:=|\b(?:is|are|gets?|gives?|giving|equals?|yields?|obtain|have|makes?|results?|find|total)\b))",
    re.I | re.S,
)
ATTEMPT = re.compile(  # try x = 4
    r"^\W*(?:(?:let's|let us|let me|we|now|next|first|then)[, ]+)*(?:try|consider|test|check)\b(?!.*\b(?:works?|so|gets?|gives?|then)\b)",
    re.I,
)
BOUND = re.compile(
    r"\b(?:at (?:most|least)|no (?:more|less|fewer) than)\s*$|"
    r"\b(?:times|plus|divided by|multiplied by|(?:multiple|divisor|factor|square|root|half|third|quarter|"
    r"percent) of|twice|"
    r"double|includ(?:es?|ing)|question|problem|exercise|example|step|page|chapter|section|figure|equation|"
    r"lemma|theorem)\s*$|"
    r"\b(?:more|less|fewer|greater|larger|smaller|higher|lower)\s+than\s*$|\b(?:close to|instead of|rather than|"
    r"compared (?:to|with)|unlike|out of|(?:among|of|from) (?:the|all|these|those)(?: [a-z]+)?)\s*$",
    re.I,
)
NOT_IT = re.compile(r"\d\S*\s+(?:[a-z]+\s+)?(?:is|are|was|were)(?:\s+not|n't)\b", re.I)
CONCLUDED = re.compile(
    r"^.*\b(?:fails?|not|n't|wrong|no)\b.*,\s*(?:so|thus|hence|therefore)\s+(?=\S)", re.I
)  # x fails, so y
