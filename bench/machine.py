"""What was measured on: processor, kernel, disk and how fast it syncs, versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

_PROBE_SECONDS = 1.0
_BLOCK = os.urandom(4096)


def describe(place: Path) -> dict[str, str]:
    """Rows of the machine's description; `place` is where the servers work."""
    return {
        "processor": f"{_processor()}, {len(os.sched_getaffinity(0))} cores",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB",
        "system": f"{_distribution()}, Linux {platform.release()}",
        "disk": f"{filesystem(place)}; {_sync_rates(place)}",
        "software": f"Python {platform.python_version()}, uvloop {_version('uvloop')}, msgspec {_version('msgspec')}",
        "load before": f"{os.getloadavg()[0]:.2f}",
        "time": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }


def filesystem(place: Path) -> str:
    """The type of the file system that holds a folder."""
    best, kind = "", "unknown"
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, point, name, *_ = line.split()
        inside = point == "/" or f"{place}/".startswith(f"{point}/")
        if inside and len(point) >= len(best):
            best, kind = point, name
    return kind


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        return "unknown distribution"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def _sync_rates(place: Path) -> str:
    log = place / "sync-probe"
    with log.open("wb", buffering=0) as file:
        file.write(bytes(8 << 20))
        os.fsync(file.fileno())
        overwrite = _rate(lambda n: _overwrite(file.fileno(), n))
    create = _rate(lambda n: _create(place / f"sync-probe-{n}"))
    log.unlink()
    return f"{overwrite:.0f} overwrites of 4 KiB + fdatasync a second, {create:.0f} new files of 4 KiB + fsync a second"


def _overwrite(fd: int, n: int) -> None:
    os.pwrite(fd, _BLOCK, n * 4096 % (8 << 20))
    os.fdatasync(fd)


def _create(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        file.write(_BLOCK)
        os.fsync(file.fileno())


def _rate(work: Callable[[int], None]) -> float:
    begin = time.perf_counter()
    count = 0
    while time.perf_counter() - begin < _PROBE_SECONDS:
        work(count)
        count += 1
    return count / (time.perf_counter() - begin)


def spread_folders(place: Path) -> None:
    """Ask ext4 to put each folder made in this one in a block group of its own; other file systems do not mind."""
    try:
        subprocess.run(["chattr", "+T", str(place)], capture_output=True, check=False)
    except FileNotFoundError:
        return
