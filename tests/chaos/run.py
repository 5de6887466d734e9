"""Do damage to the smoke study, over and over, and print what it survived: `make chaos`.

A first, undisturbed run gives the digests that every later one must end with. An hour on two cores with the default of
20 kills; what cannot be tried here (file systems, without root) is said.
"""

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import faults
from rich.console import Console
from rich.table import Table

REPOSITORY = Path(__file__).parents[2]


def main() -> None:
    """Run all faults and print one table; exit code 1 when something was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20, help="random moments of kill -9")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    arguments = parser.parse_args()
    chance, console = random.Random(arguments.seed), Console()
    with tempfile.TemporaryDirectory() as scratch:
        base = checkout(Path(scratch) / "undisturbed")
        console.print("an undisturbed run first, two minutes ...")
        code, printed = faults.Run(base).finish()
        if code:
            sys.exit(printed)
        wanted = faults.digests(base / "results/smoke")
        table = Table("fault", "times", "survived", "lost", title=f"{len(wanted)} files compared after each")
        lost = 0
        for name, times, start, damage in plan(arguments.kills, chance):
            if damage is None:
                table.add_row(name, "0", "-", "not tried: needs root, to mount a file system")
                continue
            complaints = []
            for number in range(times):
                place = Path(scratch) / "disturbed"
                shutil.rmtree(place, ignore_errors=True)
                copy_of(base, place) if start == "finished" else checkout(place)
                complaint = survive(place, wanted, damage)
                console.print(f"{name} {number + 1}/{times}: {complaint or 'survived'}")
                complaints += [complaint] if complaint else []
            lost += len(complaints)
            table.add_row(name, str(times), str(times - len(complaints)), "; ".join(complaints) or "-")
        console.print(table)
    sys.exit(1 if lost else 0)


def plan(kills: int, chance: random.Random) -> list[tuple[str, int, str, Callable[[Path], str] | None]]:
    """(fault, times, "fresh" or "finished" checkout, what does it; None where this process may not)."""
    mounts = faults.can_mount()
    return [
        ("kill -9 of the process group", kills, "fresh", lambda place: faults.kill_at_random(place, chance, 110)),
        ("disk full", 1, "fresh", (lambda place: faults.fill_disk(place, 3 << 20)) if mounts else None),
        ("read-only results", 1, "fresh", faults.forbid_writing if mounts else None),
        ("two drivers in one folder", 1, "fresh", faults.start_two),
        ("clock set back", 1, "finished", faults.set_clock_back),
        ("archive interrupted", 3, "finished", lambda place: faults.interrupt_archive(place, chance)),
    ]


def survive(place: Path, wanted: dict[str, str], damage: Callable[[Path], str]) -> str:
    """Damage, the next run, and what is wrong after it; empty when nothing is."""
    try:
        damage(place)
        if bad := faults.broken_promises(place, place / "results/smoke"):
            return f"a file is not what its record says: {bad[0]}"
        code, printed = faults.Run(place).finish()
        if code:
            return f"the next run ended with {code}: {printed.strip().splitlines()[-1]}"
        now = faults.digests(place / "results/smoke")
        return f"{sum(now.get(k) != v for k, v in wanted.items())} files differ" if now != wanted else ""
    except AssertionError as error:
        return str(error)


def checkout(place: Path) -> Path:
    """The tracked files of this repository in a new folder, with a repository of their own for DVC."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, check=True, capture_output=True, text=True)
    for name in filter(None, listed.stdout.split("\0")):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(REPOSITORY / name, place / name)
    subprocess.run(["git", "init", "-q"], cwd=place, check=True)
    return place


def copy_of(base: Path, place: Path) -> None:
    """A finished study, with time stamps."""
    shutil.copytree(base, place, symlinks=True)


if __name__ == "__main__":
    main()
