"""Every failure of an update: of its manifest, of its files, and of carrying it out.

| class | code | exit | raised when |
|---|---|---|---|
| `ManifestMissing`  | E-MANIFEST-MISSING  | 12 | the manifest, or a manifest that it refers to, isn't there |
| `ManifestSyntax`   | E-MANIFEST-SYNTAX   | 12 | it is not a JSON object |
| `ManifestField`    | E-MANIFEST-FIELD    | 12 | a field is unknown, missing, or its value does not hold |
| `ManifestRule`     | E-MANIFEST-RULE     | 12 | its parts contradict each other |
| `HandlerUnknown`   | E-HANDLER           | 12 | no installed package handles a step's handler |
| `PayloadMissing`   | E-FILE-MISSING      | 12 | a file that the manifest names isn't beside it |
| `PayloadSize`      | E-FILE-SIZE         | 9  | a file has another size than the manifest says |
| `PayloadHash`      | E-FILE-HASH         | 9  | a file has another SHA-256 than the manifest says |
| `PayloadKind`      | E-FILE-KIND         | 9  | what the manifest names is a link, a folder, a pipe or a device |
| `StagedChanged`    | E-FILE-CHANGED      | 9  | a file of an update under way is not any more what was checked |
| `PlanFile`         | E-PLAN-FILE         | 12 | a kept plan is broken, or too long |
| `PlanChanged`      | E-PLAN-CHANGED      | 9  | a component, the bench or the manifest is not what a kept plan was made for |
| `ComponentAbsent`  | E-COMPONENT-ABSENT  | 4  | a component that the update selects does not answer |
| `NoRoom`           | E-ROOM              | 1  | the state folder's disk has no room for the copies and backups |
| `ConditionFailed`  | E-CONDITION         | 1  | a condition of the update, of a step or of the policy does not hold |
| `StepFailed`       | E-STEP-FAILED       | 1  | a step's handler reported a failure |
| `StepTimeout`      | E-STEP-TIMEOUT      | 1  | an action of a step took longer than it may |
| `StepHangs`        | E-STEP-HANGS        | 10 | such an action does not return; the update goes on in another process |
| `AttemptsExhausted` | E-ATTEMPTS         | 1  | a step was tried on a component as often as is allowed |
| `BelowFloor`       | E-FLOOR             | 9  | the policy has a lowest version for the component, and this one is below it |
| `DowngradeRefused` | E-DOWNGRADE         | 9  | it is older than what the component has, and the step doesn't ask for that |
| `JournalBroken`    | E-JOURNAL           | 1  | an update's journal is damaged, not merely cut |
| `JournalNotWritten` | E-JOURNAL-WRITE    | 10 | a record could not be written; what it announces was not begun |
| `Unfinished`       | E-UNFINISHED        | 6  | another update of this bench is not at its end |
| `RestartPending`   | E-RESTART           | 10 | the update waits for the host, or the service, to be restarted |
| `UpdateUnknown`    | E-UPDATE-UNKNOWN    | 4  | the history has no such update, or none that this can be done with |
| `ScriptFailed`     | E-SCRIPT            | 1  | a script could not be run, or ended badly |
| `DeploymentCancelled` | E-DEPLOYMENT-CANCELLED | 12 | the file cancels a deployment, and holds no update |
| `KeyFile`          | E-KEY-FILE          | 12 | a key's file can't be read, or holds no key of the kind that is needed |
| `SignatureMissing` | E-SIGNATURE-MISSING | 9  | the update is not signed, and the policy wants it to be |
| `SignatureForm`    | E-SIGNATURE-FORM    | 9  | the signature, or what is in it, has not the form of one |
| `SignatureAlgorithm` | E-SIGNATURE-ALGORITHM | 9 | it is made with another algorithm than RS256 |
| `KeyWeak`          | E-SIGNATURE-KEY     | 9  | a key in it is too short, too long, or no RSA key |
| `RootUnknown`      | E-ROOT-UNKNOWN      | 9  | the root key that it names is none that the policy trusts |
| `RootRevoked`      | E-ROOT-REVOKED      | 9  | the root key is revoked |
| `SigningKeyForged` | E-SIGNING-KEY       | 9  | the root key has not signed the signing key |
| `SigningKeyRevoked` | E-SIGNING-KEY-REVOKED | 9 | the signing key is revoked |
| `SignatureWrong`   | E-SIGNATURE         | 9  | the signing key has not made this signature |
| `DigestWrong`      | E-MANIFEST-DIGEST   | 9  | the signature is for another manifest |
| `BundleBroken`     | E-BUNDLE            | 12 | a file is not a bundle of a report, or a broken one |
| `BundleChanged`    | E-BUNDLE-CHANGED    | 9  | a file in a bundle was changed, added or taken away |
| `ManifestExpired`  | E-MANIFEST-EXPIRED  | 9  | the manifest is older than the policy allows |
| `ManifestFuture`   | E-MANIFEST-FUTURE   | 9  | the manifest was made later than now, by the host's clock |
"""

