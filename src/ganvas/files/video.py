"""Moving pictures: GIF through Pillow, MP4 through the optional package av, or written through the program ffmpeg.

Between a file and a tensor a film is frames (T, H, W, C) of bytes at one rate. A GIF holds grey frames as they are; of
colour it holds at most 256 in a frame, and its times are hundredths of a second. MP4 is lossy throughout.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import GifImagePlugin, Image

from ganvas.errors import DataError, MissingExtra
from ganvas.files.files import full_disk, write_bytes
from ganvas.files.reading import content_of

SUFFIXES = (".gif", ".mp4")
CHANNELS = (1, 3)  # grey, RGB

_MOST_BYTES = 2 << 30
"""Of the frames of one file. More is no clip for training, or a file that was made to fill the memory."""

_UNTIMED = 10  # hundredths of a second that a GIF's frame without a time is shown for, as browsers do
_QUALITY = "18"  # x264's constant rate factor: the loss is hard to see

Frame = NDArray[np.uint8]


class Unreadable(Exception):
    """Bytes that are no usable film; the text is the reason. Whoever knows the file's name makes it a DataError."""


@dataclass(frozen=True)
class Film:
    """`frames` (T, H, W, 3) uint8, shown at `rate` frames a second."""

    frames: Frame
    rate: float


# --------------------------------------------------------------------------------------------------- reading


def read(file: Path) -> Film:
    """The film in a GIF or MP4 file.

    Raises
    ------
    DataError : it cannot be read, is damaged, or larger than a clip.
    MissingExtra : it is no GIF and av is not installed.
    """
    try:
        return decode(content_of(file, error=DataError), str(file))
    except Unreadable as reason:
        raise DataError(
            f"it is no film that can be read: {reason}", where=str(file), hint="give a whole GIF or MP4 file"
        ) from None


def decode(content: bytes, where: str) -> Film:
    """The film in the bytes of a file, whose kind is seen from its first bytes; `where` is the file's name.

    Raises
    ------
    Unreadable : they are damaged, too many or of another kind.
    MissingExtra : they are no GIF and av is not installed.
    """
    if content[:6] in (b"GIF87a", b"GIF89a"):
        return _from_gif(content)
    if content[4:8] == b"ftyp":
        return _by_av(content, where)
    raise Unreadable("it begins like no GIF or MP4 file" if content else "it is empty")


