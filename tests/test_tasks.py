import random
import re

import pytest

from rollouts.tasks import TASKS, load_task
from rollouts.tasks.crossroads import right_turns
from rollouts.tasks.requests import gold_utility, utility

ALPHABET = set(
    "0123456789+=^?!.,:(){}\\ \n"
    "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    "abcdefghijklmnopqrstuvwxyz"
)
VARIANTS = [("addition", {}), ("text_screen", {}), ("requests", {}), ("digit_maxima", {}), ("crossroads", {}),
            ("digit_maxima", {"references": [4, 8]})]
PROMPT = "User: Where is my red bike? I am Ann.\nBot:"


def rate(events, num=4000):
    return sum(events) / num


def within(observed, expected, num=4000):
    """Four standard errors of a binomial: a fixed seed either always passes or shows a real change."""
    return abs(observed - expected) < 4 * (expected * (1 - expected) / num) ** 0.5


def boxed(text):
    return re.findall(r"\\boxed\{(\d+)\}", text)[-1]


@pytest.mark.parametrize("name, args", VARIANTS)
def test_a_seed_fixes_the_rows(name, args):
    def rows(seed):
        rng, task = random.Random(seed), load_task(name, **args)
        return [(task.problem(rng), task.demonstration(rng)) for _ in range(20)]

    assert rows(7) == rows(7)
    assert rows(7) != rows(8)


@pytest.mark.parametrize("name, args", VARIANTS)
def test_every_character_is_in_the_stated_alphabet(name, args):
    rng, task = random.Random(0), load_task(name, **args)
    for _ in range(300):
        row = task.demonstration(rng)
        assert set(row["prompt"] + row["completion"] + task.problem(rng)["prompt"]) <= ALPHABET


def test_addition_solutions_are_the_sums():
    rng, task = random.Random(0), load_task("addition")
    for _ in range(100):
        row = task.problem(rng)
        a, b = re.fullmatch(r"Q: (\d{3})\+(\d{3})=\?\nA:", row["prompt"]).groups()
        assert row["solution"] == str(int(a) + int(b))


def test_addition_without_mistakes_is_worked_with_carries():
    assert load_task("addition", forget_carry=0)._work(964, 494, random.Random(0)) == (
        " 4+4+0=8 6+9+0=15 9+4+1=14 \\boxed{1458}"
    )


def test_a_forgotten_carry_is_written_as_zero():
    # 964+494 has one carry that is used in a later column: 9+4+1 becomes 9+4+0.
    assert load_task("addition", forget_carry=1)._work(964, 494, random.Random(0)) == (
        " 4+4+0=8 6+9+0=15 9+4+0=13 \\boxed{1358}"
    )


def test_49_percent_of_the_addition_demonstrations_are_right():
    rng, task = random.Random(0), load_task("addition")
    rows = [task.demonstration(rng) for _ in range(4000)]
    right = [sum(map(int, re.findall(r"\d{3}", r["prompt"]))) == int(boxed(r["completion"])) for r in rows]
    # Carries c1, c2 into the tens and hundreds; each is kept with 0.35; exact over all digits: 0.4903.
    assert within(rate(right), 0.4903)


def test_screen_boxes_are_apart_and_the_target_is_the_named_one():
    rng, task = random.Random(0), load_task("text_screen")
    for _ in range(300):
        row = task.problem(rng)
        cells = {}
        for name, *box in re.findall(r"(\w+?)(\d)(\d)(\d)(\d)\n", row["prompt"]):
            x1, y1, x2, y2 = map(int, box)
            assert 1 <= x2 - x1 <= 2 and 1 <= y2 - y1 <= 2 and max(x2, y2) <= 8
            for cell in [(x, y) for x in range(x1, x2 + 1) for y in range(y1, y2 + 1)]:
                assert cell not in cells
                cells[cell] = name
        assert len(set(cells.values())) == 4
        x1, y1, x2, y2 = row["target_box"]
        wanted = re.search(r"Click (\w+)\n", row["prompt"]).group(1)
        assert cells[x1, y1] == cells[x2, y2] == wanted
        assert row["image_size"] == [10, 10]


def test_half_of_the_demonstrated_clicks_are_inside_the_box_they_name():
    rng, task = random.Random(0), load_task("text_screen")
    inside = []
    for _ in range(4000):
        found = re.fullmatch(r" (\w+?)(\d)(\d)(\d)(\d) click\((\d), (\d)\)", task.demonstration(rng)["completion"])
        x1, y1, x2, y2, x, y = map(int, found.groups()[1:])
        inside.append(x1 <= x <= x2 and y1 <= y <= y2)
        assert x1 <= x <= x2 + 1 and y1 <= y <= y2 + 1
    assert within(rate(inside), 0.5)


