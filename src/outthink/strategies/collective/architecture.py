"""An architecture of Archon as plain data: layers of components, how they may follow each other, and what they cost.

Source: Archon (2409.15254) by notes on its read-me, component and search code; the rules by lecture notes on the paper.
Differs: one layer has one ranker, verifier or evaluator, whose outputs would only repeat candidates; retries are not in
`calls`; one prompt shows at most `MOST_READ` candidates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from outthink.errors import UsageError
from outthink.strategies.collective.archon_texts import PROMPTS
from outthink.strategies.collective.form import read_form, read_prompts, read_table, written_table, written_value
from outthink.strategies.prompting import MOST_SHOWN

Kind = Literal[
    "generator", "critic", "ranker", "fuser", "verifier", "unit_test_generator", "unit_test_evaluator"
]  # fmt: skip
KINDS: tuple[str, ...] = get_args(Kind)

ROLES = {
    "generator": "model",
    "critic": "critic",
    "ranker": "judge",
    "fuser": "fusor",
    "verifier": "judge",
    "unit_test_generator": "tester",
    "unit_test_evaluator": "judge",
}
"""The role whose model a component asks where it names none."""

MOST_READ = 64
"""Candidates that one prompt of a critic, ranker or fuser shows, at most; the source warns above 32."""
MOST_SAMPLES = 1024
"""Candidates that a layer makes, at most."""
_MOST_LAYERS = 32
_MOST_COMPONENTS = 64
_COUNTS = {
    "generator": "samples",
    "fuser": "samples",
    "ranker": "top_k",
    "unit_test_evaluator": "top_k",
    "unit_test_generator": "tests",
}
"""The field that the number behind a component's type stands for."""
_READS_ALL = ("critic", "ranker", "fuser")  # in one prompt
_SINGLE = ("ranker", "verifier", "unit_test_evaluator")  # one in a layer


@dataclass(frozen=True, kw_only=True)
class Component:
    """One component of a layer.

    Args:
        type: what it does.
        model: the role whose model it asks; "": the one of its type in `ROLES`.
        samples: of a generator or a fuser: answers it writes; at least 1.
        top_k: of a ranker or an evaluator: candidates it keeps; 0: all.
        tests: of a unit-test generator: most tests it may write; at least 1.
        temperature: of a generator or a fuser; None: as the run says, of a fuser 0.3.
    """

    type: Kind
    model: str = ""
    samples: int = 1
    top_k: int = 0
    tests: int = 5
    temperature: float | None = None

    @property
    def role(self) -> str:
        """The role whose model it asks."""
        return {"": ROLES[self.type], "generator": "model"}.get(self.model, self.model)


Layers = tuple[tuple[Component, ...], ...]


def read_layers(text: str) -> Layers:
    """The layers of the short form, checked.

    Layers are parted by "|", components of a layer by ","; a component is TYPE, TYPE:NUMBER or TYPE:NUMBER@ROLE. The
    number is the samples of generators and fusers, the candidates that rankers and evaluators keep, and the tests of a
    unit-test generator. Raises UsageError in one sentence where it cannot be read or breaks a rule.
    """
    return checked([[_component(part.strip()) for part in layer.split(",")] for layer in text.split("|")])


def _component(text: str) -> Component:
    rest, at, role = text.partition("@")
    kind, colon, number = (part.strip() for part in rest.partition(":"))
    if kind not in KINDS:
        raise UsageError(f"There is no component {kind!r}; there are {', '.join(KINDS)}.")
    if at and not role.strip():
        raise UsageError(f"{text!r} names no role behind '@': write it, as in generator:5@small.")
    given: dict[str, Any] = {"type": kind, "model": role.strip()}
    if colon:
        if kind not in _COUNTS:
            raise UsageError(f"A {kind} has no number: leave out ':{number}'.")
        if not (number.isascii() and number.isdigit() and len(number) < 10):
            raise UsageError(f"{number!r} in {text!r} is no whole number: write it as in {kind}:5.")
        given[_COUNTS[kind]] = int(number)
    return Component(**given)


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """What a file says.

    Args:
        layers: keep the rules of `checked`.
        prompts: by name, in place of those in `PROMPTS`.
    """

    layers: Layers
    prompts: Mapping[str, str] = field(default_factory=dict)


def open_architecture(path: str | Path) -> Architecture:
    """What a TOML file says, checked.

    It holds `layers`, a list of lists of tables with the fields of `Component`, and may hold a `name` and a table
    `prompts` with other ones than `PROMPTS`. Raises UsageError in one sentence where it cannot be read or breaks a
    rule.
    """
    layers, prompts = read_form(path, "architecture", "layers", "[[...], ...], a list of components for each")
    if not all(isinstance(layer, list) for layer in layers):
        raise UsageError(f"{path} is no architecture: each of its layers is a list of components.")
    try:
        read = checked(
            [[read_table(entry, Component, "component", '{type = "critic"}') for entry in layer] for layer in layers]
        )
        return Architecture(layers=read, prompts=read_prompts(prompts, PROMPTS))
    except UsageError as cause:
        raise UsageError(f"{path}: {cause}") from None


def written_file(layers: Layers, *, name: str) -> str:
    """The TOML file that `open_architecture` reads: a line for each component."""
    plain = Component(type="critic")
    lines = [f"name = {written_value(name)}", "layers = ["]
    for layer in layers:
        lines += ["  [", *(f"    {written_table(one, plain)}," for one in layer), "  ],"]
    return "\n".join([*lines, "]", ""])


