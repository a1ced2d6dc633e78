"""How hard hypothesis tries: alike everywhere, and no verdict hangs on how fast the machine is.

HYPOTHESIS_PROFILE chooses: `default`; `ci`, the same cases each time, so that a run's verdict is about the change at hand (it
is the default under CI=true); `deep`, for a long search by hand. A failure prints what reproduces it.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "default", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
settings.register_profile("ci", settings.get_profile("default"), derandomize=True)
settings.register_profile("deep", settings.get_profile("default"), max_examples=10_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "default"))
