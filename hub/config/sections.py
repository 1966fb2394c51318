"""What every section of classes.yml has in common: unknown keys and wrong types are refused, texts keep to a rule."""

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, WithJsonSchema

from hub.config import rules


def text(rule: Callable[[str], Any], **schema: Any) -> tuple:
    """The marks of a text that keeps to a rule; the schema says as much of the rule as JSON can."""
    return AfterValidator(rule), WithJsonSchema({"type": "string", **schema})


UserName = Annotated[str, *text(rules.user_name, pattern=rules.USER)]
Label = Annotated[str, *text(rules.label, minLength=1, maxLength=100)]
Image = Annotated[str, *text(rules.image, pattern=rules.IMAGE)]


class Section(BaseModel):
    # unknown keys and wrong types are refused: a misspelt limit must not become no limit
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
