"""Methods by name, as on the command line."""

import dataclasses
import textwrap
from typing import Annotated

import pytest

import warmstart as ws
from warmstart.methods.registry import methods
from warmstart.setting import Setting
from warmstart.wording import split_names

OWN = """
    from dataclasses import dataclass
    from typing import ClassVar
    from warmstart import Method

    @dataclass(frozen=True)
    class Nudge(Method):
        by: float = 0.1
        often: bool = False
        where: str | None = None
        name: ClassVar[str] = "nudge"

    @dataclass(frozen=True)
    class Needy(Method):
        by: float
        name: ClassVar[str] = "needy"

    @dataclass(frozen=True)
    class Nameless(Method):
        pass

    def function():
        pass
"""


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    (tmp_path / "own_methods_of_a_user.py").write_text(textwrap.dedent(OWN))
    monkeypatch.chdir(tmp_path)
    return "own_methods_of_a_user"


def test_the_names_are_those_of_the_design_in_alphabetical_order():
    paper = {"cold", "warm", "warm-reset", "shrink-perturb", "head-reset", "l2-init", "dash"}
    assert paper <= set(methods())
    assert list(methods()) == sorted(methods())
    assert all(kind.name == name for name, kind in methods().items())


@pytest.mark.parametrize(
    ("text", "method"),
    [
        ("dash", ws.Dash()),
        (" dash[] ", ws.Dash()),
        ("dash[alpha=0.1]", ws.Dash(alpha=0.1)),
        ("dash[ alpha = 1 , lambda=5e-2 ]", ws.Dash(alpha=1.0, lambda_=0.05)),
        ("dash[lambda_=0.05]", ws.Dash(lambda_=0.05)),
        ("dash[batch_size=128,granularity=neuron]", ws.Dash(batch_size=128, granularity="neuron")),
        ("dash[batch_size=none]", ws.Dash()),
        ("dash[granularity=kernel-or-row]", ws.Dash()),
        ("shrink-perturb[variant=ash]", ws.ShrinkPerturb(variant="ash")),
        ("shrink-perturb[noise_std=0]", ws.ShrinkPerturb(noise_std=0.0)),
        ("head-reset[head=fc.2]", ws.HeadReset(head="fc.2")),
        ("l2-init[coef=1e-5]", ws.L2Init(coef=1e-5)),
    ],
)
def test_a_name_and_its_settings_make_the_method(text, method):
    assert ws.parse_method(text) == method


@pytest.mark.parametrize(
    ("made", "typed"),
    [
        (ws.ShrinkPerturb(noise_std=0), "shrink-perturb[noise_std=0]"),
        (ws.ShrinkPerturb(shrink=1), "shrink-perturb[shrink=1]"),
        (ws.Dash(alpha=1, batch_size=64), "dash[alpha=1,batch_size=64]"),
        (ws.L2Init(coef=0), "l2-init[coef=0]"),
    ],
)
def test_a_method_has_one_label_whether_made_or_typed(made, typed):
    """Results are kept by label."""
    assert made == ws.parse_method(typed)
    assert str(made) == str(ws.parse_method(typed))
    assert str(made.settings()) == str(ws.parse_method(typed).settings())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dahs", "method 'dahs' is unknown; did you mean 'dash'?"),
        ("Dash", "did you mean 'dash'?"),
        ("", "method '' is unknown"),
        ("zzz", "choose from cold, continual-backprop, dash"),
        ("dash[alpha=0.1", "no closing bracket"),
        ("dash[alpha=0.1][lambda=0.1]", "opens a second bracket; write all settings in one, as dash[a=1,b=2]"),
        ("dash[lamda=0.1]", "dash has no setting 'lamda'; did you mean 'lambda'?"),
        ("dash[alpha]", "dash has no setting 'alpha'"),
        ("dash[alpha=x]", "dash[alpha] is 'x'; it must be float"),
        ("dash[alpha=]", "dash[alpha] is ''"),
        ("dash[alpha=2]", "alpha is 2.0; it must be a finite number, above 0 and at most 1"),
        ("dash[batch_size=1.5]", "dash[batch_size] is '1.5'; it must be int"),
        ("dash[granularity=filter]", "it must be kernel or kernel-or-row or neuron"),
        ("dash[alpha=0.1,alpha=0.2]", "sets alpha twice"),
        ("dash[lambda=0.1,lambda_=0.2]", "twice"),
        ("warm[lr=1]", "warm has no setting 'lr'; it has none"),
        ("warm]", "unknown"),
        ("shrink-perturb[variant=asch]", "did you mean 'ash'?"),
    ],
)
def test_a_wrong_name_is_one_clear_line(text, message):
    with pytest.raises(ws.InputError) as refused:
        ws.parse_method(text)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_commas_inside_brackets_do_not_split():
    names = "cold, dash[alpha=0.1,lambda=0.05],,shrink-perturb[variant=ash] ,"
    assert split_names(names) == ["cold", "dash[alpha=0.1,lambda=0.05]", "shrink-perturb[variant=ash]"]


def test_a_users_own_class_takes_settings_like_the_librarys(own_module):
    method = ws.parse_method(f"{own_module}:Nudge[by=2,often=true,where=head]")
    assert (method.by, method.often, method.where) == (2.0, True, "head")
    assert ws.parse_method(f"{own_module}:Nudge[where=none]").where is None
    assert ws.parse_method(f"{own_module}:Needy[by=1]").by == 1.0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Nudge[often=maybe]", "it must be bool"),
        ("Needy", "write {module}:Needy[by=VALUE]"),
        ("Nameless", "extends warmstart.Method and has a name"),
        ("function", "must be a dataclass that extends warmstart.Method"),
        ("Nugde", "did you mean 'Nudge'?"),
    ],
)
def test_a_class_that_is_no_method_is_refused(own_module, name, message):
    with pytest.raises(ws.InputError) as refused:
        ws.parse_method(f"{own_module}:{name}")
    assert message.format(module=own_module) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_setting_that_is_true_or_false_is_nothing_else():
    @dataclasses.dataclass(frozen=True)
    class Asking(ws.Method):
        often: Annotated[bool, Setting("Whether it acts often")] = False

    assert Asking(often=True).often
    with pytest.raises(ws.InputError, match="often is 'yes'; it must be true or false"):
        Asking(often="yes")


def test_a_class_with_another_default_has_the_settings_range_and_search_too():
    @dataclasses.dataclass(frozen=True)
    class Slower(ws.Dash):
        alpha: float = 0.1

    assert list(Slower.described()) == list(ws.Dash.described())
    assert Slower().search == ws.Dash().search
    with pytest.raises(ws.InputError, match="above 0 and at most 1"):
        Slower(alpha=2)


def test_a_method_that_overrides_nothing_is_warm():
    assert not ws.Method().acts_on_updates
    report = ws.Method().on_new_data(None, None)
    assert "nothing changed" in str(report)


@pytest.mark.parametrize("kind", methods().values(), ids=lambda kind: kind.name)
def test_a_method_is_made_again_from_its_settings(kind):
    assert kind(**kind().settings()) == kind()
