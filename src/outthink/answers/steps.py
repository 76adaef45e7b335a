"""Where the steps of a solution end: after each delimiter, which stays in the text of the step that it ends.

In a delimiter, "{step}" stands for the number of the step that comes next, for models that number their steps: with
"\\nStep {step}:" the first step ends with "\\nStep 2:".
"""

from __future__ import annotations

from outthink.answers.thoughts import spoken

_NUMBER = "{step}"


def end_of_step(delimiter: str, before: int) -> str:
    """The text that ends the step after `before` earlier ones."""
    return delimiter.replace(_NUMBER, str(before + 2))


def split_steps(text: str, delimiter: str) -> list[str]:
    """The steps of a whole solution, at least one; joined, they are the text, except for steps of white space.

    Steps of white space alone are left out, as delimiters that follow each other make them.
    """
    steps: list[str] = []
    rest = text
    while rest:
        end = end_of_step(delimiter, len(steps))
        step, mark, rest = rest.partition(end)
        if (step + mark).strip():
            steps.append(step + mark)
    return steps or [text]


def split_answer(text: str, delimiter: str) -> list[str]:
    """As `split_steps`, of what a text says; a thought in front of it stands in its first step."""
    said = spoken(text)
    if said == text or not said.strip():
        return split_steps(text, delimiter)
    first, *others = split_steps(said, delimiter)
    return [text.removesuffix(said) + first if text.endswith(said) else first, *others]
