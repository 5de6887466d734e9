"""Detached SSH signatures of files, made and verified by ssh-keygen, as git makes those of commits."""

import os
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from anatomy.provenance.digest import ArtifactError, write_text_atomic

NAMESPACE = "backdoor-anatomy"  # a signature made for another purpose is none here
KEY = "ANATOMY_SIGNING_KEY"
SIGNERS = "ANATOMY_ALLOWED_SIGNERS"
SUFFIX = ".sig"

Verdict = Literal["signature good", "signed by an unknown key", "bad signature", "not signed", "signature not checked"]


@dataclass(frozen=True)
class Signature:
    """What is to be said about a file's signature; `by` is the signer, the key's fingerprint, or the reason."""

    verdict: Verdict
    by: str = ""

    def __str__(self) -> str:
        return f"{self.verdict} ({self.by})" if self.by else self.verdict


def signature_path(path: Path) -> Path:
    """Where the signature of a file stands."""
    return path.with_name(path.name + SUFFIX)


def signing_key() -> str | None:
    """The user's key: a path (ANATOMY_SIGNING_KEY, or git's user.signingKey), or a public key that an agent holds."""
    given = os.environ.get(KEY)
    if given:
        return given
    return _git("user.signingKey") if _git("gpg.format") == "ssh" else None


def allowed_signers() -> Path | None:
    """The file that says whose keys are known (ANATOMY_ALLOWED_SIGNERS, or git's gpg.ssh.allowedSignersFile)."""
    given = os.environ.get(SIGNERS) or _git("gpg.ssh.allowedSignersFile")
    return Path(given).expanduser() if given else None


def sign(path: Path, key: str) -> None:
    """Sign a file's bytes; ArtifactError when ssh-keygen is not there or refuses the key."""
    with tempfile.TemporaryDirectory() as folder:
        where = ["-f", str(Path(key).expanduser())]
        literal = key.removeprefix("key::")
        if literal.startswith(("ssh-", "ecdsa-", "sk-")):
            public = Path(folder, "key.pub")
            public.write_text(literal + "\n", encoding="ascii")
            where = ["-U", "-f", str(public)]
        done = _ssh_keygen(path.read_bytes(), "sign", *where, "-n", NAMESPACE)
    if done is None:
        raise ArtifactError(f"{path} cannot be signed: ssh-keygen is not installed (it comes with OpenSSH)")
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip()
        raise ArtifactError(
            f"{path} cannot be signed with {key}: {reason}. Name another key in {KEY}, or set neither that nor "
            "git's user.signingKey to leave the statements unsigned."
        )
    write_text_atomic(signature_path(path), done.stdout.decode("ascii"))


def verify(path: Path, signers: Path | None) -> Signature:
    """Whether a file's signature is one of these bytes, and whose. `signers` is the allowed-signers file, if any."""
    made = signature_path(path)
    if not made.exists():
        return Signature("not signed")
    data = path.read_bytes()
    checked = _ssh_keygen(data, "check-novalidate", "-n", NAMESPACE, "-s", str(made))
    if checked is None:
        return Signature("signature not checked", "ssh-keygen is not installed")
    if checked.returncode:
        return Signature("bad signature", "it is not one of these bytes")
    if signers is not None:
        found = _ssh_keygen(data, "find-principals", "-s", str(made), "-f", str(signers))
        for who in found.stdout.decode().splitlines() if found else ():
            options = ("-f", str(signers), "-I", who, "-n", NAMESPACE, "-s", str(made))
            done = _ssh_keygen(data, "verify", *options)
            if done and done.returncode == 0:
                return Signature("signature good", f"by {who}")
    fingerprint = re.search(rb"SHA256:\S+", checked.stdout)
    return Signature("signed by an unknown key", fingerprint[0].decode() if fingerprint else "")


def _ssh_keygen(data: bytes, *words: str) -> subprocess.CompletedProcess[bytes] | None:
    """None where ssh-keygen is not installed."""
    try:
        return subprocess.run(["ssh-keygen", "-Y", *words], input=data, capture_output=True, check=False)
    except FileNotFoundError:
        return None


def _git(name: str) -> str | None:
    """A value of git's configuration; None when it is not set, or git is not there."""
    try:
        done = subprocess.run(["git", "config", "--get", name], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() or None
