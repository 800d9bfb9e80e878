"""Signs manifests with ``ssh-keygen -Y``: with the keys that people have, without any service.

The signature is next to the manifest. It covers the manifest's bytes and a namespace.
"""

import shutil
import subprocess
from pathlib import Path

from llama_recipes_local.errors import Problem, UsageError
from llama_recipes_local.run.record import SIGNATURE
from llama_recipes_local.storage.publishing import write_text

NAMESPACE = "custody@llama-recipes-local"
_PROGRAM = "ssh-keygen"


def signature_of(manifest: Path) -> Path:
    """Return the file of a manifest's signature."""
    return manifest.with_name(f"{manifest.name}{SIGNATURE}")


def check_signer(key: Path) -> list[Problem]:
    """Return why a key cannot sign."""
    if not key.is_file():
        fix = "name a private key, or a public one whose private one ssh-agent has: --sign KEY"
        return [Problem(f"--sign {key.absolute()} is no file", "it is an ssh key", fix)]
    return _check_program(f"--sign {key}")


def sign(manifest: Path, key: Path) -> Path:
    """Sign a manifest and return the signature's file; ssh-keygen asks for the passphrase.

    Raises:
        UsageError: if ssh-keygen does not sign.
    """
    target = signature_of(manifest)
    with manifest.open("rb") as content:
        done = _keygen("sign", "-f", str(key), "-n", NAMESPACE, stdin=content.read())
    if done.returncode:
        why = _said(done)
        raise UsageError([Problem(f"--sign {key} does not sign", why, "name another ssh key")])
    write_text(target, done.stdout.decode())
    return target


def check_signature(manifest: Path, allowed: Path | None) -> list[Problem]:
    """Return what is wrong with a manifest's signature; without one, only if one is asked for.

    Args:
        manifest: the manifest.
        allowed: the file of allowed signers; None compares the content alone.
    """
    signature = signature_of(manifest)
    if not signature.is_file():
        fix = "ask for the signature, or leave --allowed_signers out"
        what = f"{manifest} is not signed"
        return [Problem(what, f"there is no {signature.name} beside it", fix)] if allowed else []
    if allowed is None:
        if shutil.which(_PROGRAM) is None:
            print(f"--> {signature} is not checked: there is no {_PROGRAM}")
            return []
        print(f"--> signed; who has signed is checked with --allowed_signers FILE: {signature}")
        return _refused(manifest, _verify(manifest, "check-novalidate"))
    if problems := _check_program(f"--allowed_signers {allowed}"):
        return problems
    if not allowed.is_file():
        fix = "name a file with a line for each signer: NAME ssh-ed25519 KEY"
        return [Problem(f"--allowed_signers {allowed.absolute()} is no file", "it is needed", fix)]
    named = _keygen("find-principals", "-s", str(signature), "-f", str(allowed))
    names = named.stdout.decode("utf-8", "replace").splitlines()
    if named.returncode or not names:
        why = f"no line of {allowed} has its key"
        return [Problem(f"{signature} is of another signer", why, "do not trust the result")]
    done = _verify(manifest, "verify", "-f", str(allowed), "-I", names[0])
    if not done.returncode:
        print(f"--> signed by {names[0]}")
    return _refused(manifest, done)


def _verify(manifest: Path, mode: str, *words: str) -> "subprocess.CompletedProcess[bytes]":
    signature = str(signature_of(manifest))
    content = manifest.read_bytes()
    return _keygen(mode, "-n", NAMESPACE, "-s", signature, *words, stdin=content)


def _refused(manifest: Path, done: "subprocess.CompletedProcess[bytes]") -> list[Problem]:
    if not done.returncode:
        return []
    what = f"{signature_of(manifest)} is not the signature of {manifest.name}"
    return [Problem(what, _said(done), "copy both again from where the result was made")]


def _check_program(what: str) -> list[Problem]:
    if shutil.which(_PROGRAM) is not None:
        return []
    return [Problem(what, f"there is no {_PROGRAM} on PATH", "install OpenSSH's client")]


def _keygen(mode: str, *words: str, stdin: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run([_PROGRAM, "-Y", mode, *words], input=stdin, capture_output=True)


def _said(done: "subprocess.CompletedProcess[bytes]") -> str:
    text = done.stderr or done.stdout
    return f"{_PROGRAM} says: {' '.join(text.decode('utf-8', 'replace').split())}"
