"""packaging/previous-release.sh, in small histories of git's own making."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "packaging/previous-release.sh"
LOG = "packaging/debian/changelog"
IDENTITY = ("-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "init.defaultBranch=main")


def git(repository: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", *IDENTITY, "-C", str(repository), *words], check=True, capture_output=True, text=True, timeout=30
    )
    return done.stdout.strip()


def entries(*versions: str) -> str:
    return "".join(f"replicad ({version}) unstable; urgency=medium\n\n  * Text.\n\n" for version in versions)


def commit(repository: Path, **files: str) -> str:
    """Commit files, `changelog` among them; which commit that is."""
    for name, text in files.items():
        path = repository / (LOG if name == "changelog" else name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message", ", ".join(files))
    return git(repository, "rev-parse", "HEAD")


def previous(repository: Path) -> subprocess.CompletedProcess[str]:
    script = repository / "packaging" / SCRIPT.name
    return subprocess.run([script], capture_output=True, text=True, timeout=30, check=False)


@pytest.fixture
def history(tmp_path: Path) -> Path:
    repository = tmp_path / "history"
    (repository / "packaging").mkdir(parents=True)
    git(tmp_path, "init", "--quiet", str(repository))
    shutil.copy(SCRIPT, repository / "packaging")
    commit(repository, changelog=entries("0.1.0"))
    return repository


def test_the_previous_release_ends_where_the_newest_entry_came_in(history: Path) -> None:
    last = commit(history, program="as it was released")
    commit(history, changelog=entries("0.2.0", "0.1.0"))
    commit(history, changelog=entries("0.2.0", "0.1.0").replace("Text", "Better text"), program="newer")
    commit(history, changelog=entries("0.2.0", "0.1.0").replace("medium", "low", 1))
    assert previous(history).stdout == f"{last}\n"


def test_what_was_merged_beside_the_newest_entry_is_not_of_the_previous_release(history: Path) -> None:
    last = git(history, "rev-parse", "HEAD")
    git(history, "branch", "release")
    commit(history, program="of the new release, on another branch")
    git(history, "checkout", "--quiet", "release")
    commit(history, changelog=entries("0.2.0", "0.1.0"))
    git(history, "checkout", "--quiet", "main")
    git(history, "merge", "--quiet", "--no-ff", "--no-edit", "release")
    assert previous(history).stdout == f"{last}\n"


def test_a_shallow_clone_fetches_what_it_lacks(history: Path, tmp_path: Path) -> None:
    last = commit(history, program="as it was released")
    commit(history, changelog=entries("0.2.0", "0.1.0"))
    commit(history, program="newer")
    for depth in "1", "2":
        clone = tmp_path / f"clone-{depth}"
        git(tmp_path, "clone", "--quiet", "--depth", depth, f"file://{history}", str(clone))
        assert previous(clone).stdout == f"{last}\n"


def test_a_shallow_clone_without_its_remote_is_told_to_get_the_history(history: Path, tmp_path: Path) -> None:
    commit(history, changelog=entries("0.2.0", "0.1.0"))
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", "--depth", "1", f"file://{history}", str(clone))
    git(clone, "remote", "set-url", "origin", f"file://{tmp_path}/gone")
    refused = previous(clone)
    assert refused.returncode != 0
    assert "git fetch --unshallow" in refused.stderr
    git(clone, "remote", "remove", "origin")
    assert "git fetch --unshallow" in previous(clone).stderr


def test_a_history_with_one_release_has_no_previous_one(history: Path) -> None:
    commit(history, program="newer")
    refused = previous(history)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "no release before replicad (0.1.0)" in refused.stderr