@pytest.mark.parametrize(
    "reply, expected",
    [
        (" Sure! Your bike is ready.", 2.0),
        ("Of course! Your bike is on its way. ", 2.0),  # outer white space does not count
        (" Your bike is here.", 1.0),
        (" Ugh. Your bike is here.", 0.0),
        (" Sure! Your lamp is ready.", 0.0),
        (" Happy to help! Your bike is fixed. Your lamp is here.", 1.5),
        (" Not again. Your lamp is fixed. Your bike is here. Your bike is here.", -3.0),
        (" Sure!", -3.0),
        (" Sure! Sure! Your bike is ready.", -3.0),
        (" Sure! Your bike is ready", -3.0),
        (" Sure! Your car is ready.", -3.0),
        ("", -3.0),
    ],
)
def test_utility_of_hand_cases(reply, expected):
    assert utility(PROMPT, reply) == expected


def test_utility_names_a_prompt_that_is_not_a_request():
    with pytest.raises(ValueError, match="Q: 1"):
        utility("Q: 1+1=?\nA:", " Sure! Your bike is ready.")


def test_gold_utility_follows_the_reward_convention():
    completions = [" Sure! Your bike is ready.", "?"]
    assert gold_utility(prompts=[PROMPT, PROMPT], completions=completions, completion_ids=[[1], [2]]) == [2.0, -3.0]


def test_every_demonstrated_reply_is_well_formed():
    rng, task = random.Random(0), load_task("requests", polite=0, on_topic=1, more=0)
    for _ in range(300):
        row = task.demonstration(rng)
        assert utility(row["prompt"], row["completion"]) in (0.0, 1.0)  # rude or plain, on topic, one sentence


def test_a_tenth_of_the_preferences_are_flipped():
    rng, task = random.Random(0), load_task("requests")
    rows = [task.preference(rng) for _ in range(4000)]
    gaps = [utility(r["prompt"], r["chosen"]) - utility(r["prompt"], r["rejected"]) for r in rows]
    assert 0 not in gaps
    assert within(rate(gap < 0 for gap in gaps), 0.1)


def test_compared_replies_may_break_off_and_are_then_the_worse_ones():
    rng, task = random.Random(0), load_task("requests", flipped=0)
    rows = [task.preference(rng) for _ in range(4000)]
    assert all(utility(row["prompt"], row["chosen"]) > -3 for row in rows)
    assert rate(utility(row["prompt"], row["rejected"]) == -3 for row in rows) > 0.15


def test_digit_maxima_take_the_larger_digit_of_each_column():
    rng, task = random.Random(0), load_task("digit_maxima", digits=3)
    for _ in range(100):
        row = task.problem(rng)
        a, b = re.fullmatch(r"M: (\d{3})\^(\d{3})=\?\nA:", row["prompt"]).groups()
        assert [int(d) for d in row["solution"]] == [max(int(x), int(y)) for x, y in zip(a, b)]


def test_the_annotator_of_digit_maxima_reads_each_sign_right_with_the_stated_probability():
    rng, task = random.Random(0), load_task("digit_maxima", digit_accuracy=0.6)
    right = []
    for _ in range(4000):
        completion = task.demonstration(rng)["completion"]
        columns = re.findall(r" (\d)([\^!])(\d)=(\d)", completion)
        assert len(columns) == 4 and "".join(column[3] for column in columns) == boxed(completion)
        assert all(digit == (max if sign == "^" else min)(x, y) for x, sign, y, digit in columns)
        right.append([sign == "^" for _, sign, _, _ in columns])
    for column in zip(*right):
        assert within(rate(column), 0.6)
    assert within(rate(map(all, right)), 0.6**4)


def test_a_synthesis_takes_each_digit_from_some_reference():
    rng, task = random.Random(0), load_task("digit_maxima", references=[4, 8])
    counts = set()
    for _ in range(300):
        row = task.demonstration(rng)
        references = re.findall(r"Ref: \\boxed\{(\d{4})\}\n", row["prompt"])
        counts.add(len(references))
        assert all(digit in column for digit, column in zip(boxed(row["completion"]), zip(*references)))
        assert re.search(r"\nM: \d{4}\^\d{4}=\?\nA:$", row["prompt"])
    assert counts == {4, 5, 6, 7, 8}


def test_the_synthesis_prompt_comes_from_the_given_template():
    task = load_task("digit_maxima", references=[1, 1], template="{{ messages[0] }}|{{ problem }}")
    assert re.match(r"\\boxed\{\d{4}\}\|M: ", task.demonstration(random.Random(0))["prompt"])


