"""The description in a Core ML model file: inputs, outputs, states and metadata, out of
protobuf.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from edgecheck.mil.program import Feature, Interface, Metadata

# FeatureTypes.proto: ArrayFeatureType.ArrayDataType and ImageFeatureType.ColorSpace.
_ARRAY_DTYPES = {65552: "fp16", 65568: "fp32", 65600: "fp64", 131104: "int32", 131080: "int8"}
_COLOUR_LAYOUTS = {10: "GRAYSCALE", 20: "RGB", 30: "BGR", 40: "GRAYSCALE_FLOAT16"}
_KINDS = {
    "int64Type": "int64",
    "doubleType": "double",
    "stringType": "string",
    "imageType": "image",
    "multiArrayType": "array",
    "dictionaryType": "dictionary",
    "sequenceType": "sequence",
    "stateType": "state",
}

_Range = tuple[int, int | None]


def interfaces(description: Any, default_function: str) -> Mapping[str, Interface]:
    """What each function takes and gives, by its name, from a `ModelDescription` message.

    The description of a file with several functions is one for each; otherwise there is one only,
    that of `default_function`.
    """
    if description.functions:
        return {each.name: _interface(each) for each in description.functions}
    return {default_function: _interface(description)}


def metadata(description: Any) -> Metadata:
    """Author and the like, from a `ModelDescription` message."""
    message = description.metadata
    return Metadata(
        author=message.author,
        short_description=message.shortDescription,
        licence=message.license,
        version=message.versionString,
        user_defined=dict(message.userDefined),
    )


def _interface(message: Any) -> Interface:
    return Interface(
        inputs=tuple(_feature(each) for each in message.input),
        outputs=tuple(_feature(each) for each in message.output),
        states=tuple(_feature(each) for each in message.state),
        predicted_feature_name=message.predictedFeatureName,
        predicted_probabilities_name=message.predictedProbabilitiesName,
    )


def _feature(message: Any) -> Feature:
    field = message.type.WhichOneof("Type") or ""
    return Feature(
        name=message.name,
        kind=_KINDS.get(field, "unknown"),
        optional=message.type.isOptional,
        short_description=message.shortDescription,
        **_details(field, message.type),
    )


def _details(field: str, feature_type: Any) -> dict[str, Any]:
    if field == "multiArrayType":
        return _array(feature_type.multiArrayType)
    if field == "stateType":
        return _array(feature_type.stateType.arrayType)
    if field == "imageType":
        return _image(feature_type.imageType)
    if field == "dictionaryType":
        integers = feature_type.dictionaryType.WhichOneof("KeyType") == "int64KeyType"
        return {"dtype": "int64" if integers else "string"}
    return {}


def _array(message: Any) -> dict[str, Any]:
    default = message.WhichOneof("defaultOptionalValue")
    return {
        "default_value": getattr(message, default) if default else None,
        "dtype": _ARRAY_DTYPES.get(message.dataType, "unknown"),
        "shape": tuple(message.shape),
        "ranges": _ranges(message.shapeRange.sizeRanges),
        "enumerated_shapes": tuple(tuple(each.shape) for each in message.enumeratedShapes.shapes),
    }


def _image(message: Any) -> dict[str, Any]:
    layout = _COLOUR_LAYOUTS.get(message.colorSpace, "unknown")
    channels = 3 if layout in ("RGB", "BGR") else 1
    ranges: tuple[_Range, ...] = ()
    if message.WhichOneof("SizeFlexibility") == "imageSizeRange":
        height = message.imageSizeRange.heightRange
        width = message.imageSizeRange.widthRange
        ranges = ((1, 1), (channels, channels), *_ranges([height, width]))
    return {
        "dtype": "fp16" if layout == "GRAYSCALE_FLOAT16" else "uint8",
        "shape": (1, channels, message.height, message.width),
        "ranges": ranges,
        "enumerated_shapes": tuple(
            (1, channels, each.height, each.width) for each in message.enumeratedSizes.sizes
        ),
        "colour_layout": layout,
    }


def _ranges(messages: Iterable[Any]) -> tuple[_Range, ...]:
    # An upper bound of -1 is unbounded (FeatureTypes.proto, SizeRange).
    return tuple(
        (each.lowerBound, None if each.upperBound < 0 else each.upperBound) for each in messages
    )
