"""Who may do what: tokens, cookies, and the word that a form of ours carries."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: Name of the cookie.
COOKIE: Final = "muster_session"

#: Seconds for which a browser need not say the token again.
LASTS_S: Final = 12 * 3600

#: Wrong tokens that are answered at once, over so many seconds; the rest has to wait.
MOST_WRONG: Final = 10
_WRONG_WINDOW_S: Final = 60.0


class Sessions:
    """Signs and knows sessions. They end with the server, whose key is new each time it begins."""

    def __init__(self, token: str | None, *, clock: Callable[[], float] = time.time) -> None:
        self._token = token
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._wrong: list[float] = []

    @property
    def needs_token(self) -> bool:
        """True where nobody gets in without one."""
        return self._token is not None

    def is_token(self, given: str) -> bool:
        """Return whether it is the token; takes as long for a wrong one."""
        return self._token is not None and hmac.compare_digest(given.encode(), self._token.encode())

    def is_held_off(self) -> bool:
        """Return whether too many wrong tokens came of late."""
        now = self._clock()
        self._wrong = [at for at in self._wrong if now - at < _WRONG_WINDOW_S]
        return len(self._wrong) >= MOST_WRONG

    def note_wrong(self) -> None:
        """Take note of a wrong token."""
        self._wrong.append(self._clock())

    def new(self) -> str:
        """Return a cookie's value for somebody who has shown the token."""
        until = str(int(self._clock()) + LASTS_S)
        return f"{until}.{secrets.token_urlsafe(12)}.{self._signed('session', until)}"

    def is_session(self, value: str) -> bool:
        """Return whether a cookie is ours and still holds."""
        until, _, rest = value.partition(".")
        _, _, signature = rest.partition(".")
        if not until.isdecimal() or len(until) > 12:
            return False
        is_ours = hmac.compare_digest(signature.encode(), self._signed("session", until).encode())
        return is_ours and int(until) > self._clock()

    def is_let_in(self, headers: Mapping[str, str], cookie: str | None) -> bool:
        """Return whether a request may be answered: by its cookie, or by ``Authorization: Bearer``."""
        if not self.needs_token:
            return True
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            return self.is_token(given.strip())
        return cookie is not None and self.is_session(cookie)

    def form_word(self, cookie: str | None) -> str:
        """Return what our own forms carry, and no other site's can know."""
        return self._signed("form", cookie or "")

    def is_form_word(self, given: str, cookie: str | None) -> bool:
        """Return whether a form is one of ours."""
        return hmac.compare_digest(given.encode(), self.form_word(cookie).encode())

    def _signed(self, purpose: str, text: str) -> str:
        return hmac.new(self._key, f"{purpose}:{text}".encode(), hashlib.sha256).hexdigest()
