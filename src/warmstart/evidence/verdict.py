"""The verdict of a comparison: which method to use, what it gains over cold, and how certain that is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from warmstart.errors import InputError
from warmstart.evidence.comparisons import (
    ENOUGH_SEEDS,
    NOT_JUDGED,
    Comparison,
    by_test_set,
    common_seeds,
    compare,
    estimate_difference,
    multiple,
)
from warmstart.evidence.method_warnings import method_warnings
from warmstart.evidence.paired import ERROR, level_text
from warmstart.runs.results import Results
from warmstart.wording import counted


@dataclass(frozen=True)
class Verdict:
    """What a comparison shows, and what to do."""

    comparisons: tuple[Comparison, ...]
    """Every method but the reference, in the order of the grid."""
    recommended: str | None
    """The cheapest method that loses nothing beyond the margin and has an advantage: fewer steps, or, in no more, a
    better metric; the reference if none has; None where no claim is made."""
    sentence: str
    notes: tuple[str, ...]
    """What limits the claim: missing runs, divergence, a stopping rule that never held."""
    reference: str = "cold"
    margin: float = 0.0
    error: float = ERROR
    """The chance of a false claim that was accepted; one look's share where several are planned."""
    level_of_each: float = 1 - ERROR
    """The level of each interval, so that all hold together at ``1 - error``: 0.983 with three methods at 95 %."""
    decided: bool = False
    """Whether all runs are over and what to do is shown: a method is recommended, or every cheaper one is worse."""


def judge(results: Results, *, margin: float = 0.0, reference: str = "cold", error: float = ERROR) -> Verdict:
    """Compare every method with the reference and recommend one; only finished runs count.

    With k methods judged each interval is taken at ``1 - error / k`` (Bonferroni), so that the chance of any false
    claim among them, better, no worse or worse, is at most ``error`` whatever the margin. The recommended method is the
    cheapest, by steps over all stages, of those whose interval excludes a loss beyond the margin and which are shown to
    save steps, or, in no more steps, to be better; if there is none, the reference.

    Args:
        results: The measurements, complete or partial.
        margin: The largest acceptable loss, in the metric's unit (0.005: half a point of accuracy).
        reference: The method that the others are compared with.
        error: The accepted chance of any false claim.

    Returns:
        The comparisons, the recommended method, and one sentence that says what to do.

    Raises:
        InputError: If the margin is negative or not finite.
    """
    if not (math.isfinite(margin) and margin >= 0):
        raise InputError(f"margin {margin}: the largest acceptable loss must be a number of at least 0")
    others = [method for method in results.methods if method != reference]
    estimates = {method: estimate_difference(results, method, reference) for method in others}
    judged = [
        method
        for method, found in estimates.items()
        if found and found.seeds >= ENOUGH_SEEDS and not results.diverged(method)
    ]
    level = 1 - error / max(1, len(judged))
    comparisons = tuple(
        compare(results, method, reference, found, margin=margin, error=error, tried=len(judged) * (method in judged))
        for method, found in estimates.items()
    )
    notes = _notes(results, comparisons, reference)
    verdict = Verdict(comparisons, None, "", notes, reference, margin, error, level)
    no_claim = _why_no_claim(results, verdict)
    return replace(verdict, sentence=no_claim) if no_claim else _recommend(results, verdict)


def _why_no_claim(results: Results, verdict: Verdict) -> str:
    """Why no claim can be made, and what to do about it; empty if one can."""
    reference, comparisons, seeds = verdict.reference, verdict.comparisons, results.seeds
    if reference not in results.methods:
        return f"No claim: there is no {reference} in the grid to compare with; add it to the methods."
    if not comparisons:
        return f"No claim: {reference} is the only method; add another to compare with it."
    diverged = results.diverged(reference)
    if diverged:
        what, remedy = _how_diverged(results, reference)
        return (
            f"No claim: {reference}{what} in {len(diverged)} of {counted(len(seeds), 'seed')}, so there is nothing to "
            f"compare with; {remedy}."
        )
    if any(c.decision not in NOT_JUDGED for c in comparisons):
        return ""
    shared = [c.seeds for c in comparisons if c.decision != "diverged"]
    if not shared:
        _, remedy = _how_diverged(results, comparisons[0].method)
        return f"No claim: no method but {reference} has a finite {results.metric.name} with every seed; {remedy}."
    missing = ENOUGH_SEEDS - len(seeds)
    remedy = f"run {counted(missing, 'more seed')}" if missing > 0 else "let the comparison finish"
    done = counted(max(shared), "seed")
    return f"No claim: {done} finished, and it takes {ENOUGH_SEEDS} to tell methods apart; {remedy}."