from __future__ import annotations

from ..transports.errors import ExitStatus, NextAction, ProxyflashError


class UpdateError(ProxyflashError):
    """Something is wrong with an update. Nothing was touched, but for StepFailed and ScriptFailed."""

    code = "E-UPDATE"
    exit_status = ExitStatus.BAD_FILE


class ManifestMissing(UpdateError):
    """The manifest, or a manifest that it refers to, isn't there."""

    code = "E-MANIFEST-MISSING"
    default_remedy = "Name the manifest's file, and put the manifests that it refers to beside it."


class ManifestSyntax(UpdateError):
    """The manifest is not a JSON object, a field is given twice, or it is nested more than 64 levels deep."""

    code = "E-MANIFEST-SYNTAX"
    default_remedy = "Was the file copied whole? Get the update again."


class ManifestField(UpdateError):
    """A field is unknown or missing, or its value is wrong."""

    code = "E-MANIFEST-FIELD"
    default_remedy = "The fields: proxyflash help manifests"


class ManifestRule(UpdateError):
    """The manifest's parts contradict each other. The message says which."""

    code = "E-MANIFEST-RULE"
    default_remedy = "The rules: proxyflash help manifests"


class HandlerUnknown(UpdateError):
    """No installed package has the step's handler."""

    code = "E-HANDLER"
    default_remedy = "List what is installed: proxyflash plugins"


class PayloadMissing(UpdateError):
    """A file that the manifest names isn't beside it."""

    code = "E-FILE-MISSING"
    default_remedy = "Put it into the manifest's folder."


class PayloadSize(UpdateError):
    """A file has another size than the manifest says."""

    code = "E-FILE-SIZE"
    exit_status = ExitStatus.POLICY
    default_remedy = "Was the file copied whole? Get the update again."


class PayloadHash(UpdateError):
    """A file has another SHA-256 than the manifest says."""

    code = "E-FILE-HASH"
    exit_status = ExitStatus.POLICY
    default_remedy = "The manifest was made for another file. Get the update again."


class PayloadKind(UpdateError):
    """A file that the manifest names is a link, a folder, a pipe or a device."""

    code = "E-FILE-KIND"
    exit_status = ExitStatus.POLICY
    default_remedy = "Put the file itself there."


class PlanFile(UpdateError):
    """The file of a kept plan is broken, or a plan is too long to be kept."""

    code = "E-PLAN-FILE"
    default_remedy = "Make it again: proxyflash plan MANIFEST --out FILE"


class PlanChanged(UpdateError):
    """A component, a version, the bench file, the manifest or another file differs from the kept plan. Nothing was
    begun."""

    code = "E-PLAN-CHANGED"
    exit_status = ExitStatus.POLICY
    default_remedy = "Look at what would be done now, and keep it: proxyflash plan MANIFEST --out FILE"


class StagedChanged(UpdateError):
    """A file of an update that has begun was changed after its check, and was not used. The message has both hashes."""

    code = "E-FILE-CHANGED"
    exit_status = ExitStatus.POLICY
    default_remedy = "Check the disk, and who can write to the state folder. Then apply the update again."


