"""`warmstart retrain`: its examples, and what it shows."""

from __future__ import annotations

from typing import Any

from warmstart.cli.flags import with_flags
from warmstart.retraining.settings import RetrainSettings, require_data

EXAMPLES = """Examples:

warmstart retrain --data photos/ --image-size 64 --state state/

warmstart retrain --data photos/ --image-size 64 --state state/ --protocol practice --max-churn 2% --keep 10

warmstart retrain --state state/ --status

warmstart retrain --state state/ --rollback

Call it whenever data may have arrived, as from cron. Stop it at any time; the same command resumes it.
"""


@with_flags(RetrainSettings)
def retrain(**given: Any) -> None:
    """Retrain on all data so far whenever some has arrived, check the result against the model in service, promote it.

    Everything it knows lies in --state: the index, the data as it arrived, checkpoints, models, and the link `current`.
    """
    require_data(given)
    settings = RetrainSettings.of(given)

    from warmstart.retraining.retrain import retrain as pass_night

    pass_night(settings)
