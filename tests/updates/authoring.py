"""Updates in a folder, with keys to sign them: what the tests of manifests, signatures and trust start from."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from proxyflash.updates.manifests import creating, signing
from proxyflash.updates.manifests.policy import Policy
from proxyflash.updates.manifests.resolved_update import read

MICROSOFT = Path(__file__).parent / "microsoft"


@cache
def private_key(name: str, bits: int = 2048) -> signing.PrivateKey:
    """A key for this run: made once, since that takes its time."""
    return signing.PrivateKey.new(name, bits)


@dataclass
class Publisher:
    """Signs with `key`, for which `root` vouches."""

    folder: Path
    root: signing.PrivateKey = field(default_factory=lambda: private_key("root"))
    key: signing.PrivateKey = field(default_factory=lambda: private_key("release"))

    @property
    def root_file(self) -> Path:
        path = self.folder / "keys" / f"{self.root.public.kid}.jwk"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(self.root.public.jwk()))
        return path

    def policy(self, **more: Any) -> Policy:
        """A policy that takes what is signed under this root, and nothing else."""
        return Policy.model_validate({"unsigned": "refuse", "roots": (str(self.root_file),), **more})

    def component_update(
        self, name: str, version: str, *, criteria: str | None = None, given: tuple[Path, ...] = (), **files: bytes
    ) -> Path:
        """A child update: flashes its files into the group of its name; `criteria`: else the version.

        `given`: files that lie in the folder; `files`: such as are written into it, by their stem.
        """
        paths = list(given)
        for stem, data in files.items():
            paths.append(self.folder / f"{stem}.bin")
            paths[-1].write_bytes(data)
        properties: dict[str, Any] = {"installedCriteria": criteria or version}
        if files:
            properties["address"] = 0
        draft = creating.Draft(
            "Contoso", name, version, select=({"group": name},), files=tuple(paths), properties=properties
        )
        return self._written(draft)

    def update(self, name: str, version: str, *children: Path) -> Path:
        """An update that refers to these."""
        return self._written(creating.Draft("Contoso", name, version, children=children))

    def _written(self, draft: creating.Draft) -> Path:
        text, made = creating.import_manifest(draft)
        path = self.folder / creating.file_name(made.updateId, "importmanifest.json")
        path.write_text(text)
        return path

    def sign(self, manifest: Path) -> Path:
        """The deployment of an update."""
        signed = creating.signed(read(manifest), self.key, self.root.sign_key(self.key.public))
        for name, data in signed.documents.items():
            (self.folder / name).write_bytes(data)
        return self.folder / signed.name


def changed(path: Path, **fields: Any) -> Path:
    """Replaces fields of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    return path
