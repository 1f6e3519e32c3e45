"""Audio files in folders, and their decoding by ffmpeg where libsndfile does not read a format.

Runtime and training list files by the functions here, so that every command finds the same.
"""

import shutil
import subprocess
from pathlib import Path

from kws.errors import FormatError

__all__ = [
    "AUDIO_SUFFIXES",
    "FFMPEG_SUFFIXES",
    "audio_below",
    "decode",
    "ffmpeg_command",
    "ffmpeg_reads",
    "is_for_ffmpeg",
    "needs_ffmpeg",
    "not_audio",
]

_SNDFILE_SUFFIXES = (
    ".aif", ".aifc", ".aiff", ".au", ".caf", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".rf64",
    ".snd", ".voc", ".w64", ".wav",
)  # fmt: skip
FFMPEG_SUFFIXES = (
    ".3ga", ".3gp", ".aac", ".ac3", ".amr", ".m4a", ".m4b", ".mka", ".mkv", ".mov", ".mp2", ".mp4",
    ".webm", ".wma",
)  # fmt: skip
"""Files with these endings need ffmpeg."""
_PROBE_S = 0.1
AUDIO_SUFFIXES = tuple(sorted(_SNDFILE_SUFFIXES + FFMPEG_SUFFIXES))
"""Files with these endings, in upper or lower case, are audio."""


def audio_below(folder: Path, pattern: str = "**/*") -> tuple[list[Path], dict[Path, str]]:
    """Return the audio files in a folder, sorted by path, and those left out with the reason.

    A name that is not UTF-8 cannot be written to reports or manifests; such files are left out.

    Parameters
    ----------
    folder : Path
        A folder, or a single file.
    pattern : str
        Of `Path.glob`, relative to `folder`; by default every file below it.
    """
    found = [folder] if folder.is_file() else sorted(folder.glob(pattern))
    paths = [path for path in found if path.suffix.lower() in AUDIO_SUFFIXES]
    left_out = {
        path: f"The name of a file must be UTF-8. Received: {_printable(path)}. Rename it."
        for path in paths
        if not _is_utf8(path)
    }
    return [path for path in paths if path not in left_out], left_out


def is_for_ffmpeg(path: Path) -> bool:
    """Return whether a file has an ending that only ffmpeg reads."""
    return path.suffix.lower() in FFMPEG_SUFFIXES


def ffmpeg_command(
    path: Path,
    *,
    start_s: float = 0.0,
    length_s: float | None = None,
    keep_channels: bool = False,
) -> list[str] | None:
    """Return the command that decodes a file to 16 kHz s16le; None if ffmpeg is missing.

    Parameters
    ----------
    path : Path
    start_s, length_s : float
        The part to decode; None is to the end.
    keep_channels : bool
        Write a WAV of all channels in place of the raw mean of them.
    """
    program = shutil.which("ffmpeg")
    if program is None:
        return None
    part = [] if length_s is None else ["-t", f"{length_s:.6f}"]
    form = ["-f", "wav", "-c:a", "pcm_s16le"] if keep_channels else ["-f", "s16le", "-ac", "1"]
    # A file may name others, on the network, too: only files are followed.
    return [
        program, "-v", "error", "-nostdin", "-protocol_whitelist", "file,pipe",
        *(["-ss", f"{start_s:.6f}"] if start_s else []),
        "-i", f"file:{path.absolute()}", *part, "-vn", *form, "-ar", "16000", "-",
    ]  # fmt: skip


def decode(path: Path, *, start_s: float = 0.0, length_s: float | None = None) -> bytes:
    """Return the samples of a file, or of a part, as s16le, mono, 16 kHz, decoded by ffmpeg.

    Raises
    ------
    FormatError
        If ffmpeg is missing or cannot read the file.
    """
    command = ffmpeg_command(path, start_s=start_s, length_s=length_s)
    if command is None:
        raise needs_ffmpeg(path)
    try:
        done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, check=False)
    except OSError as error:
        raise not_audio(path, f"ffmpeg cannot be started: {error.strerror}") from error
    if done.returncode:
        raise not_audio(path, _last_line(done.stderr))
    return done.stdout


def ffmpeg_reads(path: Path) -> bool:
    """Return whether ffmpeg reads a file that libsndfile fails on, such as an M4A named .wav.

    Every command decides it here.
    """
    if not path.is_file() or not path.stat().st_size:
        return False
    try:
        return bool(decode(path, length_s=_PROBE_S))
    except FormatError:
        return False


def needs_ffmpeg(path: Path) -> FormatError:
    """Return the error for a file that only ffmpeg reads, where it is missing."""
    return FormatError(
        f"An audio file must be readable. Received: {path}, and {path.suffix} needs ffmpeg, which "
        f"is not installed. Install ffmpeg, or convert the file to WAV."
    )


def not_audio(path: Path, reason: str) -> FormatError:
    """Return the error for a file that cannot be read as audio."""
    if path.name.startswith("._"):
        return FormatError(
            f"An audio file must be readable. Received: {path}, no audio but the attributes of "
            f"{path.name[2:]}, as macOS stores them on other disks. Remove it."
        )
    return FormatError(f"An audio file must be readable. Received: {path} ({reason}). Remove it.")


def _is_utf8(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _printable(path: Path) -> str:
    return str(path).encode("utf-8", "backslashreplace").decode()


def _last_line(stderr: bytes) -> str:
    """Return the last line that ffmpeg wrote, without its full stop."""
    lines = stderr.decode(errors="replace").strip().splitlines()
    return lines[-1].strip().rstrip(".") if lines else "ffmpeg gives no reason"
