"""What every part of the configuration file has in common."""

from typing import Any

from pydantic import BaseModel, ConfigDict


class Spec(BaseModel):
    """A mapping of known keys, whose values are taken for what they are and never shown."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)

    def said(self, *names: str) -> dict[str, Any]:
        """What of these was said in the file; what was not, or as null, is left out."""
        said = {name: getattr(self, name) for name in names if name in self.model_fields_set}
        return {name: value for name, value in said.items() if value is not None}