def _how_diverged(results: Results, method: str) -> tuple[str, str]:
    """What happened in the diverged seeds, to stand after the method's name; and what to do."""
    if any(row.status == "diverged" for row in results.select(method)):
        return " itself diverged", "lower the learning rate"
    return f"'s {results.metric.name} is not a finite number", "check what evaluate returns there"


def _recommend(results: Results, verdict: Verdict) -> Verdict:
    sign = results.metric.sign
    judged = [c for c in verdict.comparisons if c.decision not in NOT_JUDGED]
    admissible = [c for c in judged if c.decision in ("better", "no worse")]
    with_advantage = [c for c in admissible if c.saves_steps or (c.decision == "better" and _cost(c) <= 1)]
    chosen = min(with_advantage, key=lambda c: (_cost(c), -sign * c.difference), default=None)
    if chosen:
        recommended, decided = chosen.method, True
        sentence = f"Use {recommended}: {_outcome(results, verdict, chosen)}."
    else:
        cheaper = [c for c in judged if _cost(c) <= 1]
        recommended, decided = (
            verdict.reference,
            not any(c.decision == "unclear" or _may_save_steps(c) for c in cheaper),
        )
        sentence = _keep_reference(results, verdict, cheaper)
    total = len(results.methods) * len(results.seeds)
    done = sum(len(results.finished(method)) + len(results.diverged(method)) for method in results.methods)
    if done < total:
        sentence = f"So far ({done} of {total} runs): {sentence[0].lower()}{sentence[1:]}"
    decided = decided and done == total
    notes = (*_for_more_steps(results, verdict, admissible, chosen), *verdict.notes)
    return replace(verdict, recommended=recommended, sentence=sentence, notes=notes, decided=decided)


def _for_more_steps(
    results: Results, verdict: Verdict, admissible: Sequence[Comparison], chosen: Comparison | None
) -> Sequence[str]:
    """What to use where the metric counts more than steps: the cheapest that gains more than `chosen`, and the best."""
    sign = results.metric.sign
    better = sorted((c for c in admissible if c.decision == "better"), key=_cost)
    most, front = sign * chosen.difference if chosen else 0.0, []
    for c in better:
        if c is not chosen and sign * c.difference > most:
            most = sign * c.difference
            front.append(c)
    if not front:
        return ()
    uses = [f"{c.method}: {_outcome(results, verdict, c)}" for c in dict.fromkeys((front[0], front[-1]))]
    return (f"Where {results.metric.name} counts more than steps, use {'; or '.join(uses)}.",)


def _cost(c: Comparison) -> float:
    """Steps over the reference's. Where they are not counted all methods cost the same, and the metric decides."""
    return c.total_steps_ratio if math.isfinite(c.total_steps_ratio) else 1.0


def _may_save_steps(c: Comparison) -> bool:
    """Whether a method that is no worse took fewer steps, but not so that it is shown."""
    return c.decision == "no worse" and _cost(c) < 1 and not c.saves_steps


