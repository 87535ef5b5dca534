"""Django's signing key, generated once and kept in a file that only its owner can read."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from telemetry_site.env import SettingError


def load_or_make_secret_key(state_dir: Path) -> str:
    """Returns the key under ``state_dir``, and generates it (and the folder) when missing. Raises SettingError.

    Several services may start at once on a fresh folder. The key is written under another name and then linked into
    place, so that all of them read the same one.
    """
    path = state_dir / "secret_key"
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            draft = state_dir / f".secret_key.{os.getpid()}.{secrets.token_hex(4)}"
            with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
                file.write(secrets.token_urlsafe(50))
            try:
                os.link(draft, path)
            except FileExistsError:
                pass  # another service was first
            finally:
                draft.unlink()
        key = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise SettingError(f"STATE_DIR (--state-dir): cannot keep state in {str(state_dir)!r}: {reason}") from error
    if len(key) < 32:
        raise SettingError(f"STATE_DIR (--state-dir): {str(path)!r} holds no usable key: delete it and start again")
    return key