class DeploymentCancelled(UpdateError):
    """The file calls a deployment off (workflow action 255), and holds no update.

    `workflow_id`: the deployment that is called off.
    """

    code = "E-DEPLOYMENT-CANCELLED"
    default_remedy = "Nothing is to be done."

    def __init__(self, cause: str, *, workflow_id: str) -> None:
        super().__init__(cause)
        self.workflow_id = workflow_id


class KeyFile(UpdateError):
    """A key's file can't be read or written, or holds no key of the needed kind. The message says which kind is needed."""

    code = "E-KEY-FILE"
    default_remedy = "Name a file that holds such a key, or make one: proxyflash manifest key FILE"


class TrustError(UpdateError):
    """The update is not to be trusted."""

    code = "E-TRUST"
    exit_status = ExitStatus.POLICY


class SignatureMissing(TrustError):
    """The update is not signed and the policy wants a signature, or `report --check` has a key and the bundle has no
    signature."""

    code = "E-SIGNATURE-MISSING"
    default_remedy = (
        'Get it signed: proxyflash manifest sign MANIFEST --key FILE. Or allow it: unsigned = "allow" under [updates].'
    )


class SignatureForm(TrustError):
    """The signature, or a part of it, is malformed."""

    code = "E-SIGNATURE-FORM"
    default_remedy = "Was the file copied whole? Get the update again."


class SignatureAlgorithm(TrustError):
    """The signature is made with another algorithm than RS256."""

    code = "E-SIGNATURE-ALGORITHM"
    default_remedy = "Sign it with RS256: proxyflash manifest sign MANIFEST --key FILE"


class KeyWeak(TrustError):
    """A key in the signature is not an RSA key of 2,048 to 8,192 bits with exponent 65,537."""

    code = "E-SIGNATURE-KEY"
    default_remedy = "Make a new key: proxyflash manifest key FILE"


class RootUnknown(TrustError):
    """The signature's root key is not among `roots`."""

    code = "E-ROOT-UNKNOWN"
    default_remedy = "If its owner is to be trusted, add its public key to roots under [updates] of the bench file."


class RootRevoked(TrustError):
    """The root key is among `revoked`."""

    code = "E-ROOT-REVOKED"
    default_remedy = "Get the update again, signed under a root key that is still trusted."


class SigningKeyForged(TrustError):
    """The root key has not signed the signing key."""

    code = "E-SIGNING-KEY"
    default_remedy = "Don't use this update: it is damaged or forged."


class SigningKeyRevoked(TrustError):
    """The signing key is among `revoked`."""

    code = "E-SIGNING-KEY-REVOKED"
    default_remedy = "Get the update again, signed with a key that is still trusted."


class SignatureWrong(TrustError):
    """The signing key has not made this signature."""

    code = "E-SIGNATURE"
    default_remedy = "Don't use this update: it is damaged or forged."


class DigestWrong(TrustError):
    """The signature is for another manifest."""

    code = "E-MANIFEST-DIGEST"
    default_remedy = "Don't use this update: its manifest was changed after it was signed."


class BundleBroken(UpdateError):
    """The file of `report --check` is not a bundle, or its index is broken."""

    code = "E-BUNDLE"
    default_remedy = (
        "Was the file copied whole? Write it again where the update was made: proxyflash report --bundle FILE"
    )


class BundleChanged(UpdateError):
    """A file in a bundle was changed, added or taken away. The message names the file."""

    code = "E-BUNDLE-CHANGED"
    exit_status = ExitStatus.POLICY
    default_remedy = (
        "The bundle proves nothing. Write it again where the update was made: proxyflash report --bundle FILE"
    )


class ManifestExpired(TrustError):
    """The manifest is older than `max_age_days`."""

    code = "E-MANIFEST-EXPIRED"
    default_remedy = "Get a newer update, or the same update signed again. Is this host's clock right?"


class ManifestFuture(TrustError):
    """The policy has `max_age_days`, and the manifest was made more than a day later than this host's clock says."""

    code = "E-MANIFEST-FUTURE"
    default_remedy = "Set this host's clock. If the clock is right, get the update with the time at which it was made."


