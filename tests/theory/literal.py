"""The rules of METHODS, transcribed word by word: sets and loops, over all classes at once."""


def literal(settings, carried_by, method):
    """Learn a stream. `carried_by[i]` is the class of example i, and the set of its features."""
    learned, memorised, stages = set(), set(), []
    for stage in range(1, settings.stages + 1):
        seen = range(stage * settings.examples)
        if method == "cold":
            learned, memorised = set(), set()
        if method == "ideal":
            memorised = set()

        def done(i, learned=learned):
            label, features = carried_by[i]
            return sum((label, feature) in learned for feature in features) >= settings.tau

        live = {i for i in seen if i not in memorised and not done(i)}
        started_with, steps = len(live), []
        while True:
            counts = {
                (label, feature): sum(carried_by[i][0] == label and feature in carried_by[i][1] for i in live)
                for label in range(settings.classes)
                for feature in range(settings.features)
                if (label, feature) not in learned
            }
            frequent = {feature: count for feature, count in counts.items() if count >= settings.gamma}
            if not frequent:
                break
            most = max(frequent.values())
            chosen = min(feature for feature, count in frequent.items() if count == most)
            learned.add(chosen)
            finished = {i for i in live if done(i)}
            live -= finished
            steps.append((*chosen, most, len(finished)))
        memorised |= live
        stages.append((set(learned), started_with, set(memorised), steps))
    return stages


def expected_accuracy(settings, probabilities, learned):
    """Over every set of features that a test example may carry, with its probability."""
    right = 0.0
    for label in range(settings.classes):
        for mask in range(2**settings.features):
            carried = {feature for feature in range(settings.features) if mask >> feature & 1}
            chance = 1.0
            for feature in range(settings.features):
                p = probabilities[label][feature]
                chance *= p if feature in carried else 1 - p
            enough = sum((label, feature) in learned for feature in carried) >= settings.tau
            right += chance * (1 if enough else 1 / settings.classes) / settings.classes
    return right
