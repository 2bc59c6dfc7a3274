"""`DriverLoader`: the flash driver, or secondary bootloader, that an ECU gets into its RAM: downloaded, checked, started.

After ISO 14229-1:2020, 14.2 and clause 15. The rule: what the ECU says here it says of the driver, and nothing of what it holds.
"""

from __future__ import annotations

from dataclasses import replace

from ..errors import OperationFailed
from .connection import Connection
from .files import FilesOfProfile
from .parameters import Subject, encoded
from .transfer import Transfers


class DriverLoader:
    """`loaded`: whether the ECU has it, since it was connected."""

    def __init__(self, connection: Connection, files: FilesOfProfile, transfers: Transfers) -> None:
        self._connection = connection
        self._profile = connection.profile
        self._files = files
        self._transfers = transfers
        self.loaded = False

    def load(self, *, bears_a_reset: bool) -> None:
        """Nothing where the profile has no driver. `bears_a_reset`: see `Transfers`. Raises OperationFailed."""
        driver = self._profile.driver
        if driver is None:
            return
        signature = self._files.signature(driver.signature)
        subjects = [
            Subject(item.address, item.size, bytes(item.data), driver.id, signature) for item in self._files.driver()
        ]
        for subject in subjects:
            for _ in self._transfers.download(
                subject, driver.data_format, announced=subject.size, bears_a_reset=bears_a_reset and not self.loaded
            ):
                pass
            self.loaded = True
        if isinstance(driver.check, int):
            data = b"".join(subject.data for subject in subjects)
            whole = replace(subjects[0], size=len(data), data=data)
            for subject in subjects if "address" in driver.check_parameters else [whole]:
                parameters = encoded(driver.check_parameters, self._profile, subject)
                wanted = encoded(driver.check_answer, self._profile, subject) if driver.check_answer else None
                self._call(driver.check, parameters, "does not take the flash driver for whole", wanted)
        if isinstance(driver.run, int):
            first = replace(subjects[0], address=self._files.driver_entry)
            parameters = encoded(driver.run_parameters, self._profile, first)
            self._call(driver.run, parameters, "did not start the flash driver")

    def _call(self, routine: int, parameters: bytes, failure: str, wanted: bytes | None = None) -> None:
        status = self._connection.run_routine(routine, parameters)
        if not self._profile.routines.passes(status, wanted):
            raise OperationFailed(
                f"the part {failure} (routine 0x{routine:04X}: {status.hex(' ').upper()})",
                remedy="Does driver of its profile hold: its file, its addresses, its routines?",
            )