class ComponentAbsent(UpdateError):
    """A component that the update selects does not answer. On a serial line its bootloader does not answer either."""

    code = "E-COMPONENT-ABSENT"
    exit_status = ExitStatus.ABSENT
    default_remedy = (
        "Is it powered and wired? Run: ",
        NextAction.SCAN,
        ". Set optional = true in the bench file for a component that may be missing.",
    )
    away: tuple[str, ...] = ()
    """The names of all that the update needs and that don't answer, where they are known."""


class StepFailed(ProxyflashError):
    """A step's handler reported a failure. The message has the step and its result codes."""

    code = "E-STEP-FAILED"
    default_remedy = "Correct what made it fail, then run the same command again."


class StepTimeout(ProxyflashError):
    """An action of a step took longer than allowed. The step has failed, and is restored as after any failure."""

    code = "E-STEP-TIMEOUT"
    default_remedy = "What kept it? If it needs the time, give it more: timeoutSeconds. More: proxyflash help updates"


class StepHangs(ProxyflashError):
    """An action of a step ran out of time and did not end when asked. Nobody knows what it still does, so this process
    begins nothing more."""

    code = "E-STEP-HANGS"
    exit_status = ExitStatus.RESUMABLE
    default_remedy = ("End this process; then go on: ", NextAction.RESUME)


class ScriptFailed(ProxyflashError):
    """A step's script can't be run, or ended badly. The message has its output."""

    code = "E-SCRIPT"
    default_remedy = "Run the script by hand to see what it says."


class NoRoom(ProxyflashError):
    """The state folder's disk has no room for copies of the update's files and for the backups. Nothing was begun."""

    code = "E-ROOM"
    default_remedy = "Make room on that disk, then run the same command again."


class ConditionFailed(ProxyflashError):
    """A condition of the update, of a step or of the policy does not hold, or can't be checked. Nothing was touched for
    it."""

    code = "E-CONDITION"
    default_remedy = "Run it again when it holds."


class AttemptsExhausted(ProxyflashError):
    """A step was tried on this component with these files as often as is allowed.

    It stays so for this component and these files until somebody says otherwise.
    """

    code = "E-ATTEMPTS"
    default_remedy = "Find out why it failed; then allow it again by adding --again."


class BelowFloor(UpdateError):
    """The version that a step installs is below the lowest version that the policy allows for the component."""

    code = "E-FLOOR"
    exit_status = ExitStatus.POLICY
    default_remedy = "The floor is set under [updates] of the bench file."


class DowngradeRefused(UpdateError):
    """The version that a step installs is older than the component's, and the policy wants that to be asked for."""

    code = "E-DOWNGRADE"
    exit_status = ExitStatus.POLICY
    default_remedy = "If the older version is meant, set allowDowngrade in the step. More: proxyflash help updates"


class JournalBroken(ProxyflashError):
    """A line of an update's journal is damaged and later lines are not, or a line makes no sense. An interruption
    causes neither."""

    code = "E-JOURNAL"
    default_remedy = "Look at the file and the disk; move the update's folder away to begin again."


class JournalNotWritten(ProxyflashError):
    """A record of the journal can't be written. The action that it announces was not begun."""

    code = "E-JOURNAL-WRITE"
    exit_status = ExitStatus.RESUMABLE
    default_remedy = ("When that folder can be written again, go on: ", NextAction.RESUME)


class Unfinished(ProxyflashError):
    """Another update of this bench is not finished."""

    code = "E-UNFINISHED"
    exit_status = ExitStatus.BUSY
    default_remedy = ("Go on with it: ", NextAction.RESUME, ". Or undo it: ", NextAction.ROLLBACK)


class RestartPending(ProxyflashError):
    """The update waits for a restart of the host or of the agent's service."""

    code = "E-RESTART"
    exit_status = ExitStatus.RESUMABLE


class UpdateUnknown(ProxyflashError):
    """The history has no update of this number, or has no backup that can be restored."""

    code = "E-UPDATE-UNKNOWN"
    exit_status = ExitStatus.ABSENT
    default_remedy = ("List what there is: ", NextAction.HISTORY)