def _keep_reference(results: Results, verdict: Verdict, cheaper: Sequence[Comparison]) -> str:
    reference, metric = verdict.reference, results.metric.name
    if not cheaper:
        return f"Use {reference}: no other method takes fewer steps."
    unclear = [c for c in cheaper if c.decision == "unclear"]
    may_save = min((c for c in cheaper if _may_save_steps(c)), key=_cost, default=None)
    if not unclear and may_save:
        return (
            f"Stay with {reference} for now: {may_save.method} loses no {metric} beyond the margin, but "
            f"{counted(may_save.seeds, 'seed')} do not show that it saves steps "
            f"({multiple(may_save.total_steps_ratio)} of {reference}'s)."
        )
    if not unclear and any(c.decision != "worse" for c in cheaper):
        return f"Use {reference}: no other method is shown to save steps without a loss, or to have a better {metric}."
    if not unclear:
        sign = results.metric.sign
        closest = max(cheaper, key=lambda c: sign * c.difference)
        steps = [c.total_steps_ratio for c in cheaper if math.isfinite(c.total_steps_ratio)]
        which = "other method"
        if steps:
            which = f"method that takes {'fewer' if max(steps) < 1 else 'no more'} steps"
        return (
            f"Use {reference}: every {which} loses {metric}, {closest.method} the least: "
            f"{_outcome(results, verdict, closest)}."
        )
    c = min(unclear, key=lambda c: (_cost(c), -results.metric.sign * c.difference))
    if not math.isfinite(c.low) and results.stages == 1:
        return f"Stay with {reference} for now: in a first stage all methods train alike; compare more than one stage."
    if not math.isfinite(c.low):
        return (
            f"Stay with {reference} for now: {c.method} differs from it by exactly the same amount with all "
            f"{counted(c.seeds, 'seed')}, from which nothing can be inferred; do the runs depend on the seed?"
        )
    if not c.low <= 0 <= c.high:
        return f"Stay with {reference} for now: {c.method} may lose too much: {_outcome(results, verdict, c)}."
    cost = f" at {multiple(c.total_steps_ratio)} of its steps" if math.isfinite(c.total_steps_ratio) else ""
    low, high = results.metric.difference(c.low, "+", unit=False), results.metric.difference(c.high, "+")
    return (
        f"Stay with {reference} for now: {c.method}{cost} makes no difference that {counted(c.seeds, 'seed')} can "
        f"show ({level_text(verdict.error)} interval {low} to {high}). {_what_would_decide(results, c)}"
    )


def _what_would_decide(results: Results, c: Comparison) -> str:
    margin = f"a margin of {results.metric.difference(c.admitting_margin)} would admit it"
    if c.seeds_needed is not None:
        return f"At the spread seen, {counted(c.seeds_needed, 'seed')} would decide about every other time; {margin}."
    if results.metric.sign * c.difference <= 0:
        return f"It may lose more than the margin; {margin}."
    return f"More test examples are needed: at the spread seen, no practical number of seeds would decide; {margin}."


def _outcome(results: Results, verdict: Verdict, c: Comparison) -> str:
    """What one comparison has shown, to follow the method's name and a colon."""
    side = "above" if c.difference > 0 else "below"
    sign = "+" if c.low < 0 < c.high else ""
    low, high = (results.metric.difference(end, sign, unit=False) for end in (c.low, c.high))
    margin = results.metric.difference(verdict.margin)
    no_more = f"; a loss beyond the margin of {margin} is excluded" if c.decision == "no worse" else ""
    cost = f" at {multiple(c.total_steps_ratio)} of {verdict.reference}'s steps" if c.total_steps_ratio > 0 else ""
    size = results.metric.difference(abs(c.difference))
    return (
        f"its last {results.metric.name} is {size} {side} {verdict.reference}'s "
        f"({level_text(verdict.error)} interval {low} to {high}, {counted(c.seeds, 'seed')}{no_more}){cost}"
    )


def _notes(results: Results, comparisons: Sequence[Comparison], reference: str) -> tuple[str, ...]:
    notes = []
    seeds = counted(len(results.seeds), "seed")
    for method in results.methods:
        rows, diverged = results.select(method), results.diverged(method)
        if diverged:
            what = _how_diverged(results, method)[0].replace(" itself", "")
            notes.append(
                f"{method}{what} in {len(diverged)} of {seeds}: it is not recommended, and those are in no mean."
            )
        at_limit = sum(row.status == "max-epochs" for row in rows)
        if at_limit:
            notes.append(
                f"{method}: in {at_limit} of {counted(len(rows), 'stage')} the stopping rule never held; the steps "
                "there are the limit of epochs, not what it needs."
            )
        stuck = [row for row in rows if row.status == "plateau"]
        if stuck:
            notes.append(
                f"{method}: in {len(stuck)} of {counted(len(rows), 'stage')} training accuracy stopped rising, at "
                f"{min(row.train_accuracy for row in stuck):.1%} or more, before the stopping rule held (plateau)."
            )
        missing = len(results.seeds) - len(results.finished(method)) - len(diverged)
        if missing:
            notes.append(f"{method}: {missing} of {seeds} not finished; they are in no mean.")
    notes += method_warnings(results)
    judged = [c.method for c in comparisons if c.decision not in NOT_JUDGED]
    unscored = [m for m in judged if not by_test_set(results, m, reference, common_seeds(results, m, reference))]
    if unscored:
        which = "" if unscored == judged else f" of {', '.join(unscored)}"
        notes.append(
            f"The intervals{which} "
            "allow for the seeds but not for the choice of test examples: per-example scores are missing, or not of "
            "the same examples."
        )
    return tuple(notes)
