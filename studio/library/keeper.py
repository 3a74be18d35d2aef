"""Keeps the library in step with the files while pages are open: looks in the background, never while one is drawn."""

import time
from threading import Lock, Thread
from typing import Final

from studio.errors import describe
from studio.library.index import Library, Scanned
from studio.library.thumbs import Thumbs

OLD_S: Final = 20.0
"""After so long the files are looked at again, when somebody opens the page."""


class Keeper:
    """One for every library that is open."""

    def __init__(self, library: Library) -> None:
        self.library = library
        self.thumbs = Thumbs(library.root)
        self.error = ""
        """Why the last look at the files failed; empty when all is well."""
        self._lock = Lock()
        self._thread: Thread | None = None
        self._looked = 0.0

    @property
    def is_looking(self) -> bool:
        """Whether files are looked at now."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def is_new(self) -> bool:
        """Whether nobody has looked at the files yet."""
        return self.library.scanned_at() is None

    def look(self) -> bool:
        """Looks at the files in the background, when the last time is long ago; whether it began to."""
        with self._lock:
            if self.is_looking or time.monotonic() - self._looked < OLD_S:
                return False
            self._looked = time.monotonic()
            self._thread = Thread(target=self._quietly, name="library", daemon=True)
            self._thread.start()
            return True

    def look_now(self) -> Scanned:
        """Looks at the files and waits for it.

        Raises:
            RequestError: the database cannot be used.
        """
        scanned = self.library.rescan()
        self._looked, self.error = time.monotonic(), ""
        return scanned

    def _quietly(self) -> None:
        try:
            self.library.rescan()
            self.error = ""
        except Exception as error:  # shown on the page; the next look may go well
            self.error = describe(error)

    def wait(self) -> None:
        """Waits for the look that is under way."""
        if self._thread is not None:
            self._thread.join()
