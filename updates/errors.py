"""Every failure of an update: of its manifest, of its files, and of carrying it out.

| class | code | exit | raised when |
|---|---|---|---|
| `ManifestMissing`  | E-MANIFEST-MISSING  | 12 | the manifest, or one that it refers to, isn't there |
| `ManifestSyntax`   | E-MANIFEST-SYNTAX   | 12 | it is no JSON object |
| `ManifestField`    | E-MANIFEST-FIELD    | 12 | a field is unknown, missing, or its value does not hold |
| `ManifestRule`     | E-MANIFEST-RULE     | 12 | its parts contradict each other |
| `HandlerUnknown`   | E-HANDLER           | 12 | no installed package handles a step's handler |
| `PayloadMissing`   | E-FILE-MISSING      | 12 | a file that the manifest names isn't beside it |
| `PayloadSize`      | E-FILE-SIZE         | 9  | a file has another size than the manifest says |
| `PayloadHash`      | E-FILE-HASH         | 9  | a file has another SHA-256 than the manifest says |
| `ComponentAbsent`  | E-COMPONENT-ABSENT  | 4  | a component that the update selects does not answer |
| `ConditionFailed`  | E-CONDITION         | 1  | a condition of the update, of a step or of the policy does not hold |
| `StepFailed`       | E-STEP-FAILED       | 1  | a step's handler reported a failure |
| `ScriptFailed`     | E-SCRIPT            | 1  | a script could not be run, or ended badly |
"""

from __future__ import annotations

from ..transports.errors import ExitStatus, ProxyflashError


class UpdateError(ProxyflashError):
    """Something is wrong with an update. Nothing was touched, but for StepFailed and ScriptFailed."""

    code = "E-UPDATE"
    exit_status = ExitStatus.BAD_FILE


class ManifestMissing(UpdateError):
    code = "E-MANIFEST-MISSING"


class ManifestSyntax(UpdateError):
    code = "E-MANIFEST-SYNTAX"


class ManifestField(UpdateError):
    code = "E-MANIFEST-FIELD"
    default_remedy = "The fields are described in docs/manifests.md."


class ManifestRule(UpdateError):
    code = "E-MANIFEST-RULE"


class HandlerUnknown(UpdateError):
    code = "E-HANDLER"
    default_remedy = "List what is installed: proxyflash plugins"


class PayloadMissing(UpdateError):
    code = "E-FILE-MISSING"
    default_remedy = "Put it into the manifest's folder."


class PayloadSize(UpdateError):
    code = "E-FILE-SIZE"
    exit_status = ExitStatus.POLICY
    default_remedy = "Was the file copied whole? Get the update again."


class PayloadHash(UpdateError):
    code = "E-FILE-HASH"
    exit_status = ExitStatus.POLICY
    default_remedy = "The file is not the one that the manifest was made for. Get the update again."


class ComponentAbsent(UpdateError):
    code = "E-COMPONENT-ABSENT"
    exit_status = ExitStatus.ABSENT
    default_remedy = "Is it powered and wired? Run: proxyflash scan"


class StepFailed(ProxyflashError):
    code = "E-STEP-FAILED"


class ScriptFailed(ProxyflashError):
    code = "E-SCRIPT"


class ConditionFailed(ProxyflashError):
    """Nothing was touched for what has this condition."""

    code = "E-CONDITION"
    default_remedy = "Run it again when it holds."
