"""Manifests are signed and verified by ssh-keygen."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from llama_recipes_local.commands.replay.signing import check_signature, check_signer, sign
from llama_recipes_local.errors import UsageError

Keys = Callable[[str], Path]
pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="no ssh-keygen")


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "run" / "custody.json"
    path.parent.mkdir()
    path.write_text('{"format": 1}\n')
    return path


@pytest.fixture
def key(tmp_path: Path) -> Keys:
    """Makes a key without a passphrase."""

    def make(name: str) -> Path:
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name]
        subprocess.run([*words, "-f", str(tmp_path / name)], check=True)
        return tmp_path / name

    return make


def allow(key: Path, options: str = "") -> Path:
    """Return a file of allowed signers with a key."""
    path = key.with_name(f"{key.name}-allowed")
    path.write_text(f"{key.name} {options} {key.with_suffix('.pub').read_text()}")
    return path


def test_a_signed_manifest_is_accepted_by_its_signer(
    manifest: Path, key: Keys, capsys: pytest.CaptureFixture[str]
) -> None:
    one = key("one")
    assert check_signer(one) == []
    assert sign(manifest, one) == manifest.with_name("custody.json.sig")
    assert check_signature(manifest, allow(one)) == []
    assert "signed by one" in capsys.readouterr().out
    assert check_signature(manifest, None) == []


def test_the_signature_is_one_of_ssh_keygens_own(manifest: Path, key: Keys) -> None:
    one = key("one")
    words = ["ssh-keygen", "-Y", "sign", "-n", "custody@llama-recipes-local", "-f", str(one)]
    subprocess.run([*words, str(manifest)], check=True, capture_output=True)
    assert check_signature(manifest, allow(one)) == []


def test_a_changed_manifest_is_refused(manifest: Path, key: Keys) -> None:
    one = key("one")
    sign(manifest, one)
    manifest.write_text('{"format": 2}\n')
    for allowed in (None, allow(one)):
        (problem,) = check_signature(manifest, allowed)
        assert "is not the signature of custody.json" in problem.what


def test_another_signer_and_another_namespace_are_refused(manifest: Path, key: Keys) -> None:
    one, two = key("one"), key("two")
    sign(manifest, one)
    (problem,) = check_signature(manifest, allow(two))
    assert "is of another signer" in problem.what
    assert check_signature(manifest, allow(one, 'namespaces="file"'))
    manifest.with_name("custody.json.sig").unlink()
    words = ["ssh-keygen", "-Y", "sign", "-n", "file", "-f", str(one), str(manifest)]
    subprocess.run(words, check=True, capture_output=True)
    assert check_signature(manifest, allow(one))
    assert check_signature(manifest, None)


def test_no_signature_is_refused_where_one_is_asked_for(manifest: Path, key: Keys) -> None:
    assert check_signature(manifest, None) == []
    (problem,) = check_signature(manifest, allow(key("one")))
    assert "is not signed" in problem.what


def test_what_is_missing_is_named(
    manifest: Path, key: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = key("one")
    sign(manifest, one)
    assert "is no file" in check_signature(manifest, manifest.parent / "none")[0].what
    assert "is no file" in check_signer(manifest.parent / "none")[0].what
    with pytest.raises(UsageError, match="does not sign"):
        sign(manifest, manifest)
    monkeypatch.setenv("PATH", "")
    assert "ssh-keygen" in check_signer(one)[0].why
    assert "ssh-keygen" in check_signature(manifest, allow(one))[0].why
    assert check_signature(manifest, None) == []
