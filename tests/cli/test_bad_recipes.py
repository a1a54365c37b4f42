"""Recipes and overrides that cannot be: each is answered in a second with where, what and how to mend it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

# (what is added to `ganvas train`, the error's type, what it must say)
OVERRIDES = [
    ("digts", "RecipeError", "'digts'", "Did you mean 'digits'?"),
    ("nowhere.yaml", "RecipeError", "nowhere.yaml", "ganvas list recipes"),
    ("digits shapes", "UsageError", "'shapes' is neither the recipe nor key=value"),
    ("digits train.steps", "UsageError", "'train.steps' is neither the recipe nor key=value"),
    ("digits =3", "UsageError", "'=3' is no override", "train.steps=500"),
    ("digits train..steps=3", "UsageError", "'train..steps=3' is no override"),
    ("digits 'train.steps={'", "RecipeError", "command line: train.steps={", "quote it twice"),
    ("digits 'train.steps=!!python/object:os.system x'", "RecipeError", "python/object:os.system", "quote it"),
    ("digits 'data.limit=&a [*a]'", "RecipeError", "far larger than any recipe"),
    (f"digits train.steps={'9' * 5000}", "RecipeError", "far too many digits"),
    (f"digits {'a.' * 60}b=1", "UsageError", "is no override"),
    ("digits train.steps=0", "BadValue", "'steps' is 0, but must be int > 0", "command line: train.steps=0"),
    (f"digits networks.generator.z_dim={10**23}", "BadValue", "'z_dim' is 100000000000000000000000"),
    (f"digits networks.generator.z_dim={10**15}", "UsageError", "not enough memory"),
    ("digits networks.generator.freeze=all networks.discriminator.freeze=all", "BadValue", "nothing is left to learn"),
    ("digits networks.generator.freeze=[blokc]", "BadValue", "begins with 'blokc'"),
    ("digits data.use=folder", "BadValue", "dataset 'folder' needs 'path'"),
    ("digts.yaml", "RecipeError", "there is no recipe file digts.yaml. Did you mean 'digits'?"),
    ("digits train.steps=2.5", "BadValue", "'steps' is 2.5, but must be int > 0"),
    ("digits train.batch=-1", "BadValue", "'batch' is -1, but must be int > 0"),
    ("digits train.seed=-3", "BadValue", "'seed' is -3, but must be int >= 0"),
    ("digits train.precision=fp8", "BadValue", "'fp8'", '"fp32" | "bf16" | "fp16"'),
    ("digits train.compile=yes", "BadValue", "'compile' is 'yes', but must be bool"),
    ("digits optim.lr=abc", "BadValue", "'lr' is 'abc', but must be float > 0", "ganvas show optimizer adam"),
    ("digits optim.lr=.inf", "BadValue", "'lr' is inf"),
    ("digits optim.betas=[2,3]", "BadValue", "'betas' is [2, 3]", "[0 <= float < 1, 0 <= float < 1]"),
    ("digits optim.betas.0=0.5", "BadValue", "'betas' holds [0.0, 0.9]", "as a whole"),
    ("digits optim=sgdd", "UnknownPart", "no optimizer is called 'sgdd'", "ganvas list optimizers"),
    ("digits optim.schedule=cosin", "UnknownPart", "Did you mean 'cosine'?", "ganvas list schedules"),
    ("digits optim.roles.discriminator.betta=1", "UnknownKey", "discriminator.betta", "Did you mean 'betas'?"),
    ("digits optim.roles.critic.lr=1", "UnknownKey", "the recipe has no network 'critic'", "optim.roles.critic=~"),
    ("digits task.critic_steps=0", "BadValue", "'critic_steps' is 0, but must be int > 0"),
    ("digits task.objective=hing", "UnknownPart", "no objective is called 'hing'. Did you mean 'hinge'?"),
    ("digits task.objective=r1", "UnknownPart", "'r1' is a part of kind 'regularizer'"),
    ("digits task.objective.margin=2", "UnknownKey", "objective 'hinge' has no parameter 'margin'"),
    ("digits task.regularizers.r1.wieght=1", "UnknownKey", "task.regularizers.r1.wieght", "Did you mean 'weight'?"),
    ("digits task.regularizers=r1", "BadValue", "'regularizers' is a set of parts of kind regularizer, not 'r1'"),
    ("digits task.regularizers.weight-clipping.every=4", "BadValue", "weight-clipping", "acts on the weights"),
    ("digits networks.discriminator=~", "RoleMissing", "needs a network 'discriminator'; the recipe has generator"),
    ("digits networks.critic=sngan-discriminator", "UnknownKey", "has no role 'critic'", "generator, discriminator"),
    ("digits networks.discriminator=sngan-generator", "BadValue", "is no critic", "networks.discriminator"),
    ("digits networks.generator=dcgan-generatr", "UnknownPart", "Did you mean 'dcgan-generator'?"),
    ("digits networks.generator.attention=64", "BadValue", "attention"),
    ("digits networks.generator.from=nowhere", "BadValue", "there is no model at nowhere"),
    ("digits data=folder", "BadValue", "dataset 'folder' needs 'path'", "data.path"),
    ("digits data.path=photos", "UnknownKey", "dataset 'digits' has no parameter 'path'"),
    ("digits data.size=0", "BadValue", "'size' is 0, but must be int > 0"),
    ("digits data.size=[-8,8]", "BadValue", "'size' is [-8, 8]"),
    ("digits data.limit=1", "BadValue", "'limit' is 1, but must be int >= 2"),
    ("digits data.size=[9,8]", "BadValue", "9"),  # a side that SNGAN cannot halve
    ("digits train=5", "BadValue", "'train' is a map of keys, not 5"),
    ("digits ema.decay=1.5", "BadValue", "'decay' is 1.5, but must be 0 <= float <= 1"),
    ("digits eval.protocol=digit", "BadValue", "no protocol is called 'digit'. Did you mean 'digits'?"),
    ("digits eval.protocol=nowhere.yaml", "BadValue", "there is no file nowhere.yaml"),
    ("digits sampler=plane", "UnknownPart", "Did you mean 'plain'?", "ganvas list samplers"),
    ("digits sinks.tensorbord={}", "UnknownPart", "no sink is called 'tensorbord'"),
    ("digits evla=~", "UnknownKey", "a recipe has no parameter 'evla'. Did you mean 'eval'?"),
    ("digits courses.optim.lr.to=1", "UnknownKey", "'courses' is called 'schedules' now"),
    ("digits train.stps=~", "UnknownKey", "Did you mean 'steps'?"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "kind", "snippets"), [(each[0], each[1], each[2:]) for each in OVERRIDES])
def test_bad_override(refused: Callable[..., None], words: str, kind: str, snippets: tuple[str, ...]) -> None:
    refused(f"train {words} --out run", kind, *snippets)


WHOLE = """\
data: digits
networks:
  generator: {use: sngan-generator, width: 8}
  discriminator: {use: sngan-discriminator, width: 8}