def test_an_unknown_task_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="'additon'.*addition, crossroads, device, digit_maxima, requests, text_screen, tiny_screen"):
        load_task("additon")


def test_an_unknown_argument_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="'digit'.*digits, forget_carry"):
        load_task("addition", digit=3)


@pytest.mark.parametrize(
    "name, args, message",
    [
        ("addition", {"digits": 0}, "digits is 0"),
        ("addition", {"digits": "three"}, "addition"),
        ("addition", {"forget_carry": 1.5}, "forget_carry is 1.5"),
        ("text_screen", {"miss": -0.1}, "miss is -0.1"),
        ("requests", {"flipped": 2}, "flipped is 2"),
        ("crossroads", {"length": 1}, "length is 1"),
        ("crossroads", {"slip": 2}, "slip is 2"),
        ("digit_maxima", {"references": [8, 4]}, r"references is \[8, 4\]"),
        ("digit_maxima", {"references": [0, 4]}, r"references is \[0, 4\]"),
    ],
)
def test_a_value_that_is_not_allowed_is_named(name, args, message):
    with pytest.raises(ValueError, match=message):
        load_task(name, **args)


def test_every_task_loads_with_its_defaults():
    for name in TASKS:
        assert "prompt" in load_task(name).problem(random.Random(0))


def earned(prompt, walk, ids=None):
    """(the reward of a walk, where it was earned)"""
    logged = []
    (value,) = right_turns([prompt], [walk], [list(range(len(walk) + 1)) if ids is None else ids], logged.extend)
    return value, logged[0]


@pytest.mark.parametrize(
    "walk, parts",
    [
        ("3Rc5Rh9Ra2La", [(4, 1 / 3), (7, 1 / 3), (10, 1 / 3)]),
        ("3Rc5Lh9Ra2La", [(7, 1 / 3), (10, 1 / 3)]),
        ("3Ls5Rt9Ru2Ls", [(4, 1 / 12), (7, 1 / 12), (10, 1 / 12)]),  # astray from the first turn: a quarter
        ("3Rc5Rh9", [(4, 1 / 3)]),
        ("3Rc4Rh9Ra2La", [(7, 1 / 3), (10, 1 / 3)]),  # 4 is not the second sign
        ("3Rc5Rh9Ra2La2L", [(4, 1 / 3), (7, 1 / 3), (10, 1 / 3)]),  # a turn too many
        ("Rc5R", [(3, 1 / 12)]),
        ("", []),
    ],
)
def test_each_right_turn_after_the_first_earns_its_share_with_its_own_token(walk, parts):
    value, logged = earned("3592:", walk)
    assert [at for at, _ in logged] == [at for at, _ in parts]
    assert [reward for _, reward in logged] == pytest.approx([reward for _, reward in parts])
    assert value == pytest.approx(sum(reward for _, reward in parts))


def test_a_walk_whose_tokens_are_not_its_characters_has_its_reward_in_one_piece():
    value, logged = earned("3592:", "3Rc5Rh", ids=list(range(9)))
    assert (value, logged) == (pytest.approx(1 / 3), [])
    assert right_turns(["3592:"], ["3Rc5Rh"], [[]]) == [pytest.approx(1 / 3)]


def test_the_walker_of_the_demonstrations_slips_at_the_stated_rate_and_sees_when_it_is_astray():
    rng, task = random.Random(0), load_task("crossroads", length=5, scenery=3, slip=0.3)
    right, astray = [], []
    for _ in range(800):
        row = task.demonstration(rng)
        turns = [turn == "LR"[int(sign) % 2] for sign, turn in re.findall("([0-9])([LR])", row["completion"])]
        assert "".join(re.findall("[0-9]", row["completion"])) + ":" == row["prompt"]
        seen = "".join(re.findall("[LR]([a-z]*)", row["completion"]))
        assert len(seen) == 15 and set(seen) <= set("abcdefgh" if turns[0] else "stuvwxyz")
        right += turns
        astray.append(not turns[0])
    assert within(rate(right), 0.7) and within(rate(astray, 800), 0.3, 800)


@pytest.mark.parametrize("template", [0, ["a"], "{% for", "{{ nothing }}"])
def test_a_template_that_is_none_is_refused_when_the_task_is_made(template):
    with pytest.raises(ValueError, match="template"):
        load_task("digit_maxima", references=[1, 2], template=template)


def test_an_argument_of_another_type_is_named():
    with pytest.raises(ValueError, match="task 'addition': digits is 'many'"):
        load_task("addition", digits="many")
