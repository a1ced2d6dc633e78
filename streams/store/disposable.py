"""A database in RocksDB that holds nothing of its own: what doesn't fit is wiped, and made anew from the topics."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

from rocksdict import Options, Rdict

logger = logging.getLogger(__name__)

_IDENTITY: Final = b"identity"


class DisposableDatabase:
    """Base of such a database. One process at a time: RocksDB's own lock sees to it, and that it is taken is raised."""

    def __init__(self, path: Path, identity: bytes, options: Callable[[], Options], sentence: str) -> None:
        """`identity` names all that the content depends on: a database of any other is wiped. `sentence` is logged, with the
        path and the error, of one that can't be opened and is therefore wiped."""
        self._path = path
        self._identity = identity
        self._options = options
        try:
            self._open()
        except Exception as error:
            if "lock" in str(error).lower():
                raise
            logger.warning(sentence, path, error)
            shutil.rmtree(path, ignore_errors=True)
            self._open()
        if self._database.get(_IDENTITY) != self._identity:
            self.wipe()

    def _open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._database = Rdict(str(self._path), self._options())

    def wipe(self) -> None:
        """Forgets everything."""
        self._database.close()
        shutil.rmtree(self._path, ignore_errors=True)
        self._open()
        self._database.put(_IDENTITY, self._identity)
