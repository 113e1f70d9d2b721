"""Cards of networks that tests make."""

from warmstart.serving.model_folder import ModelCard


def card_of(images, model, **changes):
    """The card of a network that was trained on these images."""
    mean, std = (tuple(values.tolist()) for values in (images.channel_mean(), images.channel_std()))
    known = {
        "model": model,
        "classes": images.classes,
        "channels": images.channels,
        "image_size": images.image_size,
        "fit": "stretch",
        "mean": mean,
        "std": std,
        "bits": images.bits,
    }
    return ModelCard(**{**known, **changes})
