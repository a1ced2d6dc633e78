"""A missing optional part: the test that needs it is skipped and says why (in CI that is a failure, see no_skips)."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

_OLDEST_JAVA = 17


def need_program(*names: str, package: str) -> Path:
    """The first of `names` that is on the PATH; skips the test when none is. `package` is what to install (Debian)."""
    for name in names:
        found = shutil.which(name)
        if found:
            return Path(found)
    pytest.skip(f"{' or '.join(names)} isn't on the PATH: install {package}")


def need_java() -> Path:
    """A java of version 17 or newer; skips the test when there is none."""
    java = need_program("java", package="openjdk-17-jre-headless")
    version_text = subprocess.run([java, "-version"], capture_output=True, text=True, check=True).stderr
    match = re.search(r'version "(\d+)', version_text)
    if match is None or int(match[1]) < _OLDEST_JAVA:
        pytest.skip(f"{java} is older than Java {_OLDEST_JAVA}: install openjdk-17-jre-headless")
    return java