def _from_gif(content: bytes) -> Film:
    """Frames at the pace of the shortest one: a frame that is shown k times as long counts as k frames.

    So come frames back that are alike and follow each other, of which a GIF's writer keeps one.
    """
    frames: list[Frame] = []
    times: list[int] = []
    try:
        with Image.open(io.BytesIO(content), formats=(GifImagePlugin.GifImageFile.format,)) as image:
            _refuse_size(1, image.height, image.width)
            while True:
                times.append(int(image.info.get("duration", 0)) // 10 or _UNTIMED)
                frames.append(np.asarray(image.convert("RGB"), dtype=np.uint8))
                _refuse_size(len(frames) + 1, image.height, image.width)
                try:
                    image.seek(len(frames))
                except EOFError:
                    break
    except Unreadable:
        raise
    except Exception as error:  # broken bytes make Pillow's reader raise anything
        raise Unreadable(str(error) or type(error).__name__) from None
    least = min(times)
    counts = [round(time / least) for time in times]
    _refuse_size(sum(counts), *frames[0].shape[:2])
    return Film(np.repeat(np.stack(frames), counts, axis=0), 100 * sum(counts) / sum(times))


def _by_av(content: bytes, where: str) -> Film:
    av = _av(where)
    frames: list[Frame] = []
    try:
        with av.open(io.BytesIO(content)) as container:
            stream = container.streams.video[0]
            rate = float(stream.average_rate or stream.guessed_rate or 25)
            for frame in container.decode(stream):
                frames.append(frame.to_ndarray(format="rgb24"))
                _refuse_size(len(frames), *frames[-1].shape[:2])
    except (OSError, ValueError, IndexError) as error:  # av's own errors derive from the first two
        raise Unreadable(str(error).splitlines()[0] if str(error) else type(error).__name__) from None
    if not frames:
        raise Unreadable("it holds no frame")
    return Film(np.stack(frames), rate)


def _refuse_size(count: int, height: int, width: int) -> None:
    if count * height * width * 3 > _MOST_BYTES:
        raise Unreadable(f"its {count} frames of {width}x{height} or more need over {_MOST_BYTES >> 30} GiB")


# --------------------------------------------------------------------------------------------------- writing


def gif(frames: Iterable[Frame], rate: float) -> bytes:
    """A GIF of frames (H, W, C), C of 1 or 3, that is shown over and over. Grey stays as it is; colours are reduced."""
    shown = [_picture(frame) for frame in frames]
    ends = [round(100 * (number + 1) / rate) for number in range(len(shown))]  # hundredths of a second
    times = [max(1, end - start) for start, end in zip([0, *ends], ends, strict=False)]
    buffer = io.BytesIO()
    shown[0].save(buffer, "GIF", save_all=True, append_images=shown[1:], duration=[10 * time for time in times], loop=0)
    return buffer.getvalue()


def write(file: Path, frames: Iterable[Frame], rate: float) -> int:
    """Write frames (H, W, C) to a GIF or MP4 file, whole or not at all; returns how many there were.

    MP4 is written by av, or by the program ffmpeg where that is not installed. Sides that are odd are kept by a form of
    MP4 that fewer programs show.

    Raises
    ------
    DataError : another ending, frames that such a file cannot hold, or the encoder failed.
    MissingExtra : MP4, and there is neither av nor ffmpeg.
    """
    suffix = check_suffix(file)
    counted = _Counted(frames)
    if suffix == ".gif":
        write_bytes(file, gif(_checked(counted, file), rate))
        return counted.count
    temporary = file.with_name(f".{file.stem}.{os.getpid()}.tmp{suffix}")
    try:
        if _has_av():
            _write_by_av(temporary, _checked(counted, file), rate, str(file))
        else:
            _write_by_ffmpeg(temporary, _checked(counted, file), rate, str(file))
        temporary.replace(file)
    except OSError as error:
        raise full_disk(error, file) from None
    finally:
        temporary.unlink(missing_ok=True)
    return counted.count


def check_suffix(file: Path) -> str:
    """The file's ending, once it is sure that such a file can be written here.

    Raises
    ------
    DataError : it is none of `SUFFIXES`.
    MissingExtra : MP4, and there is neither av nor ffmpeg.
    """
    suffix = file.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(
            f"no moving picture ends in {suffix or 'nothing'}", where=str(file), hint="FILE.gif or FILE.mp4"
        )
    if suffix == ".mp4" and not _has_av() and shutil.which("ffmpeg") is None:
        raise MissingExtra(
            "MP4 files need the package av, or the program ffmpeg; neither is installed", where=str(file),
            hint='pip install "ganvas[video]" -c constraints.txt, or give FILE.gif',
        )  # fmt: skip
    return suffix


class _Counted:
    """Frames, and how many of them were taken."""

    def __init__(self, frames: Iterable[Frame]) -> None:
        self.frames = frames
        self.count = 0

    def __iter__(self) -> Iterator[Frame]:
        for frame in self.frames:
            self.count += 1
            yield frame


def _checked(frames: Iterable[Frame], file: Path) -> Iterator[Frame]:
    """The same frames, if they can be written at all."""
    first: tuple[int, ...] | None = None
    for frame in frames:
        if frame.shape[2] not in CHANNELS:
            raise DataError(
                f"no moving picture can hold {frame.shape[2]} channels", where=str(file), hint="write --out FILE.npz"
            )
        first = first or frame.shape
        if frame.shape != first:
            raise DataError(f"its frames have several sizes: {first} and {frame.shape}", where=str(file))
        yield frame
    if first is None:
        raise DataError("there is no frame to write", where=str(file))


def _picture(frame: Frame) -> Image.Image:
    return Image.fromarray(frame[:, :, 0] if frame.shape[2] == 1 else frame)


def _colour(frame: Frame) -> Frame:
    """(H, W, 3)."""
    return np.ascontiguousarray(frame.repeat(3, axis=2) if frame.shape[2] == 1 else frame)


def _pixel_format(frame: Frame) -> str:
    """4:2:0 halves both sides of the colours; every program shows it."""
    return "yuv444p" if frame.shape[0] % 2 or frame.shape[1] % 2 else "yuv420p"


def _write_by_av(file: Path, frames: Iterator[Frame], rate: float, where: str) -> None:
    av = _av(where)
    stream = None
    try:
        with av.open(str(file), "w", format="mp4", options={"movflags": "+faststart"}) as container:
            for frame in frames:
                if stream is None:
                    stream = container.add_stream("libx264", rate=Fraction(rate).limit_denominator(1001))
                    stream.height, stream.width = frame.shape[:2]
                    stream.pix_fmt = _pixel_format(frame)
                    stream.options = {"crf": _QUALITY}
                container.mux(stream.encode(av.VideoFrame.from_ndarray(_colour(frame), format="rgb24")))
            if stream is not None:
                container.mux(stream.encode())
    except (av.error.FFmpegError, ValueError) as error:
        raise DataError(f"av could not write it: {error}", where=where, hint="give FILE.gif") from None


def _write_by_ffmpeg(file: Path, frames: Iterator[Frame], rate: float, where: str) -> None:
    first = next(frames)
    height, width = first.shape[:2]
    line = [
        "ffmpeg", "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}",
        "-r", str(rate), "-i", "-", "-crf", _QUALITY, "-pix_fmt", _pixel_format(first), "-movflags", "+faststart",
        str(file),
    ]  # fmt: skip
    with subprocess.Popen(line, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as encoder:
        assert encoder.stdin is not None and encoder.stderr is not None
        frame: Frame | None = first
        try:
            while frame is not None:
                encoder.stdin.write(_colour(frame).data)
                frame = next(frames, None)
            encoder.stdin.close()
        except BrokenPipeError:
            pass  # what it says is read below
        said = encoder.stderr.read().decode(errors="replace").strip()
    if encoder.returncode:
        raise DataError(f"ffmpeg could not write it: {said.splitlines()[-1] if said else ''}", where=where)


def _has_av() -> bool:
    try:
        import av  # noqa: F401
    except ImportError:
        return False
    return True


def _av(where: str) -> Any:
    try:
        import av
    except ImportError as error:
        raise MissingExtra(
            f"MP4 files need the package av ({str(error).splitlines()[0]})", where=where,
            hint='pip install "ganvas[video]" -c constraints.txt, or give GIF files',
        ) from None  # fmt: skip
    return av
