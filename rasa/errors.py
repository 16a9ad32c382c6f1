"""The error tree: every failure that rasa expects is a :class:`RasaError`.

Each class also derives from the built-in that users already catch, so
``except ValueError`` keeps working. A message says what was expected, what
came, and what to do about it.
"""

from __future__ import annotations


class RasaError(Exception):
    """Base of all errors that rasa raises on purpose."""


class InputError(RasaError, ValueError):
    """An argument has the wrong shape, type or value."""


class ImageError(InputError):
    """An image is missing, unreadable, too large or of a refused format."""


class FormatError(InputError):
    """A results or annotation file does not hold what its format promises."""


class OutputError(RasaError, OSError):
    """A file or folder could not be written."""


class ConfigError(InputError):
    """A preset or configuration file holds an unknown key or a wrong value."""


class UnknownModelError(RasaError, LookupError):
    """No model or preset has the given name."""


class DependencyError(RasaError, ImportError):
    """A package that this feature needs is not installed; the message names the extra."""


class WeightsError(RasaError, OSError):
    """A checkpoint is missing, could not be fetched, or fails its hash check."""


class CheckpointError(WeightsError, ValueError):
    """A file of weights is damaged, or does not hold what its model needs."""


class StageError(RasaError, RuntimeError):
    """A stage of a pipeline failed; the message names the stage and the image.

    Attributes:
        stage: Name of the stage.
        image: Name of the image it failed on.
    """

    def __init__(self, message: str, *, stage: str, image: str) -> None:
        super().__init__(message)
        self.stage = stage
        self.image = image


class WorkerError(RasaError, RuntimeError):
    """Worker processes died or could not start, and no single image is to blame."""


class TrainingError(RasaError, RuntimeError):
    """A training cannot go on, such as with a loss that is not finite; the message names what was saved to look at."""


class FailedImagesError(RasaError, RuntimeError):
    """A strict run is complete, and some of its images have no labels.

    Attributes:
        failed: Number of these images.
    """

    def __init__(self, message: str, *, failed: int) -> None:
        super().__init__(message)
        self.failed = failed


class ContractError(RasaError, AssertionError):
    """A model or stage broke the promise of its role; see ``rasa.testing``."""


class RasaWarning(UserWarning):
    """A fallback or a limit that the user should know about."""