def written(layers: Layers) -> str:
    """The short form that `read_layers` reads; temperatures have none there."""

    def one(component: Component) -> str:
        counted = _COUNTS.get(component.type)
        number = "" if counted is None else f":{getattr(component, counted)}"
        return f"{component.type}{number}" + (f"@{component.model}" if component.model else "")

    return "|".join(",".join(map(one, layer)) for layer in layers)


def checked(given: Sequence[Sequence[Component]]) -> Layers:
    """The layers, where they keep the rules; else UsageError, in one sentence that says which is broken and where.

    The first layer has generators, and no other layer has any; all components of a layer are of one type; after a
    critic comes a ranker or a fuser at once; after a unit-test generator comes an evaluator at once, and before one
    there is a generator of tests.
    """
    layers = tuple(map(tuple, given))
    if not layers or not all(layers):
        raise UsageError("An architecture needs at least one layer, and each layer at least one component.")
    if len(layers) > _MOST_LAYERS:
        raise UsageError(f"An architecture has at most {_MOST_LAYERS} layers, not {len(layers)}: leave some out.")
    widest = max(map(len, layers))
    if widest > _MOST_COMPONENTS:
        raise UsageError(f"A layer has at most {_MOST_COMPONENTS} components, not {widest}: leave some out.")
    kinds = [layer[0].type for layer in layers]
    for number, layer in enumerate(layers, start=1):
        for one in layer:
            _check_numbers(one, number)
        others = sorted({one.type for one in layer})
        if len(others) > 1:
            raise UsageError(f"Layer {number} mixes {' and '.join(others)}: give each type a layer of its own.")
        if others[0] in _SINGLE and len(layer) > 1:
            raise UsageError(f"Layer {number} has {len(layer)} components of type {others[0]}: leave one.")
    for number, (kind, after) in enumerate(zip(kinds, [*kinds[1:], None], strict=True), start=1):
        before = kinds[number - 2] if number > 1 else None
        if number == 1 and kind != "generator":
            raise UsageError(f"Layer 1 is a {kind}: the first layer must have generators.")
        if number > 1 and kind == "generator":
            raise UsageError(f"Layer {number} has a generator: generators stand in layer 1 only.")
        if kind == "critic" and after not in ("ranker", "fuser"):
            raise UsageError(f"Layer {number} is a critic: a ranker or a fuser must come next, which reads critiques.")
        if kind == "unit_test_generator" and after != "unit_test_evaluator":
            raise UsageError(f"Layer {number} is a unit_test_generator: a unit_test_evaluator must come next.")
        if kind == "unit_test_evaluator" and before != "unit_test_generator":
            raise UsageError(f"Layer {number} is a unit_test_evaluator: a unit_test_generator must come before it.")
    for number, (kind, reads) in enumerate(zip(kinds, sizes(layers), strict=True), start=1):
        if kind in _READS_ALL and reads > MOST_READ:
            raise UsageError(
                f"Layer {number} ({kind}) would read {reads} candidates in one prompt, more than {MOST_READ}: draw "
                "fewer samples, or keep fewer before it."
            )
        made = sum(one.samples for one in layers[number - 1])
        if kind in ("generator", "fuser") and made > MOST_SAMPLES:
            raise UsageError(f"Layer {number} writes {made} answers, more than {MOST_SAMPLES}: lower samples.")
    if (again := shown(layers)) > MOST_SHOWN:
        raise UsageError(
            f"The architecture shows models {again:,} answers again, more than {MOST_SHOWN:,}: draw fewer samples, or "
            "leave layers out."
        )
    return layers


def _check_numbers(one: Component, layer: int) -> None:
    for name, least in (("samples", 1), ("top_k", 0), ("tests", 1)):
        value = getattr(one, name)
        if value < least:
            raise UsageError(f"Layer {layer}: {name} of a {one.type} must be at least {least}, not {value}.")
        default = getattr(Component(type=one.type), name)
        if value != default and _COUNTS.get(one.type) != name:
            raise UsageError(f"Layer {layer}: a {one.type} has no {name}: leave it out.")
    if one.tests > MOST_READ:
        raise UsageError(f"Layer {layer}: tests must be at most {MOST_READ}, not {one.tests}.")
    if one.temperature is not None and one.type not in ("generator", "fuser"):
        raise UsageError(f"Layer {layer}: a {one.type} has no temperature: leave it out.")
    if one.temperature is not None and not (math.isfinite(one.temperature) and one.temperature >= 0):
        raise UsageError(f"Layer {layer}: temperature must be a number of at least 0, not {one.temperature}.")
    if "/" in one.model:
        raise UsageError(
            f"Layer {layer}: {one.model!r} is no role: name one without '/', and give its model by --role."
        )


def sizes(layers: Layers) -> list[int]:
    """The most candidates that each layer reads; 0 for the first."""
    size, reads = 0, []
    for layer in layers:
        reads.append(size)
        if layer[0].type in ("generator", "fuser"):
            size = sum(one.samples for one in layer)
        elif layer[0].top_k:
            size = min(size, layer[0].top_k)
    return reads


def shown(layers: Layers) -> int:
    """The most answers that prompts show models again, each as often as it is shown."""
    times = {"critic": 1, "ranker": 1, "fuser": 1, "verifier": 2, "unit_test_evaluator": 1}
    return sum(
        len(layer) * times.get(layer[0].type, 0) * reads for layer, reads in zip(layers, sizes(layers), strict=True)
    )


def calls(layers: Layers) -> int:
    """The most calls of models on one problem, without second tries of what cannot be read."""
    total = 0
    for layer, reads in zip(layers, sizes(layers), strict=True):
        for one in layer:
            each = {"generator": one.samples, "fuser": one.samples, "verifier": 2 * reads, "unit_test_evaluator": reads}
            total += each.get(one.type, 1)
    return total