task: {use: adversarial, objective: hinge}
"""

FILES = [
    ("", "RecipeError", "a recipe is a map of keys"),
    ("[1, 2]", "RecipeError", "a recipe is a map of keys"),
    ("train:\n\tsteps: 1\n", "RecipeError", "my.yaml:2:1", "spaces, not tabs"),
    ("task: {use: adversarial\n", "RecipeError", "my.yaml:2:1", "not readable as YAML"),
    (WHOLE + "task: adversarial\n", "RecipeError", "my.yaml:6:1", "'task' stands here twice, first at line 5"),
    (WHOLE + "? [a, b]\n: 1\n", "RecipeError", "my.yaml:6:3", "a key must be a word"),
    (WHOLE + "train: {steps: !!python/name:os.system }\n", "RecipeError", "my.yaml:6:16", "means nothing in a recipe"),
    ("a: &a [x, x]\nb: &b [*a, *a]\n" + "".join(
        f"{chr(c)}: &{chr(c)} [*{chr(c - 1)}, *{chr(c - 1)}]\n" for c in range(ord("c"), ord("z"))
    ), "RecipeError", "far larger than any recipe"),
    ("base: digits\nbase_: 1\n", "UnknownKey", "my.yaml:2:1", "'base_'"),
    ("base: digit\n", "RecipeError", "my.yaml:1:1", "Did you mean 'digits'?"),
    ("base: digits\ncourses: {}\n", "UnknownKey", "my.yaml:2:1", "'courses' is called 'schedules' now", "schedules: …"),
    ("base: [digits]\n", "BadValue", "my.yaml:1:1", "'base' is ['digits']"),
    ("base: tiny/digits\n", "RecipeError", "has a base itself", "one level"),
    ("base: digits\ntask: {objective: hnge}\n", "UnknownPart", "my.yaml:2:8", "Did you mean 'hinge'?"),
    (WHOLE.replace("data: digits\n", ""), "BadValue", "a recipe needs 'data'", "ganvas list data"),
    (WHOLE.replace("width: 8}", "width: eight}"), "BadValue", "my.yaml:3:37", "my.yaml:4:45", "'eight'"),
    (WHOLE.replace("adversarial", "adverserial"), "UnknownPart", "my.yaml:5:8", "Did you mean 'adversarial'?"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "kind", "snippets"), [(each[0], each[1], each[2:]) for each in FILES])
def test_bad_recipe_file(
    refused: Callable[..., None], workplace: Path, text: str, kind: str, snippets: tuple[str, ...]
) -> None:
    (workplace / "my.yaml").write_text(text)
    refused("train my.yaml --out run", kind, *snippets)


def test_recipe_file_that_is_no_text(refused: Callable[..., None], workplace: Path) -> None:
    (workplace / "my.yaml").write_bytes(b"\xff\xfe\x00data: digits")
    refused("train my.yaml --out run", "RecipeError", "my.yaml", "UTF-8")


def test_every_problem_of_a_recipe_is_told_at_once(ganvas: Callable[..., object], workplace: Path) -> None:
    (workplace / "my.yaml").write_text(
        "data: {use: digits, splt: train}\n"
        "networks:\n"
        "  generator: {use: sngan-generator, width: 0}\n"
        "  critic: sngan-discriminator\n"
        "task: {use: adversarial, objective: hing, regularizers: {r1: {wieght: 1}}}\n"
        "optim: {lr: fast, roles: {generator: {lr: 0}, nobody: {lr: 1}}}\n"
        "train: {stps: 1}\n"
        "eval: {protocol: digit}\n"
    )
    said = ganvas("train my.yaml train.batch=0 --json")
    told = {each["where"].split("  ")[-1]: each["type"] for each in said.json["errors"]}
    assert told == {
        "data.splt": "UnknownKey",
        "networks.generator.width": "BadValue",
        "networks": "RoleMissing",
        "networks.critic": "UnknownKey",
        "task.objective": "UnknownPart",
        "task.regularizers.r1.wieght": "UnknownKey",
        "optim.lr": "BadValue",
        "optim.roles.generator.lr": "BadValue",
        "optim.roles.nobody": "UnknownKey",
        "train.stps": "UnknownKey",
        "train.batch": "BadValue",
        "eval.protocol": "BadValue",
    }
    places = {each["where"].split("  ")[0] for each in said.json["errors"]}
    assert {"my.yaml:1:21", "my.yaml:5:63", "command line: train.batch=0"} <= places
